"""A client on version 2 of the official Python SDK, or on fastmcp: client_mcp2.py URL mcp|fastmcp
MODE. Says what it does in one JSON line a step, waits for a line after `sleeping' and `restart',
and ends with status 1 at the first fault."""

import asyncio
import json
import os
import sys
import traceback

URL, LIBRARY, MODE = sys.argv[1:4]
MESSAGE = 'Grüße, 世界 \u2028 "quoted"\n'
BYTES = 5 * 1024 * 1024

if LIBRARY == "mcp":
    from mcp import Client

    PROGRESS = "progress_callback"
else:
    from fastmcp import Client

    PROGRESS = "progress_handler"


def say(step, **more):
    # At once, with its end: others write to the same pipe.
    os.write(1, f"{json.dumps({'step': step, **more})}\n".encode())


async def line():
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def call(client, name, arguments, **more):
    return (await client.call_tool(name, arguments, **more)).content[0].text


async def first(client):
    say("initialize", version=client.protocol_version)

    listed = await client.list_tools()
    tools = getattr(listed, "tools", listed)
    assert any(tool.name == "echo" for tool in tools)
    say("list", tools=len(tools))

    assert await call(client, "echo", {"message": MESSAGE}) == MESSAGE
    sums = await asyncio.gather(*(call(client, "add", {"a": n, "b": 1}) for n in range(20)))
    assert sums == [str(n + 1) for n in range(20)]
    # Its argument goes into a header too, where headers cannot hold it.
    assert await call(client, "test_x_mcp_header", {"region": "Köln "}) == "ok"
    say("call")

    large = await call(client, "large", {"bytes": BYTES})
    assert len(large) == BYTES
    assert await call(client, "echo", {"message": large}) == large
    say("large", bytes=BYTES)

    seen = []

    async def progress(done, _total, _message):
        seen.append(done)

    await call(client, "progress", {"steps": 20}, **{PROGRESS: progress})
    assert seen == list(range(1, 21)), seen
    say("progress", seen=len(seen))

    sleeping = asyncio.create_task(call(client, "sleep", {"ms": 600000}))
    await asyncio.sleep(0)
    say("sleeping")
    await line()
    sleeping.cancel()
    try:
        await sleeping
    except asyncio.CancelledError:
        pass
    assert await call(client, "echo", {"message": MESSAGE}) == MESSAGE
    say("cancelled")

    say("restart")
    await line()
    if client.protocol_version >= "2026-07-28":
        assert await call(client, "echo", {"message": MESSAGE}) == MESSAGE
    else:
        try:
            await call(client, "echo", {"message": MESSAGE})
        except Exception as error:
            say("lost", error=str(error))
        else:
            raise AssertionError("a session outlived its server")


async def main():
    async with Client(URL, mode=MODE) as client:
        await first(client)
    async with Client(URL, mode=MODE) as client:
        assert await call(client, "echo", {"message": MESSAGE}) == MESSAGE
        say("restarted")
    say("closed")


try:
    asyncio.run(main())
except BaseException:
    say("failed", error=traceback.format_exc())
    sys.exit(1)
