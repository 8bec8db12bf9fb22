%% An MCP client that sends what it is told, over a connection of its own for each message.
-module(http_mcp).

-export([post/3, post/4, start/3, start/4, method/4, initialize/2, initialize/3]).
-export([modern/2, modern/3, modern_headers/2, request/3, request/2, notification/2]).
-export([head/1, event/1, events/1, message/1, answer/1, close/1, header/2]).

-define(ENDPOINT, "/mcp").
-define(META, <<"io.modelcontextprotocol/">>).

%% `{Status, Headers, Body}', decoded where it is JSON, a list of events where it is a stream.
post(Port, Headers, Message) -> post(Port, ?ENDPOINT, Headers, Message).

post(Port, Target, Headers, Message) ->
    answer(start(Port, Target, Headers, Message)).

%% A connection on which an answer is to come.
start(Port, Headers, Message) -> start(Port, ?ENDPOINT, Headers, Message).

start(Port, Target, Headers, Message) ->
    Body =
        case is_binary(Message) of
            true -> Message;
            false -> erlmcp_native_json:encode(Message)
        end,
    Length = integer_to_binary(byte_size(Body)),
    Defaults = #{
        <<"host">> => <<"localhost">>,
        <<"content-type">> => <<"application/json">>,
        <<"accept">> => <<"application/json, text/event-stream">>,
        <<"content-length">> => Length
    },
    Socket = http_raw:connect(Port),
    ok = http_raw:send(Socket, [head(<<"POST">>, Target, Defaults, Headers), Body]),
    Socket.

%% A request without a body.
method(Port, Method, Target, Headers) ->
    Socket = http_raw:connect(Port),
    Defaults = #{<<"host">> => <<"localhost">>},
    ok = http_raw:send(Socket, head(Method, Target, Defaults, Headers)),
    Socket.

%% `none' removes one of the headers that are sent else.
head(Method, Target, Defaults, Headers) ->
    Names = [Name || {Name, _} <- Headers],
    All = maps:to_list(maps:without(Names, Defaults)) ++ Headers,
    Lines = [[Name, ": ", Value, "\r\n"] || {Name, Value} <- All, Value =/= none],
    [Method, " ", Target, " HTTP/1.1\r\n", Lines, "\r\n"].

%% The headers of a session that has been begun.
initialize(Port, Revision) -> initialize(Port, Revision, []).

initialize(Port, Revision, Headers) ->
    Params = #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"clientInfo">> => #{<<"name">> => <<"c">>, <<"version">> => <<"1">>}
    },
    {200, Answer, #{<<"result">> := #{<<"protocolVersion">> := Revision}}} =
        post(Port, Headers, request(0, <<"initialize">>, Params)),
    Id = header(<<"mcp-session-id">>, Answer),
    Session = [{<<"mcp-session-id">>, Id} || Id =/= none],
    %% 2025-03-26 had no such header.
    Version = [{<<"mcp-protocol-version">>, Revision} || Revision > <<"2025-03-26">>],
    Session ++ Version ++ Headers.

%% A message that names its revision, with the headers that repeat what is in it.
modern(Method, Params) -> modern(1, Method, Params).

modern(Id, Method, Params) ->
    Meta = #{
        <<?META/binary, "protocolVersion">> => <<"2026-07-28">>,
        <<?META/binary, "clientCapabilities">> => #{}
    },
    request(Id, Method, Params#{<<"_meta">> => Meta}).

modern_headers(Method, Params) ->
    Names = [V || K <- [<<"name">>, <<"uri">>], {ok, V} <- [maps:find(K, Params)]],
    [
        {<<"mcp-protocol-version">>, <<"2026-07-28">>}, {<<"mcp-method">>, Method}
        | [{<<"mcp-name">>, Name} || Name <- Names]
    ].

request(Id, Method) -> request(Id, Method, #{}).

request(Id, Method, Params) ->
    #{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"method">> => Method,
        <<"params">> => Params
    }.

notification(Method, Params) ->
    #{<<"jsonrpc">> => <<"2.0">>, <<"method">> => Method, <<"params">> => Params}.

answer(Socket) ->
    case http_raw:head(Socket) of
        {Status, Headers} ->
            Type = header(<<"content-type">>, Headers),
            {Status, Headers, body(Type, Headers, Socket)};
        Error ->
            Error
    end.

%% A stream that is known to be empty when it begins may say so.
body(<<"text/event-stream">>, Headers, Socket) ->
    case header(<<"content-length">>, Headers) of
        <<"0">> -> [];
        none -> events(Socket)
    end;
body(Type, Headers, Socket) ->
    case header(<<"content-length">>, Headers) of
        none -> <<>>;
        <<"0">> -> <<>>;
        Length -> read(Type, binary_to_integer(Length), Socket)
    end.

read(Type, Length, {gen_tcp, Socket}) ->
    ok = inet:setopts(Socket, [{packet, raw}]),
    {ok, Body} = gen_tcp:recv(Socket, Length, 10000),
    case Type of
        <<"application/json">> ->
            {ok, Message} = erlmcp_native_json:decode(Body),
            Message;
        _ ->
            Body
    end.

%% The head of a stream.
head(Socket) -> http_raw:head(Socket).

%% The next event of a stream; `done', or `{error, Reason}' where it was cut off. What has been
%% read ahead is kept here, in the process.
event(Socket) ->
    case get({?MODULE, Socket}) of
        {[Item | Items], Parser} ->
            _ = put({?MODULE, Socket}, {Items, Parser}),
            Item;
        undefined ->
            more(Socket, erlmcp_native_sse:new());
        {[], Parser} ->
            more(Socket, Parser)
    end.

more(Socket, Parser) ->
    case http_raw:part(Socket) of
        Part when is_binary(Part) ->
            {ok, Items, Next} = erlmcp_native_sse:feed(Part, Parser),
            _ = put({?MODULE, Socket}, {Items, Next}),
            event(Socket);
        Other ->
            Other
    end.

%% All that are still to come.
events(Socket) ->
    case event(Socket) of
        done -> [];
        {error, _} = Error -> [Error];
        Event -> [Event | events(Socket)]
    end.

%% The next message of a stream, with its id. Those without data are passed over.
message(Socket) ->
    case event(Socket) of
        {event, #{data := <<>>}} ->
            message(Socket);
        {event, #{data := Data, id := Id}} ->
            {ok, Message} = erlmcp_native_json:decode(Data),
            {Id, Message};
        Other ->
            Other
    end.

close(Socket) -> http_raw:close(Socket).

header(Name, Headers) ->
    case lists:keyfind(Name, 1, Headers) of
        {_, Value} -> Value;
        false -> none
    end.
