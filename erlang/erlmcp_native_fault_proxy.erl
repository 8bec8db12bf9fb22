%% @doc A TCP proxy between a client and a server that does what networks and servers do when they
%% fail, on demand and while it runs: for tests, analyses and rehearsals.
%%
%% ```
%% {ok, Proxy} = erlmcp_native_fault_proxy:start_link(#{port => ServerPort}),
%% {ok, Conn} = erlmcp_native:connect(erlmcp_native_fault_proxy:endpoint(Proxy), #{...}),
%% ok = erlmcp_native_fault_proxy:set(Proxy, #{mode => refuse}),
%% {ok, 1} = erlmcp_native_fault_proxy:cut(Proxy, reset),
%% ok = erlmcp_native_fault_proxy:set(Proxy, #{mode => pass}).
%% '''
%%
%% `mode' says what becomes of connections that are made from now on:
%%
%% <ul>
%% <li>`pass': they are passed on to the server.</li>
%% <li>`refuse': nobody listens. The port is kept, and listened on again afterwards.</li>
%% <li>`timeout': the attempt to connect is not answered.</li>
%% <li>`reset': accepted, then broken off.</li>
%% <li>`shutdown': accepted, then closed in order.</li>
%% <li>`silent': accepted and passed on to nobody; nothing is ever said.</li>
%% <li>`{answer, Bytes}': accepted and sent these bytes, whatever the protocol.</li>
%% </ul>
%%
%% The other settings hold for all connections that are passed on, those that stand included.
%% `up' (towards the server) and `down' are `pass', `stall' (nothing is read, the sender feels
%% back-pressure) or `drop' (read and thrown away); what is thrown away is gone, and the stream
%% broken. `delay_ms' and `jitter_ms' delay each chunk without changing the order;
%% `bytes_per_s' bounds each direction of each connection. {@link cut/2} ends the connections that
%% stand.
-module(erlmcp_native_fault_proxy).

-behaviour(gen_server).

-export([start/1, start/2, start_link/1, start_link/2, stop/1]).
-export([endpoint/1, set/2, clear/1, cut/2, info/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0, faults/0, mode/0, flow/0]).

-type mode() :: pass | refuse | timeout | reset | shutdown | silent | {answer, iodata()}.

-type flow() :: pass | stall | drop.

-type faults() :: #{
    mode => mode(),
    up => flow(),
    down => flow(),
    delay_ms => non_neg_integer(),
    jitter_ms => non_neg_integer(),
    bytes_per_s => pos_integer() | infinity
}.

-type options() :: #{ip => inet:ip_address(), port => inet:port_number(), faults => faults()}.
%% Where to listen, 127.0.0.1 and a free port unless said, and what to begin with.

-record(state, {
    target :: erlmcp_native:endpoint(),
    ip :: inet:ip_address(),
    port :: inet:port_number(),
    %% Bound for as long as the proxy lives, so that the port stays its own while it refuses.
    reserve :: socket:socket() | none,
    listen = none :: gen_tcp:socket() | none,
    acceptor = none :: pid() | none,
    %% What fills the backlog in the mode `timeout'.
    fillers = [] :: [gen_tcp:socket()],
    faults :: faults(),
    settings :: erlmcp_native_fault_pump:settings(),
    relays = #{} :: #{pid() => reference()},
    counters :: counters:counters_ref(),
    accepted = 0 :: non_neg_integer()
}).

-define(CALL_TIMEOUT_MS, 30000).
-define(BACKLOG, 1024).
%% The first has room in any case, however busy the machine is.
-define(FIRST_FILL_MS, 10000).
-define(FILL_TIMEOUT_MS, 100).
-define(MOST_FILLERS, 16).

