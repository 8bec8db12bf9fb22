"""A client on version 1 of the official Python SDK: client_mcp1.py URL. Says what it does in one
JSON line a step, waits for a line after `sleeping' and `restart', and ends with status 1 at the
first fault."""

import asyncio
import json
import os
import sys
import traceback

from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamable_http_client

URL = sys.argv[1]
MESSAGE = 'Grüße, 世界 \u2028 "quoted"\n'
BYTES = 5 * 1024 * 1024


def say(step, **more):
    # At once, with its end: others write to the same pipe.
    os.write(1, f"{json.dumps({'step': step, **more})}\n".encode())


async def line():
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def call(session, name, arguments, **more):
    return (await session.call_tool(name, arguments, **more)).content[0].text


async def with_session(run):
    async with streamable_http_client(URL) as (read, write, session_id):
        async with ClientSession(read, write) as session:
            initialized = await session.initialize()
            await run(session, initialized, session_id)


async def first(session, initialized, session_id):
    say("initialize", version=initialized.protocolVersion, session=session_id() is not None)

    tools = (await session.list_tools()).tools
    assert any(tool.name == "echo" for tool in tools)
    say("list", tools=len(tools))

    assert await call(session, "echo", {"message": MESSAGE}) == MESSAGE
    sums = await asyncio.gather(*(call(session, "add", {"a": n, "b": 1}) for n in range(20)))
    assert sums == [str(n + 1) for n in range(20)]
    say("call")

    large = await call(session, "large", {"bytes": BYTES})
    assert len(large) == BYTES
    assert await call(session, "echo", {"message": large}) == large
    say("large", bytes=BYTES)

    seen = []

    async def progress(done, _total, _message):
        seen.append(done)

    await call(session, "progress", {"steps": 20}, progress_callback=progress)
    assert seen == list(range(1, 21)), seen
    say("progress", seen=len(seen))

    # This version leaves it to its user to say that a request is cancelled.
    request_id = session._request_id
    sleeping = asyncio.create_task(call(session, "sleep", {"ms": 600000}))
    await asyncio.sleep(0)
    say("sleeping")
    await line()
    params = types.CancelledNotificationParams(requestId=request_id, reason="enough")
    await session.send_notification(
        types.ClientNotification(types.CancelledNotification(params=params)))
    await session.send_ping()
    sleeping.cancel()
    say("cancelled")

    say("restart")
    await line()
    try:
        await session.list_tools()
    except McpError as error:
        assert "terminated" in str(error).lower() or "not found" in str(error).lower(), error
    else:
        raise AssertionError("a session outlived its server")


async def second(session, _initialized, _session_id):
    assert await call(session, "echo", {"message": MESSAGE}) == MESSAGE
    say("restarted")


async def main():
    await with_session(first)
    await with_session(second)
    say("closed")


try:
    asyncio.run(main())
except BaseException:
    say("failed", error=traceback.format_exc())
    sys.exit(1)
