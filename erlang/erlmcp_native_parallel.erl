%% @doc Several things at once.
-module(erlmcp_native_parallel).

-export([map/2]).

%% @doc As `lists:map/2', each element in a process of its own. If one fails, the caller does.
-spec map(fun((A) -> B), [A]) -> [B].
map(Fun, List) ->
    Self = self(),
    Pids = [spawn_link(fun() -> Self ! {self(), Fun(Element)} end) || Element <- List],
    [
        receive
            {Pid, Result} -> Result
        end
     || Pid <- Pids
    ].
