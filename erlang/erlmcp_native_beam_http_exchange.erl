%% @doc One request and its answer, as the process that serves it and the process of the
%% connection share them.
%%
%% The serving process never waits for the connection where it sends: it hands over what it has to
%% say, and three numbers that both see tell it whether anybody still listens and how much waits.
-module(erlmcp_native_beam_http_exchange).

-export([link/2, new/2]).
-export([read_body/2, reply/4, stream/3, send/2, finish/1, on_gone/2, on_exit/2, handle_info/2]).
-export([over/2, gone/2, notice/3, queued/1, left/2, reset/1]).

-export_type([link/0, exchange/0]).

%% The last exchange of the connection that is over, and that lost its client.
-define(OVER, 1).
-define(GONE, 2).
%% Bytes of the stream that have not been sent.
-define(QUEUED, 3).

-record(link, {
    conn :: pid(),
    shared :: atomics:atomics_ref(),
    max_queued :: pos_integer()
}).

-record(exchange, {link :: link(), number :: pos_integer()}).

-opaque link() :: #link{}.
-opaque exchange() :: #exchange{}.

%% @doc What the exchanges of the calling connection have in common.
-spec link(pid(), pos_integer()) -> link().
link(Conn, MaxQueued) ->
    #link{conn = Conn, shared = atomics:new(3, []), max_queued = MaxQueued}.

%% @doc The exchange of that number; the first is 1.
-spec new(link(), pos_integer()) -> exchange().
new(Link, Number) ->
    #exchange{link = Link, number = Number}.

%% The serving process's side.

-spec read_body(exchange(), timeout()) ->
    {ok, binary()} | {error, body_too_large | timeout | closed}.
read_body(Exchange, Timeout) ->
    call(read_body, Timeout, Exchange).

-spec reply(
    exchange(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers(), iodata()
) -> ok | {error, closed}.
reply(#exchange{number = Number} = Exchange, Status, Headers, Body) ->
    Status >= 200 orelse error(badarg),
    Fields = erlmcp_native_beam_http_answer:fields(Headers),
    case is_over(Exchange) of
        false ->
            Answer = {reply, Number, Status, Fields, flat(Body), iolist_size(Body)},
            end_with(Answer, Exchange);
        true ->
            {error, closed}
    end.

-spec stream(
    exchange(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers()
) -> ok | {error, closed}.
stream(Exchange, Status, Headers) ->
    Status >= 200 orelse error(badarg),
    Fields = erlmcp_native_beam_http_answer:fields(Headers),
    call(stream, {Status, Fields}, Exchange).

-spec send(exchange(), iodata()) -> ok | {error, busy | closed}.
send(#exchange{link = Link, number = Number} = Exchange, Data) ->
    #link{conn = Conn, shared = Shared, max_queued = Max} = Link,
    case {is_over(Exchange), atomics:get(Shared, ?QUEUED)} of
        {true, _} ->
            {error, closed};
        {false, Queued} when Queued >= Max ->
            Conn ! {busy, Number},
            {error, busy};
        {false, _} ->
            hand_over(iolist_size(Data), Data, Exchange)
    end.

hand_over(0, _, _) ->
    ok;
hand_over(Size, Data, #exchange{link = #link{conn = Conn, shared = Shared}, number = Number}) ->
    ok = atomics:add(Shared, ?QUEUED, Size),
    Conn ! {part, Number, flat(Data), Size},
    ok.

-spec finish(exchange()) -> ok | {error, closed}.
finish(#exchange{number = Number} = Exchange) ->
    case is_over(Exchange) of
        false -> end_with({finish, Number}, Exchange);
        true -> {error, closed}
    end.

-spec on_gone(exchange(), notice | exit) -> ok.
on_gone(#exchange{link = #link{conn = Conn, shared = Shared}, number = Number}, What) ->
    Conn ! {on_gone, Number, What},
    %% The connection looks for the message above after it has set this.
    case atomics:get(Shared, ?GONE) >= Number of
        true when What =:= exit -> exit({shutdown, gone});
        _ -> ok
    end.

-spec on_exit(exchange(), erlmcp_native_http_path:status()) -> ok.
on_exit(#exchange{link = #link{conn = Conn}, number = Number}, Status) ->
    Conn ! {on_exit, Number, Status},
    ok.

-spec handle_info(term(), exchange()) -> erlmcp_native_http_path:notice() | unknown.
handle_info(
    {?MODULE, Conn, Number, Notice}, #exchange{link = #link{conn = Conn}, number = Number}
) ->
    Notice;
handle_info(_, _) ->
    unknown.

is_over(#exchange{link = #link{shared = Shared}, number = Number}) ->
    atomics:get(Shared, ?OVER) >= Number.

end_with(Message, #exchange{link = #link{conn = Conn, shared = Shared}, number = Number}) ->
    ok = atomics:put(Shared, ?OVER, Number),
    Conn ! Message,
    ok.

call(What, Argument, #exchange{link = #link{conn = Conn}, number = Number} = Exchange) ->
    case is_over(Exchange) of
        true ->
            {error, closed};
        false ->
            Ref = monitor(process, Conn, [{alias, reply_demonitor}]),
            Conn ! {What, Number, Ref, Argument},
            receive
                {Ref, Result} -> Result;
                {'DOWN', Ref, process, _, _} -> {error, closed}
            end
    end.

%% A deep list would be copied cell by cell.
flat(Data) when is_binary(Data) -> Data;
flat(Data) -> erlang:iolist_to_iovec(Data).

%% The connection's side.

%% @doc Nothing is taken from the serving process any more.
-spec over(link(), non_neg_integer()) -> ok.
over(#link{shared = Shared}, Number) ->
    atomics:put(Shared, ?OVER, Number).

%% @doc The same, because the client has gone.
-spec gone(link(), pos_integer()) -> ok.
gone(#link{shared = Shared} = Link, Number) ->
    ok = over(Link, Number),
    atomics:put(Shared, ?GONE, Number).

%% @doc Tells the serving process.
-spec notice(pid(), pos_integer(), erlmcp_native_http_path:notice()) -> ok.
notice(Pid, Number, Notice) ->
    Pid ! {?MODULE, self(), Number, Notice},
    ok.

%% @doc Bytes of the stream that wait, those on their way to the connection included.
-spec queued(link()) -> non_neg_integer().
queued(#link{shared = Shared}) ->
    atomics:get(Shared, ?QUEUED).

%% @doc So many of them have left.
-spec left(link(), non_neg_integer()) -> ok.
left(#link{shared = Shared}, Bytes) ->
    atomics:sub(Shared, ?QUEUED, Bytes).

%% @doc The stream has ended.
-spec reset(link()) -> ok.
reset(#link{shared = Shared}) ->
    atomics:put(Shared, ?QUEUED, 0).
