%% @private Streamable HTTP as a subject of the analyses: an MCP server with a handler, and MCP
%% clients, each a session.
-module(erlmcp_native_analysis_http).

-behaviour(erlmcp_native_analysis_subject).

-export([start/1, stop/1, endpoint/1, open/2, request/3, handle_info/2, close/1, max_clients/1]).

-spec start(erlmcp_native_analysis_subject:spec()) ->
    {ok, #{url := binary(), listener := pid() | none}} | {error, erlmcp_native:reason()}.
start(#{endpoint := own, path := Path, tls := Tls, server_options := Given}) ->
    Server = #{
        path => Path,
        handler => {erlmcp_native_analysis_echo, none},
        max_connections => 100000,
        max_connections_per_peer => 100000,
        max_requests => 100000,
        max_sessions => 100000,
        max_body_bytes => 67108864,
        tls => server_tls(Tls)
    },
    case erlmcp_native_http:listen(#{port => 0}, maps:merge(Server, Given)) of
        {ok, Listener} -> {ok, #{url => url(Tls, Listener), listener => Listener}};
        {error, _} = Error -> Error
    end;
start(#{endpoint := Url}) ->
    case erlmcp_native_http_client_url:parse(Url) of
        {ok, _} -> {ok, #{url => Url, listener => none}};
        error -> {error, {option, endpoint, Url}}
    end.

url(Tls, Listener) ->
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    Begin =
        case Tls of
            false -> <<"http://127.0.0.1:">>;
            _ -> <<"https://localhost:">>
        end,
    <<Begin/binary, (integer_to_binary(Port))/binary, "/mcp">>.

server_tls(#{} = Tls) -> maps:with([certfile, keyfile, min_version], Tls);
server_tls(Tls) -> Tls.

client_tls(#{tls := false}) ->
    #{};
client_tls(#{tls := #{} = Tls, endpoint := own}) ->
    #{tls => maps:with([cacertfile, verify, server_name, min_version], Tls)};
client_tls(#{tls := Tls}) ->
    #{tls => Tls}.

-spec stop(#{listener := pid() | none, _ => _}) -> ok.
stop(#{listener := none}) -> ok;
stop(#{listener := Listener}) -> erlmcp_native_http:close(Listener).

-spec endpoint(#{url := binary(), _ => _}) -> binary().
endpoint(#{url := Url}) -> Url.

-spec open(erlmcp_native_analysis_subject:spec(), #{url := binary(), _ => _}) ->
    {ok, pid()} | {error, erlmcp_native_analysis_subject:reason()}.
open(#{path := Path, options := Options, timeout_ms := TimeoutMs} = Spec, #{url := Url}) ->
    Given = #{
        path => Path,
        get_stream => false,
        http_sse => false,
        retries => 0,
        max_message_bytes => 67108864,
        max_owner_queue => 100000,
        max_owner_bytes => 268435456
    },
    All = maps:merge(maps:merge(Given, client_tls(Spec)), Options),
    case erlmcp_native_http_client:start(Url, All) of
        {ok, Client} ->
            case erlmcp_native_http_client:initialize(Client, #{}, TimeoutMs) of
                {ok, _} ->
                    {ok, Client};
                {error, Reason} ->
                    ok = erlmcp_native_http_client:close(Client),
                    {error, reason(Reason)}
            end;
        {error, _} = Error ->
            Error
    end.

%% Reasons of connections are passed on as they are.
reason(Reason) when is_atom(Reason) -> Reason;
reason({tls, _} = Reason) -> Reason;
reason({posix, _} = Reason) -> Reason;
reason(Reason) -> {initialize, Reason}.

-spec request(pid(), pos_integer(), iodata()) ->
    {ok | {error, erlmcp_native_http_client_core:send_error()}, pid()}.
request(Client, _, Json) ->
    {erlmcp_native_http_client:send(Client, Json), Client}.

-spec handle_info(term(), pid()) -> {[erlmcp_native_analysis_subject:event()], pid()} | unknown.
handle_info({erlmcp_native, Client, {frames, Messages}}, Client) ->
    {lists:append([answer(Message) || Message <- Messages]), Client};
handle_info({erlmcp_native, Client, {failed, none, _}}, Client) ->
    {[], Client};
handle_info({erlmcp_native, Client, {failed, Id, Reason}}, Client) ->
    {[{answer, Id, {error, Reason}}], Client};
handle_info({erlmcp_native, Client, {down, Reason, final}}, Client) ->
    {[{down, Reason}], Client};
handle_info({erlmcp_native, Client, _}, Client) ->
    {[], Client};
handle_info(_, _) ->
    unknown.

answer(Message) ->
    case erlmcp_native_json:decode(Message) of
        {ok, Term} ->
            case erlmcp_native_analysis_call:outcome(Term) of
                {Id, Outcome} when is_integer(Id) -> [{answer, Id, Outcome}];
                _ -> []
            end;
        {error, _} ->
            []
    end.

-spec close(pid()) -> ok.
close(Client) ->
    erlmcp_native_http_client:close(Client).

-spec max_clients(erlmcp_native_analysis_subject:spec()) -> infinity.
max_clients(_) -> infinity.
