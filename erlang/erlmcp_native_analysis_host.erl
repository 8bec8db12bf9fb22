%% @private A subject that is served in one VM and loaded from another. Both are called from a
%% third; what they start lives as long as they do.
-module(erlmcp_native_analysis_host).

-export([serve/1, load/2]).

%% @doc Starts the server of a subject, which stays; where it is.
-spec serve(erlmcp_native_analysis_subject:given()) ->
    {ok, Endpoint :: map() | binary()} | {error, erlmcp_native_analysis_subject:reason()}.
serve(Given) ->
    Caller = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        Result = erlmcp_native_analysis_subject:start(Given),
        Caller ! {self(), answer(Result)},
        receive
            {stop, Result} -> ok
        end
    end),
    receive
        {Pid, Answer} ->
            true = demonitor(Monitor, [flush]),
            Answer;
        {'DOWN', Monitor, process, Pid, Reason} ->
            exit(Reason)
    end.

answer({ok, Subject}) -> {ok, erlmcp_native_analysis_subject:endpoint(Subject)};
answer({error, _} = Error) -> Error.

%% @doc Puts a load on a subject that is started and stopped for it.
-spec load(erlmcp_native_analysis_subject:given(), erlmcp_native_analysis_load:load()) ->
    {ok, erlmcp_native_analysis_load:result()}
    | {error, erlmcp_native_analysis_subject:reason()}.
load(Given, Load) ->
    case erlmcp_native_analysis_subject:start(Given) of
        {ok, Subject} ->
            try
                erlmcp_native_analysis_load:run(Subject, Load)
            after
                erlmcp_native_analysis_subject:stop(Subject)
            end;
        {error, _} = Error ->
            Error
    end.