%% @equiv start(Target, #{})
-spec start(map()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start(Target) -> start(Target, #{}).

%% @doc Starts a proxy in front of a server, `#{host, port}', `#{port}', `#{path}' or `#{abstract}'.
-spec start(map(), options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start(Target, Options) -> started(fun gen_server:start/3, Target, Options).

%% @equiv start_link(Target, #{})
-spec start_link(map()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Target) -> start_link(Target, #{}).

%% @doc The same, linked to the caller.
-spec start_link(map(), options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Target, Options) -> started(fun gen_server:start_link/3, Target, Options).

%% @doc Ends the proxy and with it all connections.
-spec stop(pid()) -> ok.
stop(Proxy) -> gen_server:stop(Proxy).

%% @doc What to connect to instead of the server.
-spec endpoint(pid()) -> #{host := inet:ip_address(), port := inet:port_number()}.
endpoint(Proxy) -> gen_server:call(Proxy, endpoint, ?CALL_TIMEOUT_MS).

%% @doc Changes settings, all others stay. They hold when this returns.
-spec set(pid(), faults()) -> ok | {error, erlmcp_native:reason()}.
set(Proxy, Faults) ->
    case check(Faults, #{}) of
        {ok, Checked} -> gen_server:call(Proxy, {set, Checked}, ?CALL_TIMEOUT_MS);
        {error, _} = Error -> Error
    end.

%% @doc No more faults.
-spec clear(pid()) -> ok | {error, erlmcp_native:reason()}.
clear(Proxy) -> set(Proxy, defaults()).

%% @doc Ends the connections that stand, towards both sides: broken off (`reset'), or in order
%% (`shutdown'). How many they were.
-spec cut(pid(), reset | shutdown) -> {ok, non_neg_integer()}.
cut(Proxy, How) when How =:= reset; How =:= shutdown ->
    gen_server:call(Proxy, {cut, How}, ?CALL_TIMEOUT_MS).

%% @doc Settings and counts: `accepted' connections so far, `connections' that stand, bytes
%% passed on (`up', towards the server, and `down') and thrown away (`dropped').
-spec info(pid()) ->
    #{
        faults := faults(),
        accepted := non_neg_integer(),
        connections := non_neg_integer(),
        bytes_up := non_neg_integer(),
        bytes_down := non_neg_integer(),
        bytes_dropped := non_neg_integer()
    }.
info(Proxy) -> gen_server:call(Proxy, info, ?CALL_TIMEOUT_MS).

started(Start, Target, Options) ->
    case checked(Target, Options) of
        {ok, Checked} ->
            case Start(?MODULE, Checked, []) of
                {ok, _} = Started -> Started;
                {error, {shutdown, Reason}} -> {error, Reason}
            end;
        {error, _} = Error ->
            Error
    end.

checked(Target, Options) when is_map(Options) ->
    Own = maps:merge(#{ip => {127, 0, 0, 1}, port => 0, faults => #{}}, Options),
    case maps:keys(Own) -- [ip, port, faults] of
        [] -> addresses(Target, Own);
        [Key | _] -> {error, {option, Key, maps:get(Key, Own)}}
    end;
checked(_, Options) ->
    {error, {option, options, Options}}.

addresses(Target, #{ip := Ip, port := Port, faults := Given} = Own) ->
    Results = [
        erlmcp_native_options:endpoint(Target),
        erlmcp_native_options:endpoint(#{host => Ip, port => Port}),
        check(Given, defaults())
    ],
    case Results of
        [{ok, Checked}, {ok, #{host := At}}, {ok, Faults}] when is_tuple(At) ->
            {ok, Own#{target => Checked, ip := At, faults := Faults}};
        [{ok, _}, {ok, _}, {ok, _}] ->
            {error, {option, ip, Ip}};
        _ ->
            hd([Error || {error, _} = Error <- Results])
    end.

defaults() ->
    #{
        mode => pass,
        up => pass,
        down => pass,
        delay_ms => 0,
        jitter_ms => 0,
        bytes_per_s => infinity
    }.

check(Given, Defaults) when is_map(Given) ->
    case [KV || {Key, Value} = KV <- maps:to_list(Given), not valid(Key, Value)] of
        [] -> {ok, maps:merge(Defaults, Given)};
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
check(Given, _) ->
    {error, {option, faults, Given}}.

valid(mode, {answer, Bytes}) -> is_binary(Bytes) orelse is_list(Bytes);
valid(mode, V) -> lists:member(V, [pass, refuse, timeout, reset, shutdown, silent]);
valid(up, V) -> lists:member(V, [pass, stall, drop]);
valid(down, V) -> valid(up, V);
valid(delay_ms, V) -> is_integer(V) andalso V >= 0;
valid(jitter_ms, V) -> is_integer(V) andalso V >= 0;
valid(bytes_per_s, V) -> V =:= infinity orelse (is_integer(V) andalso V > 0);
valid(_, _) -> false.

%% @private
-spec init(map()) -> {ok, #state{}} | {stop, {shutdown, erlmcp_native:reason()}}.
init(#{target := Target, ip := Ip, port := Wanted, faults := #{mode := Mode} = Faults}) ->
    _ = process_flag(trap_exit, true),
    case reserve(Ip, Wanted) of
        {ok, Port, Reserve} ->
            State = #state{
                target = Target,
                ip = Ip,
                port = Port,
                reserve = Reserve,
                faults = Faults,
                settings = erlmcp_native_fault_pump:settings(Faults),
                counters = counters:new(3, [write_concurrency])
            },
            case mode(Mode, State) of
                {ok, Ready} -> {ok, Ready};
                {error, Reason, _} -> {stop, {shutdown, Reason}}
            end;
        {error, Reason} ->
            {stop, {shutdown, erlmcp_native_beam_inet:reason(Reason)}}
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(endpoint, _, #state{ip = Ip, port = Port} = State) ->
    {reply, #{host => Ip, port => Port}, State};
handle_call({set, Changes}, _, #state{faults = Old, relays = Relays} = State) ->
    Settings = State#state.settings,
    Faults = maps:merge(Old, Changes),
    ok = erlmcp_native_fault_pump:update(Faults, Settings),
    ok = erlmcp_native_fault_relay:changed(maps:keys(Relays)),
    case mode(maps:get(mode, Faults), State#state{faults = Faults}) of
        {ok, Next} -> {reply, ok, Next};
        {error, Reason, Next} -> {reply, {error, Reason}, Next}
    end;
handle_call({cut, How}, _, #state{relays = Relays} = State) ->
    Pids = maps:keys(Relays),
    ok = erlmcp_native_fault_relay:cut(Pids, How),
    {reply, {ok, length(Pids)}, State};
handle_call(info, _, #state{counters = Counters, faults = Faults} = State) ->
    Info = #{
        faults => Faults,
        accepted => State#state.accepted,
        connections => map_size(State#state.relays),
        bytes_up => counters:get(Counters, 1),
        bytes_down => counters:get(Counters, 2),
        bytes_dropped => counters:get(Counters, 3)
    },
    {reply, Info, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({accepted, Acceptor, Socket}, #state{acceptor = Acceptor} = State) ->
    {noreply, accepted(Socket, State#state{accepted = State#state.accepted + 1})};
handle_info({accepted, _, Socket}, State) ->
    ok = erlmcp_native_beam_inet:abort(Socket),
    {noreply, State};
handle_info({'DOWN', _, process, Pid, _}, #state{relays = Relays} = State) ->
    {noreply, State#state{relays = maps:remove(Pid, Relays)}};
handle_info({'EXIT', Acceptor, Reason}, #state{acceptor = Acceptor} = State) ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{relays = Relays, reserve = Reserve} = State) ->
    _ = deaf(State),
    ok = erlmcp_native_fault_relay:cut(maps:keys(Relays), reset),
    release(Reserve).

%% Until the relay has both sockets it is told nothing else: what it is told it reads in order.
accepted(Socket, #state{faults = #{mode := Mode}, relays = Relays} = State) ->
    #state{target = Target, settings = Settings, counters = Counters} = State,
    {Pid, Monitor} = erlmcp_native_fault_relay:start(Target, Mode, Settings, Counters),
    case gen_tcp:controlling_process(Socket, Pid) of
        ok -> ok = erlmcp_native_fault_relay:accepted(Pid, Socket);
        {error, _} -> exit(Pid, kill)
    end,
    State#state{relays = Relays#{Pid => Monitor}}.

%% Listens as the mode wants it.
mode(refuse, State) ->
    {ok, deaf(State)};
mode(timeout, #state{fillers = [_ | _]} = State) ->
    {ok, State};
mode(timeout, State) ->
    case listen(0, deaf(State)) of
        {ok, Listening} -> {ok, fill(?MOST_FILLERS, ?FIRST_FILL_MS, Listening)};
        {error, _, _} = Error -> Error
    end;
mode(_, #state{acceptor = Acceptor} = State) when is_pid(Acceptor) ->
    {ok, State};
mode(_, State) ->
    case listen(?BACKLOG, deaf(State)) of
        {ok, #state{listen = Listen} = Listening} ->
            Self = self(),
            Acceptor = spawn_link(fun() -> accept(Self, Listen) end),
            {ok, Listening#state{acceptor = Acceptor}};
        {error, _, _} = Error ->
            Error
    end.

listen(Backlog, #state{ip = Ip, port = Port, reserve = Reserve} = State) ->
    Options = [
        binary,
        {ip, Ip},
        {backlog, Backlog},
        {reuseaddr, true},
        {packet, raw},
        {active, false},
        {nodelay, true},
        {exit_on_close, false},
        {show_econnreset, true}
    ],
    case gen_tcp:listen(Port, Options) of
        {ok, Listen} ->
            {ok, State#state{listen = Listen}};
        {error, eaddrinuse} when Reserve =/= none ->
            %% Not every system lets two sockets have one address, even if one does not listen.
            ok = release(Reserve),
            listen(Backlog, State#state{reserve = none});
        {error, Reason} ->
            {error, erlmcp_native_beam_inet:reason(Reason), State}
    end.

deaf(#state{listen = none} = State) ->
    State;
deaf(#state{listen = Listen, acceptor = Acceptor, fillers = Fillers} = State) ->
    ok = gen_tcp:close(Listen),
    ok = ended(Acceptor),
    lists:foreach(fun gen_tcp:close/1, Fillers),
    State#state{listen = none, acceptor = none, fillers = []}.

%% It ends with the socket. Killed it could leave a connection behind that nobody serves.
ended(none) ->
    ok;
ended(Acceptor) ->
    receive
        {'EXIT', Acceptor, _} -> ok
    end.

accept(Proxy, Listen) ->
    case gen_tcp:accept(Listen) of
        {ok, Socket} ->
            _ = gen_tcp:controlling_process(Socket, Proxy),
            Proxy ! {accepted, self(), Socket},
            accept(Proxy, Listen);
        {error, Reason} when Reason =:= emfile; Reason =:= enfile; Reason =:= econnaborted ->
            accept(Proxy, Listen);
        {error, _} ->
            ok
    end.

%% Connects until the backlog is full and the next attempt is not answered.
fill(0, _, State) ->
    State;
fill(Left, Timeout, #state{ip = Ip, port = Port, fillers = Fillers} = State) ->
    case gen_tcp:connect(Ip, Port, [{active, false}], Timeout) of
        {ok, Socket} ->
            fill(Left - 1, ?FILL_TIMEOUT_MS, State#state{fillers = [Socket | Fillers]});
        {error, _} ->
            State
    end.

reserve(Ip, Port) ->
    {Family, Address} =
        case tuple_size(Ip) of
            4 -> {inet, #{family => inet, addr => Ip, port => Port}};
            8 -> {inet6, #{family => inet6, addr => Ip, port => Port}}
        end,
    case socket:open(Family, stream, tcp) of
        {ok, Socket} -> bound(Socket, Address);
        {error, _} = Error -> Error
    end.

bound(Socket, Address) ->
    ok = socket:setopt(Socket, {socket, reuseaddr}, true),
    case socket:bind(Socket, Address) of
        ok ->
            {ok, #{port := Port}} = socket:sockname(Socket),
            {ok, Port, Socket};
        {error, _} = Error ->
            ok = release(Socket),
            Error
    end.

release(none) ->
    ok;
release(Socket) ->
    _ = socket:close(Socket),
    ok.
