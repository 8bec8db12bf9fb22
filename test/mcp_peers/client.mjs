// A client on the official TypeScript SDK: client.mjs URL [sse]. Says what it does in one JSON line a
// step, waits for a line after `sleeping' and `restart', and ends with status 1 at the first fault.
// With `sse' it speaks HTTP+SSE of 2024-11-05.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import assert from 'node:assert/strict';

const require = createRequire(`${process.env.MCP_PEERS_NODE}/package.json`);
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { SSEClientTransport } = require('@modelcontextprotocol/sdk/client/sse.js');
const { ToolListChangedNotificationSchema } = require('@modelcontextprotocol/sdk/types.js');

const [url, sse] = process.argv.slice(2);
const say = (step, more = {}) => console.log(JSON.stringify({ step, ...more }));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const textOf = (result) => result.content[0].text;

async function connect() {
  const client = new Client({ name: 'peer', version: '1.0.0' });
  const transport = new (sse ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url));
  const changed = new Promise((resolve) =>
    client.setNotificationHandler(ToolListChangedNotificationSchema, resolve));
  await client.connect(transport);
  // As they come in: the SDK hands the last notices on after the answer that came behind them.
  const messages = [];
  const { onmessage } = transport;
  transport.onmessage = (message, extra) => {
    messages.push(message);
    onmessage(message, extra);
  };
  return { client, transport, changed, messages };
}

async function main() {
  let { client, transport, changed, messages } = await connect();
  say('initialize', { version: transport.protocolVersion ?? transport._protocolVersion });

  const { tools } = await client.listTools();
  assert(tools.some(({ name }) => name === 'echo'));
  say('list', { tools: tools.length });

  const message = 'Grüße, 世界 \u2028 "quoted"\n';
  assert.equal(textOf(await client.callTool({ name: 'echo', arguments: { message } })), message);
  const sums = await Promise.all([...Array(20).keys()].map((n) =>
    client.callTool({ name: 'add', arguments: { a: n, b: 1 } })));
  assert.deepEqual(sums.map(textOf), [...Array(20).keys()].map((n) => `${n + 1}`));
  say('call');

  const bytes = 5 * 1024 * 1024;
  const large = await client.callTool({ name: 'large', arguments: { bytes } });
  assert.equal(textOf(large).length, bytes);
  const back = await client.callTool({ name: 'echo', arguments: { message: textOf(large) } });
  assert.equal(textOf(back).length, bytes);
  say('large', { bytes });

  messages.length = 0;
  let told = 0;
  await client.callTool({ name: 'progress', arguments: { steps: 20 } }, undefined,
    { onprogress: () => { told += 1; } });
  const answered = messages.findIndex(({ result }) => result !== undefined);
  const seen = messages.slice(0, answered).map(({ params }) => params.progress);
  assert.deepEqual(seen, [...Array(20).keys()].map((n) => n + 1));
  assert(sse !== undefined || told > 0);
  say('progress', { seen: seen.length });

  await client.callTool({ name: 'test_trigger_tool_change', arguments: {} });
  await changed;
  say('changed');

  const abort = new AbortController();
  const sleeping = client.callTool({ name: 'sleep', arguments: { ms: 600000 } }, undefined,
    { signal: abort.signal });
  say('sleeping');
  await lines.next();
  abort.abort('enough');
  await assert.rejects(sleeping);
  await client.ping();
  say('cancelled');

  say('restart');
  await lines.next();
  // The first may go out on a connection that the server has closed and fetch has not seen closed.
  const list = () => client.listTools();
  const listed = list().catch((error) => (error.message === 'fetch failed' ? list() : Promise.reject(error)));
  await assert.rejects(listed, (error) => sse !== undefined || error.code === 404);
  await client.close().catch(() => {});
  ({ client, transport } = await connect());
  assert.equal(textOf(await client.callTool({ name: 'echo', arguments: { message } })), message);
  say('restarted');

  if (!sse) await transport.terminateSession();
  await client.close();
  say('closed');
}

main().then(() => process.exit(0), (error) => {
  say('failed', { error: String(error?.stack ?? error) });
  process.exit(1);
});
