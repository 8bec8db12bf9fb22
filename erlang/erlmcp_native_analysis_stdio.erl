%% @private Stdio as a subject of the analyses: each client starts its server, a node that runs
%% {@link erlmcp_native_analysis_echo}, or a command of the user's.
-module(erlmcp_native_analysis_stdio).

-behaviour(erlmcp_native_analysis_subject).

-export([start/1, stop/1, endpoint/1, open/2, request/3, handle_info/2, close/1, max_clients/1]).
-export([echo_node/1]).

%% A node takes some 40 MB and half a second to start.
-define(MAX_NODES, 4).

-spec start(erlmcp_native_analysis_subject:spec()) ->
    {ok, map()} | {error, erlmcp_native:reason()}.
start(#{endpoint := own, path := Path}) ->
    erlmcp_native_options:target(echo_node(Path));
start(#{endpoint := #{command := _} = Endpoint}) ->
    erlmcp_native_options:target(Endpoint);
start(#{endpoint := Endpoint}) ->
    {error, {option, endpoint, Endpoint}}.

%% @doc What starts a node that echoes on its standard input and output.
-spec echo_node(erlmcp_native_path:path()) -> map().
echo_node(Path) ->
    #{
        command => erl(),
        args =>
            ["-noinput", "-boot", "start_clean", "-pa"] ++ code_paths() ++
                ["-erlmcp_native", "path", atom_to_list(Path)] ++
                ["-s", "erlmcp_native_analysis_echo"],
        name => "erlmcp_native_analysis_echo",
        stdin_grace_ms => 5000
    }.

erl() ->
    Candidates = [
        filename:join([code:root_dir(), "bin", "erl"]),
        filename:join([code:root_dir(), "erts-" ++ erlang:system_info(version), "bin", "erl"])
    ],
    case lists:filter(fun filelib:is_regular/1, Candidates) of
        [Erl | _] -> Erl;
        [] -> "erl"
    end.

%% Of this library and of what decodes JSON for it; OTP finds its own.
code_paths() ->
    Modules = [?MODULE, jsx, jsx_decoder],
    lists:usort([
        filename:dirname(File)
     || Module <- Modules, File <- [code:which(Module)], is_list(File), File =/= ""
    ]).

%% The children belong to the clients.
-spec stop(map()) -> ok.
stop(_) -> ok.

-spec endpoint(map()) -> map().
endpoint(Endpoint) -> maps:without([env, name], Endpoint).

-spec open(erlmcp_native_analysis_subject:spec(), map()) ->
    {ok, erlmcp_native_analysis_client:state()}
    | {error, erlmcp_native_analysis_subject:reason()}.
open(#{options := Options} = Spec, Endpoint) ->
    erlmcp_native_analysis_client:open(Spec, Endpoint, Options).

-spec request(erlmcp_native_analysis_client:state(), pos_integer(), iodata()) ->
    {ok | {error, erlmcp_native:reason()}, erlmcp_native_analysis_client:state()}.
request(State, Id, Json) ->
    erlmcp_native_analysis_client:request(State, Id, Json).

-spec handle_info(term(), erlmcp_native_analysis_client:state()) ->
    {[erlmcp_native_analysis_subject:event()], erlmcp_native_analysis_client:state()} | unknown.
handle_info(Msg, State) ->
    erlmcp_native_analysis_client:handle_info(Msg, State).

-spec close(erlmcp_native_analysis_client:state()) -> ok.
close(State) ->
    erlmcp_native_analysis_client:close(State).

-spec max_clients(erlmcp_native_analysis_subject:spec()) -> pos_integer().
max_clients(_) -> ?MAX_NODES.
