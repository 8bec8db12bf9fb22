%% @doc A client over HTTP whose return is measured: what it keeps open is the stream of its
%% session, and it is back when a notification comes on it. The notification is sent while the
%% stream is cut, on behalf of a client that is connected to the server directly.
-module(erlmcp_native_reconnect_http).

-behaviour(erlmcp_native_reconnect_client).

-export([connect/3, send/2, event/1, session/1, close/1]).
-export([control/1, notify/2]).

-define(TIMEOUT_MS, 10000).

%% @private
-spec connect(map(), erlmcp_native_report:path(), pos_integer()) -> {ok, pid()}.
connect(#{port := Port}, Path, ConnectTimeoutMs) ->
    {ok, Client} = erlmcp_native_http_client:start(url(Port), #{
        path => Path, http_sse => false, connect_timeout_ms => ConnectTimeoutMs
    }),
    {ok, _} = erlmcp_native_http_client:initialize(Client, #{}, ?TIMEOUT_MS),
    {ok, Client}.

%% @private
-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Client, Message) -> erlmcp_native_http_client:send(Client, Message).

%% @private
-spec event(term()) -> erlmcp_native_reconnect_client:event().
event({erlmcp_native, _, {frames, _}}) -> answer;
event(_) -> other.

%% @doc The session of a client.
-spec session(pid()) -> binary().
session(Client) ->
    {ok, #{session := Session}} = erlmcp_native_http_client:info(Client),
    Session.

%% @private
-spec close(pid()) -> ok.
close(Client) -> erlmcp_native_http_client:close(Client).

%% @doc The client that {@link notify/2} needs.
-spec control(inet:port_number()) -> pid().
control(Port) ->
    {ok, Control} = connect(#{port => Port}, beam, ?TIMEOUT_MS),
    Control.

%% @doc Has the server send a notification to sessions, now or when their streams are there again.
-spec notify(pid(), [binary()]) -> ok.
notify(Control, Sessions) ->
    Request = erlmcp_native_json:encode(#{
        jsonrpc => <<"2.0">>,
        id => erlang:unique_integer([positive]),
        method => <<"sessions/notify">>,
        params => #{sessions => Sessions}
    }),
    ok = send(Control, Request),
    receive
        {erlmcp_native, Control, {frames, [_]}} -> ok
    after ?TIMEOUT_MS -> exit(no_answer)
    end.

url(Port) ->
    <<"http://127.0.0.1:", (integer_to_binary(Port))/binary, "/mcp">>.
