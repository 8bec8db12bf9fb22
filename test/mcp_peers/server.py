"""A server on the official Python SDK, version 1 or 2: server.py PORT serves /mcp on loopback,
server.py stdio its standard input and output."""

import sys

import anyio

STDIO = sys.argv[1] == "stdio"
PORT = 0 if STDIO else int(sys.argv[1])

try:
    from mcp.server import MCPServer as Server
    from mcp.server.mcpserver import Context

    RUN = {"host": "127.0.0.1", "port": PORT}
    server = Server("peer", log_level="ERROR")
except ImportError:
    from mcp.server.fastmcp import Context, FastMCP as Server

    RUN = {}
    server = Server("peer", host="127.0.0.1", port=PORT, log_level="ERROR")


@server.tool()
def echo(message: str) -> str:
    return message


@server.tool()
def add(a: int, b: int) -> str:
    return str(a + b)


@server.tool()
def large(bytes: int) -> str:
    return "x" * bytes


@server.tool()
async def progress(steps: int, ctx: Context) -> str:
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps)
    return "done"


@server.tool()
async def sleep(ms: int) -> str:
    await anyio.sleep(ms / 1000)
    return "slept"


if STDIO:
    server.run("stdio")
else:
    server.run("streamable-http", **RUN)
