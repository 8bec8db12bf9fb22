%% @private The connections of a pool, inside its process.
%%
%% A connection gets requests when it stands and its session is open. One that is no longer needed
%% gets none and is closed when it has answered those it has.
-module(erlmcp_native_pool_members).

-export([new/1, resize/2, free/1, request/4, send/3, give_up/2, close/1, info/1]).
-export([event/3, gone/3, too_late/2]).

-export_type([members/0, happened/0]).

-type id() :: erlmcp_native_pool_requests:id().

-type happened() ::
    {answer, id(), {ok, term()} | {error, {rpc, term()}}}
    | {failed, id(), term()}
    | {message, pid(), map()}
    | lost.

-record(member, {
    state = connecting :: connecting | {initializing, binary(), reference()} | ready,
    ids = #{} :: #{id() => []},
    leaving = false :: boolean()
}).

-record(members, {
    options :: map(),
    transport :: erlmcp_native | erlmcp_native_http_client,
    per :: pos_integer(),
    all = #{} :: #{pid() => #member{}},
    where = #{} :: #{id() => pid()},
    %% Those that may get a request, by how many they have.
    free = gb_sets:new() :: gb_sets:set({non_neg_integer(), pid()})
}).

-opaque members() :: #members{}.

-spec new(map()) -> members().
new(#{endpoint := Endpoint, scaling := #{per_connection := Per}} = Options) ->
    Transport =
        case Endpoint of
            #{} -> erlmcp_native;
            _ -> erlmcp_native_http_client
        end,
    #members{options = Options, transport = Transport, per = Per}.

%% @doc Begins or ends connections until there are so many.
-spec resize(pos_integer(), members()) -> {ok, members()} | {error, erlmcp_native:reason()}.
resize(Size, #members{all = All} = M) ->
    Staying = [Conn || {Conn, #member{leaving = false}} <- maps:to_list(All)],
    case length(Staying) of
        Have when Have < Size -> grow(Size - Have, M);
        Have -> {ok, shrink(Have - Size, Staying, M)}
    end.

grow(0, M) ->
    {ok, M};
grow(Count, #members{all = All} = M) ->
    %% One that was to leave knows its server already.
    case [Conn || {Conn, #member{leaving = true}} <- maps:to_list(All)] of
        [Conn | _] ->
            #{Conn := Member} = All,
            grow(Count - 1, put(Conn, Member, Member#member{leaving = false}, M));
        [] ->
            case connect(M) of
                {ok, Conn} ->
                    _ = monitor(process, Conn),
                    grow(Count - 1, opened(Conn, M));
                {error, _} = Error ->
                    Error
            end
    end.

connect(#members{transport = erlmcp_native, options = #{endpoint := Endpoint, connect := Given}}) ->
    %% Decoded where there are several processes to do it.
    Own = #{owner => self(), active => true, decode => json},
    erlmcp_native:connect(Endpoint, maps:merge(maps:merge(#{reconnect => true}, Given), Own));
connect(#members{options = #{endpoint := Url, connect := Given}}) ->
    erlmcp_native_http_client:start(Url, Given#{owner => self()}).

%% An HTTP client connects when there is something to send.
opened(Conn, #members{transport = erlmcp_native, all = All} = M) ->
    M#members{all = All#{Conn => #member{}}};
opened(Conn, #members{all = All} = M) ->
    begin_session(Conn, M#members{all = All#{Conn => #member{}}}).

%% Those that have least to do go first.
shrink(Count, Staying, #members{all = All} = M) ->
    Load = fun(Conn) ->
        #{Conn := #member{ids = Ids}} = All,
        {map_size(Ids), Conn}
    end,
    Leaving = lists:sublist(lists:sort([Load(Conn) || Conn <- Staying]), Count),
    lists:foldl(fun({_, Conn}, Acc) -> leave(Conn, Acc) end, M, Leaving).

leave(Conn, #members{all = All} = M) ->
    #{Conn := Member} = All,
    Left = Member#member{leaving = true},
    closed_if_done(Conn, Left, put(Conn, Member, Left, M)).

closed_if_done(Conn, #member{leaving = true, ids = Ids}, M) when map_size(Ids) =:= 0 ->
    ok = close_one(Conn, M),
    forget(Conn, M);
closed_if_done(_, _, M) ->
    M.

%% Closing a session of HTTP takes a request.
close_one(Conn, #members{transport = Transport}) ->
    _ = spawn(fun() -> Transport:close(Conn) end),
    ok.

%% @doc The connection for the next request.
-spec free(members()) -> {ok, pid()} | none.
free(#members{free = Free}) ->
    case gb_sets:is_empty(Free) of
        true -> none;
        false -> {ok, element(2, gb_sets:smallest(Free))}
    end.

%% @doc Sends a request on a connection that is free.
-spec request(pid(), id(), binary(), members()) -> {ok | {error, term()}, members()}.
request(Conn, Id, Message, #members{transport = Transport, all = All, where = Where} = M) ->
    case Transport:send(Conn, Message) of
        ok ->
            #{Conn := #member{ids = Ids} = Member} = All,
            Busy = Member#member{ids = Ids#{Id => []}},
            {ok, put(Conn, Member, Busy, M#members{where = Where#{Id => Conn}})};
        {error, _} = Error ->
            {Error, M}
    end.

-spec send(pid(), iodata(), members()) -> ok | {error, term()}.
send(Conn, Message, #members{all = All, transport = Transport}) when is_map_key(Conn, All) ->
    Transport:send(Conn, Message);
send(_, _, _) ->
    {error, closed}.

%% @doc Nobody waits for this answer any more.
-spec give_up(id(), members()) -> members().
give_up(Id, #members{where = Where, transport = Transport} = M) ->
    case Where of
        #{Id := Conn} when Transport =:= erlmcp_native ->
            _ = Transport:send(Conn, cancellation(Id)),
            done(Id, Conn, M);
        #{Id := Conn} ->
            _ = Transport:cancel(Conn, Id),
            done(Id, Conn, M);
        #{} ->
            M
    end.

cancellation(Id) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"method">> => <<"notifications/cancelled">>,
        <<"params">> => #{<<"requestId">> => Id, <<"reason">> => <<"timeout">>}
    }).

-spec close(members()) -> ok.
close(#members{all = All} = M) ->
    lists:foreach(fun(Conn) -> close_one(Conn, M) end, maps:keys(All)).

-spec info(members()) -> map().
info(#members{all = All, where = Where}) ->
    Members = maps:values(All),
    #{
        connections => length([ok || #member{leaving = false} <- Members]),
        ready => length([ok || #member{state = ready, leaving = false} <- Members]),
        leaving => length([ok || #member{leaving = true} <- Members]),
        in_flight => map_size(Where)
    }.

%% @doc What an event of a connection means for the pool.
-spec event(pid(), term(), members()) -> {[happened()], members()}.
event(Conn, Event, #members{all = All} = M) when is_map_key(Conn, All) ->
    known(Event, Conn, M);
event(_, _, M) ->
    {[], M}.

known(connected, Conn, M) ->
    {[], begin_session(Conn, M)};
known({frames, Frames}, Conn, M) ->
    frames(Frames, Conn, M, []);
known({failed, Id, Reason}, Conn, #members{all = All} = M) ->
    case All of
        #{Conn := #member{state = {initializing, Id, _}}} -> again(Reason, Conn, M);
        #{Conn := #member{ids = #{Id := []}}} -> {[{failed, Id, Reason}], done(Id, Conn, M)};
        #{} -> {[], M}
    end;
known(session_lost, Conn, M) ->
    again(session_lost, Conn, M);
known({down, Reason, final}, Conn, M) ->
    again(Reason, Conn, M);
known({down, Reason, _}, Conn, #members{all = All} = M) ->
    #{Conn := Member} = All,
    {Failed, Next} = lost(Reason, Conn, Member, M),
    {Failed, put(Conn, Member, Member#member{state = connecting, ids = #{}}, Next)};
known(_, _, M) ->
    {[], M}.

%% @doc A connection's process has ended.
-spec gone(pid(), term(), members()) -> {[happened()], members()}.
gone(Conn, Reason, #members{all = All} = M) when is_map_key(Conn, All) -> again(Reason, Conn, M);
gone(_, _, M) -> {[], M}.

%% @doc `initialize' has not been answered in time.
-spec too_late({pid(), binary()}, members()) -> {[happened()], members()}.
too_late({Conn, Id}, #members{all = All} = M) ->
    case All of
        #{Conn := #member{state = {initializing, Id, _}}} -> again(timeout, Conn, M);
        #{} -> {[], M}
    end.

%% Another is begun in its place.
again(Reason, Conn, #members{all = All} = M) ->
    #{Conn := Member} = All,
    {Failed, Next} = lost(Reason, Conn, Member, M),
    ok = close_one(Conn, M),
    {Failed ++ [lost], forget(Conn, Next)}.

lost(Reason, _, #member{ids = Ids}, #members{where = Where} = M) ->
    Lost = maps:keys(Ids),
    {[{failed, Id, Reason} || Id <- Lost], M#members{where = maps:without(Lost, Where)}}.

begin_session(Conn, #members{options = #{initialize := none}, all = All} = M) ->
    #{Conn := Member} = All,
    put(Conn, Member, Member#member{state = ready}, M);
begin_session(Conn, #members{options = Options, transport = Transport, all = All} = M) ->
    #{initialize := Params, initialize_timeout_ms := Ms} = Options,
    #{Conn := Member} = All,
    Id = iolist_to_binary(["pool-", integer_to_list(erlang:unique_integer([positive]))]),
    Message = #{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"method">> => <<"initialize">>,
        <<"params">> => Params
    },
    %% What keeps it from being sent ends the connection, too.
    _ = Transport:send(Conn, erlmcp_native_json:encode(Message)),
    Timer = erlang:start_timer(Ms, self(), {member, {Conn, Id}}),
    put(Conn, Member, Member#member{state = {initializing, Id, Timer}}, M).

frames([], _, M, Happened) ->
    {lists:reverse(Happened), M};
frames([Frame | Frames], Conn, #members{all = All} = M, Happened) when is_map_key(Conn, All) ->
    {What, Next} = message(decoded(Frame), Conn, M),
    frames(Frames, Conn, Next, lists:reverse(What, Happened));
frames(_, _, M, Happened) ->
    {lists:reverse(Happened), M}.

decoded({json, Message}) ->
    Message;
decoded(Frame) when is_binary(Frame) ->
    case erlmcp_native_json:decode(Frame) of
        {ok, Message} -> Message;
        {error, _} -> none
    end;
decoded(_) ->
    none.

message(#{<<"id">> := Id, <<"result">> := Result}, Conn, M) ->
    answer(Id, {ok, Result}, Conn, M);
message(#{<<"id">> := Id, <<"error">> := Error}, Conn, M) ->
    answer(Id, {error, {rpc, Error}}, Conn, M);
message(#{<<"method">> := <<"ping">>, <<"id">> := Id}, Conn, #members{transport = T} = M) ->
    Pong = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => #{}},
    _ = T:send(Conn, erlmcp_native_json:encode(Pong)),
    {[], M};
message(#{} = Message, Conn, M) ->
    {[{message, Conn, Message}], M};
message(_, _, M) ->
    {[], M}.

%% A server that refuses the session is asked nothing else. Answers that nobody waits for are
%% dropped.
answer(Id, Outcome, Conn, #members{all = All} = M) ->
    case {All, Outcome} of
        {#{Conn := #member{ids = #{Id := []}}}, _} ->
            {[{answer, Id, Outcome}], done(Id, Conn, M)};
        {#{Conn := #member{state = {initializing, Id, Timer}}}, {ok, _}} ->
            _ = erlang:cancel_timer(Timer),
            {[], confirm(Conn, M)};
        {#{Conn := #member{state = {initializing, Id, Timer}}}, {error, Refusal}} ->
            _ = erlang:cancel_timer(Timer),
            again(Refusal, Conn, M);
        _ ->
            {[], M}
    end.

confirm(Conn, #members{transport = Transport, all = All} = M) ->
    #{Conn := Member} = All,
    #{text := Initialized} = erlmcp_native_http_client_message:initialized(),
    _ = Transport:send(Conn, Initialized),
    put(Conn, Member, Member#member{state = ready}, M).

done(Id, Conn, #members{all = All, where = Where} = M) ->
    #{Conn := #member{ids = Ids} = Member} = All,
    Less = Member#member{ids = maps:remove(Id, Ids)},
    Next = put(Conn, Member, Less, M#members{where = maps:remove(Id, Where)}),
    closed_if_done(Conn, Less, Next).

put(Conn, Before, After, #members{all = All, free = Free} = M) ->
    Without = gb_sets:del_element({map_size(Before#member.ids), Conn}, Free),
    M#members{all = All#{Conn := After}, free = offered(Conn, After, Without, M)}.

offered(Conn, #member{state = ready, leaving = false, ids = Ids}, Free, #members{per = Per}) when
    map_size(Ids) < Per
->
    gb_sets:add_element({map_size(Ids), Conn}, Free);
offered(_, _, Free, _) ->
    Free.

forget(Conn, #members{all = All, free = Free} = M) ->
    #{Conn := #member{ids = Ids}} = All,
    M#members{
        all = maps:remove(Conn, All), free = gb_sets:del_element({map_size(Ids), Conn}, Free)
    }.
