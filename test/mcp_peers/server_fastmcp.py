"""A server on fastmcp: serves its standard input and output."""

from fastmcp import FastMCP

server = FastMCP("peer")


@server.tool
def echo(message: str) -> str:
    return message


server.run("stdio", show_banner=False)
