%% @doc The node's own standard input and output, which one connection at a time can have.
%%
%% `erlmcp_native:connect(stdio, Options)' is a connection whose peer is the program that started
%% this node, usually an MCP client. The node has to be started with `-noinput': otherwise a shell
%% reads the messages first.
%%
%% Besides the options of any connection:
%% <ul>
%% <li>`at_end': `stop' (the default) stops the node with `init:stop/0' when the connection is over,
%% whoever ended it. `keep' leaves the node alone.</li>
%% <li>`stop_ms' (10000): a node that has not stopped by then is halted.</li>
%% <li>`half_close' (`false'): the end of input becomes the event `{down, closed, final}' when
%% everything was taken and as many messages have been sent as there were requests, after 5 s at the
%% latest ({@link erlmcp_native_answered}). With `true' it is the event `eof', and the owner closes
%% the connection when it has answered.</li>
%% </ul>
%% What is queued is sent before the node stops, for `linger_ms' at most, also when it stops for
%% another reason, such as `SIGTERM'.
-module(erlmcp_native_stdio).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, options/1, open/2, closed/0, available/0, protect/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([refusal/0, leaving/0]).

-type refusal() ::
    {start_node_with, string()}
    | taken
    | stdin
    | stdout
    | stderr_is_stdout
    | {posix, atom()}.
%% Why it cannot be had, as `{error, {stdio, refusal()}}'. `start_node_with': other arguments for
%% `erl' are needed. `taken': by another connection, or by one that is over. `stdin', `stdout':
%% closed, or not for reading or writing. `stderr_is_stdout': every print would get among the
%% messages.

-type leaving() :: {IsLeaving :: fun(() -> boolean()), Discard :: fun(() -> ok)}.
%% Whether bytes that were accepted for sending have still to leave, and what becomes of those that
%% cannot.

-record(held, {
    %% None when it is over.
    pid :: pid() | none,
    monitor :: reference(),
    options :: map(),
    leaving :: leaving()
}).

