// A client on the official TypeScript SDK that starts a server: stdio_client.mjs COMMAND ARG... Says
// what it does in one JSON line a step, and ends with status 1 at the first fault.
import { createRequire } from 'node:module';
import assert from 'node:assert/strict';

const require = createRequire(`${process.env.MCP_PEERS_NODE}/package.json`);
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = require('@modelcontextprotocol/sdk/client/stdio.js');

const [command, ...args] = process.argv.slice(2);
const say = (step, more = {}) => console.log(JSON.stringify({ step, ...more }));
const textOf = (result) => result.content[0].text;
const planes = [...Array(17).keys()].map((n) => String.fromCodePoint(n * 0x10000 + 0x1234)).join('');

async function main() {
  const client = new Client({ name: 'peer', version: '1.0.0' });
  // More than this SDK takes by itself.
  const maxBufferSize = 64 * 1024 * 1024;
  const transport = new StdioClientTransport({ command, args, stderr: 'ignore', maxBufferSize });
  const faults = [];
  client.onerror = (error) => faults.push(`${error}`);
  await client.connect(transport);
  say('initialize');
  const { tools } = await client.listTools();
  assert(tools.some(({ name }) => name === 'echo'));
  say('list');
  const echo = async (message) => textOf(await client.callTool({ name: 'echo', arguments: { message } }));
  assert.equal(await echo(`Grüße \u2028 ${planes} "quoted"\n`), `Grüße \u2028 ${planes} "quoted"\n`);
  say('call', { pid: textOf(await client.callTool({ name: 'pid', arguments: {} })) });
  const large = 'x'.repeat(10 * 1024 * 1024);
  assert.equal((await echo(large)).length, large.length);
  say('large');
  const closing = Date.now();
  await client.close();
  assert.deepEqual(faults, []);
  say('closed', { ms: Date.now() - closing });
}

main().catch((error) => {
  say('failed', { error: `${error.stack}` });
  process.exit(1);
});
