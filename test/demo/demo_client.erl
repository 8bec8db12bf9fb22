%% An MCP client of a few lines over the public API, by TCP, by HTTP or by stdio.
-module(demo_client).

-export([connect/4, call/3, notify/3, call_many/5, close/1]).

%% `send' and `close' are those of the transport.
-record(client, {conn, send, close, next = 1}).

-define(WAIT, 30000).

connect(http, Port, Path, Tls) ->
    Scheme =
        case Tls of
            false -> "http";
            _ -> "https"
        end,
    Url = lists:concat([Scheme, "://localhost:", Port, "/mcp"]),
    {ok, Conn} = erlmcp_native_http_client:start_link(Url, #{path => Path, tls => Tls}),
    #client{
        conn = Conn,
        send = fun(Text) -> erlmcp_native_http_client:send(Conn, Text) end,
        close = fun() -> erlmcp_native_http_client:close(Conn) end
    };
connect(tcp, Port, Path, Tls) ->
    connect(#{host => "localhost", port => Port}, #{path => Path, tls => Tls});
connect(stdio, Command, Path, false) ->
    connect(Command, #{path => Path}).

connect(Endpoint, Options) ->
    {ok, Conn} = erlmcp_native:connect(Endpoint, Options#{active => true}),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    Sender =
        case erlmcp_native:sender(Conn) of
            none -> Conn;
            Direct -> Direct
        end,
    #client{
        conn = Conn,
        send = fun(Text) -> erlmcp_native:send(Sender, Text) end,
        close = fun() -> erlmcp_native:close(Conn) end
    }.

close(#client{close = Close}) ->
    Close().

notify(Method, Params, Client) ->
    send(#{<<"method">> => Method, <<"params">> => Params}, Client),
    Client.

call(Method, Params, #client{next = Id} = Client) ->
    request(Id, Method, Params, Client),
    [Answer] = answers(Client),
    #{<<"id">> := Id, <<"result">> := Result} = Answer,
    {Result, Client#client{next = Id + 1}}.

%% @doc Makes `Count' calls, `Window' of them in flight, and returns how long each took, in
%% microseconds. `Check' is given each result.
call_many(Count, Window, Call, Check, #client{next = First} = Client) ->
    Last = First + Count - 1,
    Started = start(First, min(Last, First + Window - 1), Call, Client, #{}),
    Times = collect(First + Window, Last, Call, Check, Client, Started, []),
    {Times, Client#client{next = Last + 1}}.

start(Id, Last, _, _, Started) when Id > Last ->
    Started;
start(Id, Last, Call, Client, Started) ->
    {Method, Params} = Call(Id),
    Now = erlang:monotonic_time(microsecond),
    request(Id, Method, Params, Client),
    start(Id + 1, Last, Call, Client, Started#{Id => Now}).

collect(_, _, _, _, _, Started, Times) when map_size(Started) =:= 0 ->
    Times;
collect(Next, Last, Call, Check, Client, Started, Times) ->
    Answers = answers(Client),
    Now = erlang:monotonic_time(microsecond),
    {Left, Took} = lists:foldl(
        fun(#{<<"id">> := Id, <<"result">> := Result}, {Acc, TimesAcc}) ->
            Check(Id, Result),
            {At, Rest} = maps:take(Id, Acc),
            {Rest, [Now - At | TimesAcc]}
        end,
        {Started, Times},
        Answers
    ),
    Until = min(Last, Next + length(Answers) - 1),
    Again = start(Next, Until, Call, Client, Left),
    collect(max(Next, Until + 1), Last, Call, Check, Client, Again, Took).

request(Id, Method, Params, Client) ->
    send(#{<<"id">> => Id, <<"method">> => Method, <<"params">> => Params}, Client).

send(Message, #client{send = Send}) ->
    ok = Send(erlmcp_native_json:encode(Message#{<<"jsonrpc">> => <<"2.0">>})).

answers(#client{conn = Conn}) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            [decode(Frame) || Frame <- Frames];
        {erlmcp_native, Conn, {down, Reason, _}} ->
            error({down, Reason})
    after ?WAIT -> error(no_answer)
    end.

decode(Frame) ->
    {ok, Message} = erlmcp_native_json:decode(Frame),
    Message.
