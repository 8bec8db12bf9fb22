%% @doc The port program, as those use it who have something in it.
%%
%% Every connection, listener, exchange or child that lives in the program has an id, and in
%% {@link erlmcp_native_port_router} a route: the process that its packets go to, as
%% `{erlmcp_native_io, Id, Packet}', the whole packet with its operation and id. What is not a
%% packet:
%%
%% <ul>
%% <li>`{erlmcp_native_io, Id, writable}': a sender was refused and there is room again.</li>
%% <li>`{erlmcp_native_io, Id, {down, port_program}}': the program is gone, and with it whatever
%% had this id.</li>
%% </ul>
%%
%% Processes write to the program themselves, with {@link command/4}. The process that routes is
%% registered with this module's name; should it be killed, those with a route find out by their
%% monitor of it.
-module(erlmcp_native_port).

-include("erlmcp_native_port.hrl").

-export([available/0, os_pid/0, info/0]).
-export([open/1, give/2, attach/2, forget/1, accuse/1, command/4, command/3]).
-export([ask/2, log_level/1, metrics/0]).

-export_type([id/0, handle/0]).

-type id() :: non_neg_integer().
%% Even, where this side has made what it names, odd, where the program has.

-type handle() :: port().
%% What packets are written to.

-define(CALL_MS, 10000).

%% @doc Whether there is a program to start.
-spec available() -> ok | {error, no_program}.
available() ->
    erlmcp_native_port_program:available().

%% @doc The operating system's number of the program that runs.
-spec os_pid() -> {ok, pos_integer()} | {error, erlmcp_native:reason()}.
os_pid() ->
    call(os_pid).

%% @doc How many ids have a route, and how often the program was started.
-spec info() -> #{routes := non_neg_integer(), starts := non_neg_integer()}.
info() ->
    gen_server:call(?MODULE, info).

%% @doc An id, with a route to the caller, and what to write to. Starts the program if it does not
%% run.
-spec open(erlmcp_native_port_sending:sending() | none) ->
    {ok, id(), handle()} | {error, erlmcp_native:reason()}.
open(Sending) ->
    call({open, self(), Sending}).

%% @doc Has a route lead to another process. Packets for it are held until it calls
%% {@link attach/2}; what came before is in the caller's mailbox when this returns.
-spec give(id(), pid()) -> ok | {error, erlmcp_native:reason()}.
give(Id, Pid) ->
    call({give, Id, Pid}).

%% @doc Called by the new owner, and by that of what was born; the packets that were held are in its
%% mailbox when this returns.
-spec attach(id(), erlmcp_native_port_sending:sending() | none) ->
    ok | {error, erlmcp_native:reason()}.
attach(Id, Sending) ->
    call({attach, Id, Sending}).

%% @doc Says that the program has sent more than it was allowed to: it is not to be trusted.
-spec accuse(id()) -> ok.
accuse(Id) ->
    gen_server:cast(?MODULE, {accuse, Id}).

%% @doc Ends a route; what the id names is closed in the program.
-spec forget(id()) -> ok.
forget(Id) ->
    gen_server:cast(?MODULE, {forget, Id}).

%% @doc Asks the program something that it answers with one packet.
-spec ask(byte(), iodata()) -> {ok, binary()} | {error, erlmcp_native:reason()}.
ask(Op, Body) ->
    case open(none) of
        {ok, Id, Handle} ->
            _ = command(Handle, Op, Id, Body),
            Answer =
                receive
                    {erlmcp_native_io, Id, <<_, _:64, Rest/binary>>} -> {ok, Rest};
                    {erlmcp_native_io, Id, {down, Reason}} -> {error, Reason}
                after ?CALL_MS -> {error, timeout}
                end,
            ok = forget(Id),
            Answer;
        {error, _} = Error ->
            Error
    end.

%% @doc The counters of the program; none while it does not run.
-spec metrics() -> [{atom(), atom(), atom(), atom(), Help :: binary(), Value :: term()}].
metrics() ->
    case os_pid() of
        {ok, _} -> counters(ask(?TO_METRICS, []));
        {error, _} -> []
    end.

counters({ok, Term}) ->
    [
        {atom(Name), atom(Kind), atom(Group), atom(Unit), Help, each(Value)}
     || {Name, Kind, Group, Unit, Help, Value} <- erlmcp_native_port_term:read(Term)
    ];
counters({error, _}) ->
    [].

each([_ | _] = Values) -> [{atom(Transport), Value} || {Transport, Value} <- Values];
each(Value) -> Value.

%% The program makes no atoms; its names are few, and its own.
atom(Name) -> binary_to_atom(Name).

%% @doc Sets the level below which the program makes no events.
-spec log_level(0..5) -> ok.
log_level(Level) ->
    gen_server:cast(?MODULE, {log_level, Level}).

%% @equiv command(Handle, Op, Id, [])
-spec command(handle(), byte(), id()) -> ok | {error, closed}.
command(Handle, Op, Id) ->
    command(Handle, Op, Id, []).

%% @doc Writes a packet, from any process, without waiting.
-spec command(handle(), byte(), id(), iodata()) -> ok | {error, closed}.
command(Handle, Op, Id, Body) ->
    try erlang:port_command(Handle, [<<Op, Id:64>> | Body]) of
        true -> ok
    catch
        error:badarg -> {error, closed}
    end.

call(Request) ->
    try
        gen_server:call(?MODULE, Request, ?CALL_MS)
    catch
        exit:{noproc, _} -> {error, {path_unavailable, port, not_started}};
        exit:{timeout, _} -> {error, timeout};
        exit:{_, _} -> {error, port_program}
    end.
