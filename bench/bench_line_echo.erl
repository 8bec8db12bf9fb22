%% @doc {@link bench_line_server} where the analyses look for a server to compare with.
-module(bench_line_echo).

-export([serve/2]).

-spec serve(erlmcp_native_report:path(), map()) -> inet:port_number().
serve(_, _) ->
    {Port, _} = erlmcp_native_analysis_peer:lasting(fun() -> bench_line_server:listen() end),
    Port.
