%% @private TCP, and TLS over it, as a subject of the analyses. The server has a process for each
%% connection that owns its socket: no other process is between.
-module(erlmcp_native_analysis_tcp).

-behaviour(erlmcp_native_analysis_subject).

-export([start/1, stop/1, endpoint/1, open/2, request/3, handle_info/2, close/1, max_clients/1]).

%% Called by the listener.
-export([start_connection/1]).

-spec start(erlmcp_native_analysis_subject:spec()) ->
    {ok, #{endpoint := map(), listener := pid() | none}} | {error, erlmcp_native:reason()}.
start(#{endpoint := own, path := Path, tls := Tls, server_options := Given}) ->
    Server = #{
        path => Path,
        handler => {?MODULE, start_connection, [Path]},
        decode => json,
        max_connections => 100000,
        tls => server_tls(Tls)
    },
    case erlmcp_native:listen(#{port => 0}, maps:merge(Server, Given)) of
        {ok, Listener} ->
            {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
            {ok, #{endpoint => #{host => host(Tls), port => Port}, listener => Listener}};
        {error, _} = Error ->
            Error
    end;
start(#{endpoint := Endpoint}) ->
    case erlmcp_native_options:endpoint(Endpoint) of
        {ok, Checked} -> {ok, #{endpoint => Checked, listener => none}};
        {error, _} = Error -> Error
    end.

%% A name, for the sake of the certificate.
host(false) -> {127, 0, 0, 1};
host(_) -> <<"localhost">>.

server_tls(#{} = Tls) -> maps:with([certfile, keyfile, min_version], Tls);
server_tls(Tls) -> Tls.

client_tls(#{tls := #{} = Tls, endpoint := own}) ->
    maps:with([cacertfile, verify, server_name, min_version], Tls);
client_tls(#{tls := Tls}) ->
    Tls.

-spec stop(#{listener := pid() | none, _ => _}) -> ok.
stop(#{listener := none}) -> ok;
stop(#{listener := Listener}) -> erlmcp_native:close(Listener).

-spec endpoint(#{endpoint := map(), _ => _}) -> map().
endpoint(#{endpoint := Endpoint}) -> Endpoint.

-spec open(erlmcp_native_analysis_subject:spec(), #{endpoint := map(), _ => _}) ->
    {ok, erlmcp_native_analysis_client:state()}
    | {error, erlmcp_native_analysis_subject:reason()}.
open(#{options := Options} = Spec, #{endpoint := Endpoint}) ->
    Given = maps:merge(#{tls => client_tls(Spec)}, Options),
    erlmcp_native_analysis_client:open(Spec, Endpoint, Given).

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

-spec max_clients(erlmcp_native_analysis_subject:spec()) -> infinity.
max_clients(_) -> infinity.

%% @private
-spec start_connection(erlmcp_native_path:path()) -> {ok, pid()}.
start_connection(Path) ->
    {ok, spawn(fun() -> accepted(Path) end)}.

accepted(Path) ->
    receive
        {erlmcp_native_socket, Module, Socket} ->
            {Events, Conn} = erlmcp_native_analysis_link:adopt(Module, Socket),
            served(Events, Conn, Path)
    end.

serve(Conn, Path) ->
    receive
        Msg ->
            case erlmcp_native_analysis_link:handle_info(Msg, Conn) of
                {Events, Next} -> served(Events, Next, Path);
                unknown -> serve(Conn, Path)
            end
    end.

served([], Conn, Path) ->
    serve(Conn, Path);
served([{items, Items} | Events], Conn, Path) ->
    Answer = fun(Item, Acc) -> answer(Item, Acc, Path) end,
    served(Events, lists:foldl(Answer, Conn, Items), Path);
served([{down, _} | _], _, _) ->
    ok;
served([_ | Events], Conn, Path) ->
    served(Events, Conn, Path).

answer(Item, Conn, Path) ->
    case erlmcp_native_analysis_echo:answer(Item, Path) of
        none -> Conn;
        Json -> erlmcp_native_analysis_link:queue(Json, Conn)
    end.
