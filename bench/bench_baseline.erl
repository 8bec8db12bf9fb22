%% @doc What the analyses compare with, where they are run from here: the techniques of erlmcp 0.5.
-module(bench_baseline).

-export([registry/0, tree/0, client/0, consumer/0, server/0]).

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
