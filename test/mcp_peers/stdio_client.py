"""A client on the official Python SDK, version 1 or 2, or on fastmcp, that starts a server:
stdio_client.py mcp1|mcp2|fastmcp COMMAND ARG... Says what it does in one JSON line a step, and ends
with status 1 at the first fault."""

import asyncio
import json
import os
import sys
import time
import traceback

LIBRARY, COMMAND, *ARGS = sys.argv[1:]
PLANES = "".join(chr(n * 0x10000 + 0x1234) for n in range(17))
MESSAGE = f'Grüße \u2028 {PLANES} "quoted"\n'
LARGE = "x" * (10 * 1024 * 1024)


def say(step, **more):
    # At once, with its end: others write to the same pipe.
    os.write(1, f"{json.dumps({'step': step, **more})}\n".encode())


async def use(client):
    listed = await client.list_tools()
    tools = getattr(listed, "tools", listed)
    assert any(tool.name == "echo" for tool in tools)
    say("list")

    async def call(name, arguments):
        return (await client.call_tool(name, arguments)).content[0].text

    assert await call("echo", {"message": MESSAGE}) == MESSAGE
    say("call", pid=await call("pid", {}))
    assert await call("echo", {"message": LARGE}) == LARGE
    say("large")


async def with_session():
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    parameters = StdioServerParameters(command=COMMAND, args=ARGS)
    with open(os.devnull, "w") as nowhere:
        async with stdio_client(parameters, errlog=nowhere) as (read, write):
            async with ClientSession(read, write) as session:
                await session.initialize()
                say("initialize")
                await use(session)
            return time.monotonic()


async def with_fastmcp():
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport

    transport = StdioTransport(COMMAND, ARGS, keep_alive=False)
    async with Client(transport) as client:
        say("initialize")
        await use(client)
        return time.monotonic()


async def main():
    closing = await (with_fastmcp() if LIBRARY == "fastmcp" else with_session())
    say("closed", ms=int((time.monotonic() - closing) * 1000))


try:
    asyncio.run(main())
except BaseException:
    say("failed", error=traceback.format_exc())
    sys.exit(1)
