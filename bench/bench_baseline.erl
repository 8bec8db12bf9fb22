%% @doc What the analyses compare with, where they are run from here: the techniques of erlmcp 0.5.
-module(bench_baseline).

-export([registry/0, tree/0, client/0, consumer/0, server/0, subject/1, switching/0]).

-spec registry() -> module().
registry() -> bench_line_registry.

-spec tree() -> module().
tree() -> bench_line_tree.

-spec client() -> module().
client() -> bench_line_reconnect.

-spec consumer() -> module().
consumer() -> bench_line_consumer.

-spec server() -> module().
server() -> bench_line_echo.

%% @doc For HTTP there is none: the HTTP transport of erlmcp 0.5 does not start.
-spec subject(erlmcp_native_analysis_subject:transport()) -> module() | none.
subject(tcp) -> bench_line_tcp_subject;
subject(stdio) -> bench_line_stdio_subject;
subject(http) -> none.

-spec switching() -> module().
switching() -> bench_line_switching.
