%% @private One end of a connection in the process that uses it, as the analyses have them on both
%% sides: what arrives is taken in slices, and what does not fit the outbound queue is kept until
%% there is room.
-module(erlmcp_native_analysis_link).

-export([dial/4, adopt/2, handle_info/2, send/2, queue/2, close/1]).

-export_type([conn/0, event/0]).

-record(conn, {
    link :: erlmcp_native_link:link(),
    ref :: reference(),
    %% Encoded messages that are sent when there is room, and then taking goes on.
    waiting = queue:new() :: queue:queue(iodata()),
    unread = false :: boolean()
}).

-opaque conn() :: #conn{}.

-type event() ::
    connected | {items, [erlmcp_native_path:item()]} | writable | {down, erlmcp_native:reason()}.

-define(ITEMS, 256).
-define(BYTES, 262144).

%% @doc Connects and waits until the connection stands, and says what has happened with it by then:
%% who connects first may have spoken already. What else reaches the process meanwhile stays in its
%% mailbox.
-spec dial(term(), erlmcp_native_path:path() | default, map(), pos_integer()) ->
    {ok, [event()], conn()} | {error, erlmcp_native:reason()}.
dial(stdio, Path, Options, TimeoutMs) ->
    case erlmcp_native_stdio:options(Options) of
        {ok, Connection} -> dial_checked(stdio, Path, Connection, TimeoutMs);
        {error, _} = Error -> Error
    end;
dial(Endpoint, Path, Options, TimeoutMs) ->
    case {erlmcp_native_options:target(Endpoint), erlmcp_native_options:connection(Options)} of
        {{ok, Target}, {ok, Connection}} ->
            dial_checked(Target, Path, Connection, TimeoutMs);
        {{error, _} = Error, _} ->
            Error;
        {_, {error, _} = Error} ->
            Error
    end.

dial_checked(Target, Path, Connection, TimeoutMs) ->
    Options = #{path => Path, reconnect => false, connection => Connection},
    case erlmcp_native_link:dial(Target, Options) of
        {ok, Link} ->
            Conn = #conn{link = Link, ref = make_ref()},
            await(Conn, [], erlang:monotonic_time(millisecond) + TimeoutMs);
        {error, _} = Error ->
            Error
    end.

await(Conn, Others, Deadline) ->
    receive
        Msg ->
            case handle_info(Msg, Conn) of
                {[connected | Events], Next} -> given_back(Others, {ok, Events, Next});
                {[{down, Reason} | _], _} -> given_back(Others, {error, Reason});
                {[], Next} -> await(Next, Others, Deadline);
                unknown -> await(Conn, [Msg | Others], Deadline)
            end
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        close(Conn),
        given_back(Others, {error, timeout})
    end.

given_back(Others, Result) ->
    lists:foreach(fun(Msg) -> self() ! Msg end, lists:reverse(Others)),
    Result.

%% @doc Takes over a socket that a listener has accepted.
-spec adopt(module(), erlmcp_native_path:socket()) -> {[event()], conn()}.
adopt(Module, Socket) ->
    {Events, Link} = erlmcp_native_link:adopt(Module, Socket),
    events(Events, [], #conn{link = Link, ref = make_ref()}).

-spec handle_info(term(), conn()) -> {[event()], conn()} | unknown.
handle_info({?MODULE, Ref, take}, #conn{ref = Ref} = Conn) ->
    take(Conn, []);
handle_info({?MODULE, _, take}, _) ->
    unknown;
handle_info(Msg, #conn{link = Link} = Conn) ->
    case erlmcp_native_link:handle_info(Msg, Link) of
        {Events, Next} -> events(Events, [], Conn#conn{link = Next});
        unknown -> unknown
    end.

%% @doc Sends, or is refused.
-spec send(iodata(), conn()) -> {ok | {error, erlmcp_native:reason()}, conn()}.
send(Json, #conn{link = Link} = Conn) ->
    {Result, Next} = erlmcp_native_link:send(Json, Link),
    {Result, Conn#conn{link = Next}}.

%% @doc Sends now or when there is room. While something waits nothing is taken, so that who does
%% not read what it asked for makes itself wait.
-spec queue(iodata(), conn()) -> conn().
queue(Json, #conn{waiting = Waiting} = Conn) ->
    case queue:is_empty(Waiting) of
        true ->
            case send(Json, Conn) of
                {{error, busy}, Next} -> Next#conn{waiting = queue:in(Json, Waiting)};
                {_, Next} -> Next
            end;
        false ->
            Conn#conn{waiting = queue:in(Json, Waiting)}
    end.

-spec close(conn()) -> ok.
close(#conn{link = Link}) ->
    _ = erlmcp_native_link:close(Link),
    ok.

events([], Acc, Conn) ->
    {lists:reverse(Acc), Conn};
events([connected | Events], Acc, Conn) ->
    events(Events, [connected | Acc], Conn);
events([readable | Events], Acc, Conn) ->
    {Taken, Next} = take(Conn, Acc),
    events(Events, lists:reverse(Taken), Next);
events([writable | Events], Acc, Conn) ->
    events(Events, [writable | Acc], flush(Conn));
events([{down, Reason, _} | _], Acc, Conn) ->
    {lists:reverse(Acc, [{down, Reason}]), Conn};
events([{stderr, _} | Events], Acc, Conn) ->
    events(Events, Acc, Conn).

take(#conn{link = Link, waiting = Waiting} = Conn, Acc) ->
    case queue:is_empty(Waiting) of
        true -> taken(erlmcp_native_link:take(Link, ?ITEMS, ?BYTES), Conn, Acc);
        false -> {lists:reverse(Acc), Conn#conn{unread = true}}
    end.

taken({Items, Status, Link}, Conn, Acc) ->
    Next = Conn#conn{link = Link},
    Events = [{items, Items} || Items =/= []],
    case Status of
        {down, Reason, _} -> {lists:reverse(Acc, Events ++ [{down, Reason}]), Next};
        eof -> {lists:reverse(Acc, Events ++ [{down, closed}]), Next};
        empty -> {lists:reverse(Acc, Events), Next};
        _ -> {lists:reverse(Acc, Events), remind(Next)}
    end.

%% Other messages are served in between.
remind(#conn{ref = Ref} = Conn) ->
    self() ! {?MODULE, Ref, take},
    Conn.

flush(#conn{waiting = Waiting} = Conn) ->
    case queue:out(Waiting) of
        {empty, _} ->
            resume(Conn);
        {{value, Json}, Rest} ->
            case send(Json, Conn) of
                {{error, busy}, Next} -> Next;
                {_, Next} -> flush(Next#conn{waiting = Rest})
            end
    end.

resume(#conn{unread = true} = Conn) -> remind(Conn#conn{unread = false});
resume(Conn) -> Conn.
