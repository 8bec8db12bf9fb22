%% @doc The part of the analysis of buffering that is about HTTP: more requests than a server
%% answers. None may be left without an outcome.
-module(erlmcp_native_buffering_http).

-export([measure/3]).

-record(load, {
    client :: pid(),
    next = 1 :: pos_integer(),
    count :: pos_integer(),
    until :: integer(),
    busy = 0 :: non_neg_integer(),
    pending = #{} :: #{pos_integer() => []},
    answered = 0 :: non_neg_integer(),
    failed = 0 :: non_neg_integer(),
    pending_max = 0 :: non_neg_integer()
}).

-define(TICK_MS, 10).
-define(GIVE_UP_MS, 60000).
-define(BYTES, 120).

%% @doc Sends at most so many requests in so many seconds, and waits for what becomes of them.
-spec measure(erlmcp_native_path:path(), #{port := inet:port_number()}, {pos_integer(),
    pos_integer()}) -> map().
measure(Path, #{port := Port}, {Count, Seconds}) ->
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/mcp", [Port])),
    {ok, Client} = erlmcp_native_http_client:start_link(Url, #{path => Path, retries => 0}),
    {ok, _} = erlmcp_native_http_client:initialize(Client, #{}, 30000),
    Each = max(1, Count * ?TICK_MS div (Seconds * 1000)),
    Now = erlang:monotonic_time(millisecond),
    Load = offer(Each, Now, #load{client = Client, count = Count, until = Now + Seconds * 1000}),
    Done = finish(Load),
    ok = erlmcp_native_http_client:close(Client),
    #load{busy = Busy, answered = Answered, failed = Failed, pending = Pending} = Done,
    #{
        offered => Done#load.next - 1,
        received => Answered,
        refused => Busy + Failed,
        refused_at_once => Busy,
        failed => Failed,
        lost => map_size(Pending),
        waiting_max_bytes => ?BYTES * Done#load.pending_max,
        waiting_avg_bytes => 0,
        high_water_percent => 0,
        samples => Answered
    }.

%% As many as there is time for: a machine that is busy cannot send as many.
offer(_, Due, #load{next = Next, count = Count, until = Until} = Load) when
    Next > Count; Due >= Until
->
    Load;
offer(Each, Due, #load{next = Next, count = Count} = Load) ->
    Last = min(Count, Next + Each - 1),
    Sent = lists:foldl(fun send/2, heard(Load), lists:seq(Next, Last)),
    Waiting = max(Sent#load.pending_max, map_size(Sent#load.pending)),
    Pause = Due + ?TICK_MS - erlang:monotonic_time(millisecond),
    receive
    after max(0, Pause) -> ok
    end,
    offer(Each, Due + ?TICK_MS - min(0, Pause), Sent#load{next = Last + 1, pending_max = Waiting}).

send(Id, #load{client = Client, busy = Busy, pending = Pending} = Load) ->
    Request = io_lib:format(
        "{\"jsonrpc\":\"2.0\",\"id\":~b,\"method\":\"tools/call\","
        "\"params\":{\"name\":\"wait\",\"arguments\":{}}}",
        [Id]
    ),
    case erlmcp_native_http_client:send(Client, Request) of
        ok -> Load#load{pending = Pending#{Id => []}};
        {error, busy} -> Load#load{busy = Busy + 1}
    end.

heard(Load) ->
    receive
        {erlmcp_native, _, Event} -> heard(event(Event, Load))
    after 0 -> Load
    end.

event({frames, Frames}, Load) ->
    lists:foldl(fun(Frame, Acc) -> done(id(Frame), answered, Acc) end, Load, Frames);
event({failed, Id, _}, Load) ->
    done(Id, failed, Load);
event(_, Load) ->
    Load.

id(Frame) ->
    {ok, Message} = erlmcp_native_json:decode(Frame),
    maps:get(<<"id">>, Message, none).

done(Id, How, #load{pending = Pending} = Load) when is_map_key(Id, Pending) ->
    Left = Load#load{pending = maps:remove(Id, Pending)},
    case How of
        answered -> Left#load{answered = Left#load.answered + 1};
        failed -> Left#load{failed = Left#load.failed + 1}
    end;
done(_, _, Load) ->
    Load.

finish(#load{pending = Pending} = Load) when map_size(Pending) =:= 0 ->
    Load;
finish(Load) ->
    receive
        {erlmcp_native, _, Event} -> finish(event(Event, Load))
    after ?GIVE_UP_MS -> Load
    end.
