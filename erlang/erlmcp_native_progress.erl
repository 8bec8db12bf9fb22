%% @doc Says how far a long run has come, where the option `progress' asks for it.
-module(erlmcp_native_progress).

-export([say/3]).

%% @doc Passes a line to the function in the option `progress'; says nothing without one.
-spec say(map(), io:format(), [term()]) -> ok.
say(#{progress := Progress}, Format, Args) when is_function(Progress, 1) ->
    _ = Progress(io_lib:format(Format, Args)),
    ok;
say(_, _, _) ->
    ok.