-record(state, {held = none :: #held{} | none}).

-define(DEFAULTS, #{at_end => stop, stop_ms => 10000}).
-define(LOOK_MS, 5).
-define(REPORT_MS, 100).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Checks the options of the connection.
-spec options(term()) -> {ok, erlmcp_native_options:connection()} | {error, erlmcp_native:reason()}.
options(Options) when is_map(Options) ->
    Keys = maps:keys(?DEFAULTS),
    Own = maps:with(Keys, Options),
    case [{Key, Value} || {Key, Value} <- maps:to_list(Options), not valid(Key, Value)] of
        [] -> complete(Own, erlmcp_native_options:connection(maps:without(Keys, Options)));
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
options(Options) ->
    {error, {option, options, Options}}.

%% To the path the end of input is one direction's: there are answers to come.
complete(Own, {ok, #{half_close := HalfClose, linger_ms := Linger} = Connection}) ->
    Given = Own#{half_close => HalfClose, linger_ms => Linger},
    Stdio = maps:merge(?DEFAULTS, Given),
    {ok, Connection#{half_close := true, stdio => Stdio}};
complete(_, {error, _} = Error) ->
    Error.

valid(at_end, V) -> V =:= stop orelse V =:= keep;
valid(stop_ms, V) -> is_integer(V) andalso V > 0;
%% There is nobody to keep secrets from.
valid(tls, V) -> V =:= false;
valid(_, _) -> true.

%% @doc Opens it for the calling process, which is to be the owner of the socket. `Open' makes the
%% socket and says how to find out whether bytes are still leaving.
-spec open(
    erlmcp_native_options:connection(),
    fun(() -> {ok, Socket, leaving()} | {error, refusal() | erlmcp_native:reason()})
) ->
    {ok, Socket} | {error, erlmcp_native:reason()}.
open(#{stdio := Own}, Open) ->
    case gen_server:call(?MODULE, {hold, self(), Own}) of
        ok -> opened(Open());
        {error, Refusal} -> {error, {stdio, Refusal}}
    end.

opened({ok, Socket, Leaving}) ->
    ok = gen_server:call(?MODULE, {leaving, Leaving}),
    {ok, Socket};
opened({error, Why}) ->
    ok = gen_server:call(?MODULE, release),
    {error, reason(Why)}.

reason({Kind, _} = Refusal) when Kind =:= start_node_with; Kind =:= posix -> {stdio, Refusal};
reason(Refusal) when Refusal =:= taken; Refusal =:= stdin; Refusal =:= stdout -> {stdio, Refusal};
reason(stderr_is_stdout) -> {stdio, stderr_is_stdout};
reason(Reason) -> Reason.

%% @doc To be told by the process that opened it. One that ends need not say so.
-spec closed() -> ok.
closed() ->
    gen_server:cast(?MODULE, {closed, self()}).

%% @doc Whether the node was started so that nobody else reads its standard input. Of the flags
%% that choose who does, the last counts.
-spec available() -> ok | {error, refusal()}.
available() ->
    case lists:foldl(fun reader/2, shell, init:get_arguments()) of
        nobody -> ok;
        shell -> {error, {start_node_with, "-noinput"}}
    end.

reader({noinput, []}, _) -> nobody;
reader({nouser, []}, _) -> nobody;
reader({user, ["erlmcp_native_user"]}, _) -> nobody;
reader({Flag, _}, _) when Flag =:= noshell; Flag =:= oldshell; Flag =:= user -> shell;
reader(_, Reader) -> Reader.

%% @doc Keeps what Erlang code prints away from standard output, as far as the path can.
-spec protect(erlmcp_native_path:path()) -> ok | {error, refusal()}.
protect(nif) ->
    erlmcp_native_nif_path:claim_stdio();
protect(_) ->
    erlmcp_native_user:take_over().

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    case application:get_env(erlmcp_native, stdio, false) of
        true -> reserve();
        false -> ok
    end,
    {ok, #state{}}.

%% The applications that start after this one may print as they like.
reserve() ->
    case available() of
        ok -> reserved(protect(erlmcp_native_path:default()));
        {error, _} = Error -> reserved(Error)
    end.

reserved(ok) -> ok;
reserved({error, Why}) -> ?LOG_ERROR("erlmcp_native: no standard input and output: ~0tp", [Why]).

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({hold, Pid, Own}, _, #state{held = none} = State) ->
    case available() of
        ok ->
            Held = #held{
                pid = Pid,
                monitor = monitor(process, Pid),
                options = Own,
                leaving = {fun() -> false end, fun() -> ok end}
            },
            {reply, ok, State#state{held = Held}};
        {error, _} = Error ->
            {reply, Error, State}
    end;
handle_call({hold, _, _}, _, State) ->
    {reply, {error, taken}, State};
handle_call({leaving, Leaving}, _, #state{held = Held} = State) ->
    {reply, ok, State#state{held = Held#held{leaving = Leaving}}};
handle_call(release, _, #state{held = #held{monitor = Monitor}} = State) ->
    true = demonitor(Monitor, [flush]),
    {reply, ok, State#state{held = none}};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({closed, Pid}, #state{held = #held{pid = Pid}} = State) ->
    {noreply, ended(State)};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', Monitor, process, _, _}, #state{held = #held{monitor = Monitor}} = State) ->
    {noreply, ended(State)};
handle_info(_, State) ->
    {noreply, State}.

%% The processes of the connection have ended before: the supervisor ends its children in reverse.
%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{held = none}) ->
    ok;
terminate(_, #state{held = #held{options = #{linger_ms := Linger}, leaving = Leaving}}) ->
    flush(Leaving, now_ms() + Linger).

ended(#state{held = #held{monitor = Monitor, options = Own} = Held} = State) ->
    true = demonitor(Monitor, [flush]),
    case Own of
        #{at_end := stop, stop_ms := StopMs} -> stop_node(StopMs);
        #{at_end := keep} -> ok
    end,
    State#state{held = Held#held{pid = none}}.

%% What has still to leave is waited for when this process is stopped. One of its own waits for the
%% node: the supervisors stop this one.
stop_node(StopMs) ->
    ?LOG_INFO("erlmcp_native: standard input and output have ended, stopping the node"),
    _ = spawn(fun() ->
        %% What a crash of the owner has to say is on its way to the log.
        receive
        after ?REPORT_MS -> ok
        end,
        ok = init:stop(),
        receive
        after StopMs -> erlang:halt(0, [{flush, false}])
        end
    end),
    ok.

flush({IsLeaving, Discard} = Leaving, Deadline) ->
    case IsLeaving() andalso now_ms() < Deadline of
        true ->
            receive
            after ?LOOK_MS -> flush(Leaving, Deadline)
            end;
        false ->
            Discard()
    end.

now_ms() -> erlang:monotonic_time(millisecond).
