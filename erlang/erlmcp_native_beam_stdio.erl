%% @doc Standard input and output in pure Erlang: a process between the two descriptors and the
%% connection that reads and writes them.
%%
%% A port for a descriptor sends its owner whatever comes, and there is no way to ask it to wait but
%% to close it, which leaves the descriptor as it is. So it is closed while much waits here, and
%% opened again when that was taken. What is written goes to the port from the connection's own
%% process; the port never suspends a sender, its queue is looked at instead.
-module(erlmcp_native_beam_stdio).

-include_lib("kernel/include/file.hrl").

-export([open/1, leaving/1, arm/1, send/4, queued/1, give/2, close/1]).
-export([keys/1, waiting/1, handle_info/2]).

-export_type([device/0]).

-record(device, {
    pid :: pid(),
    tag :: reference(),
    out :: erlmcp_native_beam_out:out()
}).

-opaque device() :: #device{}.

-record(state, {
    owner :: pid(),
    monitor :: reference(),
    tag :: reference(),
    high_water :: pos_integer(),
    in :: port() | paused | ended,
    out :: port(),
    queue :: erlmcp_native_beam_out:out(),
    %% What has come and was not asked for.
    arrivals = queue:new() :: queue:queue(erlmcp_native_beam_stream:arrival()),
    bytes = 0 :: non_neg_integer(),
    asked = false :: boolean()
}).

-define(FIRST_LOOK_MS, 5).
-define(LAST_LOOK_MS, 1000).

%% @doc Takes the descriptors for the calling process. Nothing is read before it asks.
-spec open(erlmcp_native_options:connection()) ->
    {ok, device()} | {error, erlmcp_native_stdio:refusal()}.
open(Options) ->
    case is_same_stream() of
        true -> {error, stderr_is_stdout};
        false -> start(Options)
    end.

