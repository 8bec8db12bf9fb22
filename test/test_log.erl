%% What is logged, for the test: a handler of logger whose configuration is the test's process.
-module(test_log).

-export([log/2, logged/1, logged/2]).

log(#{level := Level, msg := {string, Text}}, #{config := Test}) ->
    Test ! {logged, Level, lists:flatten(Text)};
log(#{level := Level, msg := {Format, Args}}, #{config := Test}) when is_list(Format) ->
    Test ! {logged, Level, lists:flatten(io_lib:format(Format, Args))};
log(_, _) ->
    ok.

logged(Level) -> logged(Level, "erlmcp_native: ").

logged(Level, Start) ->
    receive
        {logged, Level, Text} ->
            case lists:prefix(Start, Text) of
                true -> {Level, Text};
                false -> logged(Level, Start)
            end
    after 30000 -> error(timeout)
    end.