%% Where the system tells.
is_same_stream() ->
    Identify = fun(Fd) ->
        case file:read_file_info(["/proc/self/fd/", integer_to_list(Fd)], [raw]) of
            {ok, #file_info{type = Type, major_device = Device, inode = Inode}} when
                Type =/= device
            ->
                {Device, Inode};
            _ ->
                {unknown, Fd}
        end
    end,
    Identify(1) =:= Identify(2).

start(Options) ->
    Owner = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> init(Owner, Tag, Options) end),
    receive
        {Tag, Out} ->
            true = demonitor(Monitor, [flush]),
            {ok, #device{pid = Pid, tag = Tag, out = Out}};
        {'DOWN', Monitor, process, _, _} ->
            {error, stdout}
    end.

%% @doc How the node sees the last bytes out.
-spec leaving(device()) -> erlmcp_native_stdio:leaving().
leaving(#device{out = Out}) ->
    Pending = fun() -> erlmcp_native_beam_out:pending(Out) end,
    {fun() -> Pending() > 0 end, fun() -> give_up(Pending()) end}.

%% A write that waits for a reader holds a thread, and the VM waits for its threads at its end.
give_up(Pending) ->
    case {Pending, init:get_status()} of
        {0, _} -> ok;
        {_, {stopping, _}} -> erlang:halt(0, [{flush, false}]);
        _ -> ok
    end.

%% @doc Asks for one chunk, or the end, as a message.
-spec arm(device()) -> ok.
arm(#device{pid = Pid}) ->
    Pid ! arm,
    ok.

%% @doc As {@link erlmcp_native_beam_stream:send/4}.
-spec send(device(), iodata(), pos_integer(), erlmcp_native_beam_out:sending()) ->
    {ok | {error, busy | closed}, device()}.
send(#device{out = Out} = Device, Wire, Size, Sending) ->
    {Result, Next} = erlmcp_native_beam_out:send(Out, Wire, Size, Sending),
    {Result, Device#device{out = Next}}.

%% @doc Bytes that wait to be written.
-spec queued(device()) -> non_neg_integer().
queued(#device{out = Out}) ->
    erlmcp_native_beam_out:pending(Out).

%% @doc Makes another process the owner. Returns what has come for the old one.
-spec give(device(), pid()) -> [erlmcp_native_beam_stream:arrival()].
give(#device{pid = Pid, tag = Tag}, NewOwner) ->
    Ref = monitor(process, Pid),
    Pid ! {give, self(), NewOwner, Ref},
    receive
        {Ref, given} -> demonitor(Ref, [flush]);
        {'DOWN', Ref, process, _, _} -> true
    end,
    mailbox(Tag).

mailbox(Tag) ->
    receive
        {Tag, Arrival} -> [Arrival | mailbox(Tag)]
    after 0 -> []
    end.

%% @doc Writes what is queued, then lets go.
-spec close(device()) -> ok.
close(#device{pid = Pid, tag = Tag}) ->
    Pid ! {close, self()},
    _ = mailbox(Tag),
    ok.

%% @doc What the messages that are meant for it can be told by.
-spec keys(device()) -> [reference()].
keys(#device{tag = Tag}) -> [Tag].

%% @doc What waits in the owner's mailbox.
-spec waiting(device()) -> erlmcp_native_beam_stream:arrival() | none.
waiting(#device{tag = Tag}) ->
    receive
        {Tag, Arrival} -> Arrival
    after 0 -> none
    end.

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), device()) -> erlmcp_native_beam_stream:arrival() | unknown.
handle_info({Tag, Arrival}, #device{tag = Tag}) -> Arrival;
handle_info(_, _) -> unknown.

%% ---- the process

init(Owner, Tag, #{high_water_bytes := HighWater}) ->
    process_flag(trap_exit, true),
    Out = open_port({fd, 1, 1}, [out, binary | erlmcp_native_beam_out:port_options()]),
    Queue = erlmcp_native_beam_out:port(Out),
    Owner ! {Tag, Queue},
    loop(#state{
        owner = Owner,
        monitor = monitor(process, Owner),
        tag = Tag,
        high_water = HighWater,
        in = paused,
        out = Out,
        queue = Queue
    }).

loop(#state{in = In, out = Out, owner = Owner, monitor = Monitor} = S) ->
    receive
        arm ->
            loop(resume(pass(S#state{asked = true})));
        {In, {data, Data}} ->
            loop(pause(pass(arrived({data, Data}, byte_size(Data), S))));
        {In, eof} ->
            loop(ended(closed, S));
        {'EXIT', In, Reason} ->
            loop(ended(reason(Reason), S));
        {'EXIT', Out, Reason} ->
            loop(ended(reason(Reason), S));
        {give, Owner, NewOwner, Ref} ->
            true = demonitor(Monitor, [flush]),
            Owner ! {Ref, given},
            Given = monitor(process, NewOwner),
            loop(S#state{owner = NewOwner, monitor = Given, asked = false});
        {close, Owner} ->
            finish(S);
        {'DOWN', Monitor, process, _, _} ->
            finish(S);
        %% Of a port that was closed while more came from it.
        {Port, {data, Data}} when is_port(Port) ->
            loop(pass(arrived({data, Data}, byte_size(Data), S)));
        {Port, eof} when is_port(Port) ->
            loop(ended(closed, S));
        _ ->
            loop(S)
    end.

pass(#state{asked = true, arrivals = Arrivals0, bytes = Bytes} = S) ->
    case queue:out(Arrivals0) of
        {{value, Arrival}, Arrivals} ->
            S#state.owner ! {S#state.tag, Arrival},
            S#state{asked = false, arrivals = Arrivals, bytes = Bytes - size_of(Arrival)};
        {empty, _} ->
            S
    end;
pass(S) ->
    S.

arrived(Arrival, Size, #state{arrivals = Arrivals, bytes = Bytes} = S) ->
    S#state{arrivals = queue:in(Arrival, Arrivals), bytes = Bytes + Size}.

ended(Reason, #state{in = In} = S) ->
    ok = close_input(In),
    pass(arrived({lost, Reason}, 0, S#state{in = ended})).

%% It may have been closed by an error.
close_input(In) when is_port(In) ->
    try
        true = port_close(In),
        ok
    catch
        error:badarg -> ok
    end;
close_input(_) ->
    ok.

pause(#state{bytes = Bytes, high_water = HighWater, in = In} = S) when
    Bytes >= HighWater, is_port(In)
->
    true = port_close(In),
    S#state{in = paused};
pause(S) ->
    S.

resume(#state{in = paused, bytes = Bytes, high_water = HighWater} = S) when Bytes < HighWater ->
    S#state{in = open_port({fd, 0, 0}, [in, binary, eof])};
resume(S) ->
    S.

size_of({data, Data}) -> byte_size(Data);
size_of({lost, _}) -> 0.

%% Somebody may still read what is queued, however late. The end of the node does not wait for it.
finish(#state{in = In} = S) ->
    ok = close_input(In),
    flush(S, ?FIRST_LOOK_MS).

flush(#state{out = Out, queue = Queue} = S, WaitMs) ->
    case erlmcp_native_beam_out:pending(Queue) of
        0 ->
            ok;
        _ ->
            receive
                {'EXIT', Out, _} -> ok
            after WaitMs -> flush(S, min(2 * WaitMs, ?LAST_LOOK_MS))
            end
    end.

reason(normal) -> closed;
reason(epipe) -> closed;
reason(Reason) when is_atom(Reason) -> {posix, Reason};
reason(_) -> closed.
