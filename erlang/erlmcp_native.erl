%% @doc Transports for the Model Context Protocol: TCP, TLS and Unix-domain sockets that carry
%% framed messages, natively or in pure Erlang.
%%
%% ```
%% {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{active => true}),
%% {ok, #{sockname := {Ip, Port}}} = erlmcp_native:info(Listener),
%% {ok, Conn} = erlmcp_native:connect(#{host => Ip, port => Port}, #{active => true}),
%% receive {erlmcp_native, Conn, connected} -> ok end,
%% ok = erlmcp_native:send(Conn, <<"{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":1}">>),
%% receive {erlmcp_native, Served, {frames, [Ping]}} when Served =/= Conn -> Ping end.
%% '''
%%
%% A connection is a process, supervised by this application. It belongs to an owner, the caller
%% unless the option `owner' names another, and ends with it. What happens reaches the owner as
%% `{erlmcp_native, Conn, event()}'.
-module(erlmcp_native).

-export([connect/1, connect/2, await_connected/2, child_spec/1, start_link/2]).
-export([listen/1, listen/2]).
-export([send/2, send/3, sender/1, take/2, take/3, recv/2, set_active/2]).
-export([controlling_process/2, info/1, close/1, overview/0, failure/1]).

-export_type([endpoint/0, address/0, reason/0, tls_reason/0, failure/0, socket_info/0]).
-export_type([event/0, listener_event/0, connect_options/0, listen_options/0, metric/0]).
-export_type([send_options/0]).

-type endpoint() ::
    #{host := inet:ip_address() | binary(), port := inet:port_number()}
    | #{path := binary()}
    | #{abstract := binary()}
    | erlmcp_native_child_options:child()
    | stdio.
%% As checked by {@link erlmcp_native_options:endpoint/1}, which also takes a host as string or
%% atom, and a port alone for 127.0.0.1. A child process is not listened on.

-type address() ::
    {inet:ip_address(), inet:port_number()} | {path, binary()} | {abstract, binary()} | unnamed.

-type tls_reason() ::
    unknown_ca
    | bad_certificate
    | certificate_expired
    | certificate_revoked
    | hostname_mismatch
    | certificate_required
    | protocol_version
    | handshake_failure
    | bad_file
    | timeout.
%% `unknown_ca' includes self-signed certificates; `bad_file' is a certificate, key or CA file
%% that cannot be read or used; `timeout' is that of the handshake.

-type reason() ::
    closed
    | reset
    | refused
    | unreachable
    | timeout
    | nxdomain
    | address_in_use
    | frame_too_large
    | embedded_newline
    | empty_message
    | busy
    | not_connected
    | not_owner
    | active
    | panic
    | no_json
    | port_program
    | {exit_status, non_neg_integer()}
    | {signal, atom() | pos_integer()}
    | {command, binary(), atom()}
    | {cwd, binary(), atom()}
    | {tls, tls_reason()}
    | {posix, atom()}
    | {option, Key :: term(), Value :: term()}
    | {stdio, erlmcp_native_stdio:refusal()}
    | {path_unavailable, erlmcp_native_path:path(), term()}.
%% `closed': orderly, by either side. `embedded_newline', `empty_message': the message cannot be
%% sent with newline framing. `busy': the outbound queue is full, `writable' follows.
%% `active': a take while messages are being pushed. `panic': a defect in native code.
%% `no_json': on the path `beam' OTP 27 or jsx is needed. `port_program': the program of the path
%% `port' has ended, and what was in it; it is started again.
%%
%% Of child processes: `exit_status' and `signal' (`sigkill', ...) say how one has ended; `command'
%% and `cwd' which of them kept it from starting, and why.

-type failure() :: erlmcp_native_failure:kind().

-type socket_info() :: #{
    state := connecting | open | eof | closing | down,
    peername := address() | undefined,
    sockname := address() | undefined,
    peercert := public_key:der_encoded() | undefined,
    frames_in := non_neg_integer(),
    bytes_in := non_neg_integer(),
    frames_out := non_neg_integer(),
    bytes_out := non_neg_integer(),
    inbound_bytes := non_neg_integer(),
    queue_bytes := non_neg_integer(),
    buffers := #{
        read_bytes := non_neg_integer(),
        high_water_bytes := pos_integer(),
        min := pos_integer(),
        max := pos_integer(),
        reason := fixed | start | quick_owner | slow_owner
    },
    os_pid => pos_integer() | undefined
}.
%% `inbound_bytes' wait for the owner, `queue_bytes' for the peer. `buffers': how much is read at
%% once and ahead of the owner, the bounds of the latter, and what has moved it last (see
%% {@link erlmcp_native_high_water}). `os_pid' is that of a child.

-type event() ::
    connected
    | ready
    | {frames, [erlmcp_native_path:item(), ...]}
    | passive
    | writable
    | eof
    | {stderr, [binary() | {dropped, pos_integer()}, ...]}
    | {down, reason(), erlmcp_native_link:next()}.
%% What the owner of a connection receives as `{erlmcp_native, Conn, Event}'.
%%
%% `connected': the connection stands, again after each reconnect. `ready': not active, and there
%% is something to {@link take/3}; told once until everything was taken. `{frames, Items}': active.
%% `passive': the window given with {@link set_active/2} is used up. `writable': a send was refused
%% with `busy' and there is room again, or none is needed any more because the connection has ended.
%% `eof': the peer has shut down its side, only with `half_close'. `{stderr, Lines}': a child
%% process has written these to its standard error, only with `stderr => owner'; lines are
%% dropped, and counted, where they come faster than they are taken, or lie unread in the owner's
%% mailbox (1,000 messages or 1 MiB). `{down, Reason, Next}': the connection is lost or could not
%% be made, and everything that had arrived was delivered before; `{retry_in, Ms}' or, and then
%% the process has ended, `final'.

-type listener_event() :: {accepted, Conn :: pid()} | {down, reason(), final}.
%% What the owner of a listener receives as `{erlmcp_native, Listener, Event}'. The connection's
%% own events follow `accepted'.

-type connect_options() :: #{
    owner => pid(),
    active => erlmcp_native_conn:active(),
    path => erlmcp_native_path:path(),
    reconnect => boolean() | map(),
    atom() => term()
}.
%% And all of {@link erlmcp_native_options:connection()}. Defaults: the caller, `false', the node's
%% path, `false'. `reconnect' is `true' or a map of {@link erlmcp_native_backoff:options()}.

-type listen_options() :: #{
    owner => pid(),
    active => erlmcp_native_conn:active(),
    path => erlmcp_native_path:path(),
    handler => erlmcp_native_listener:handler(),
    max_connections => pos_integer(),
    atom() => term()
}.
%% And all of {@link erlmcp_native_options:listener()}. Connections belong to the listener's owner,
%% or with `handler' to a process that it starts for each. `max_connections' is 10,000; beyond it
%% connections wait in the kernel's backlog.

-type send_options() :: #{priority => erlmcp_native_path:priority(), timeout_ms => timeout()}.

-type metric() :: erlmcp_native_metrics:metric().

-define(CALL_TIMEOUT_MS, 30000).
-define(TAKE_BYTES, 1048576).

%% @equiv connect(Endpoint, #{})
-spec connect(map() | stdio) -> {ok, pid()} | {error, reason()}.
connect(Endpoint) ->
    connect(Endpoint, #{}).

%% @doc Starts to connect. `connected' or `{down, _, _}' follows. `stdio' is the node's own standard
%% input and output, with options of its own: see {@link erlmcp_native_stdio}.
-spec connect(map() | stdio, connect_options()) -> {ok, pid()} | {error, reason()}.
connect(Endpoint, Options) ->
    configured(Endpoint, Options, fun erlmcp_native_conn_sup:start_conn/1).

configured(Endpoint, Options, Start) ->
    with([
        fun(Acc) -> named(endpoint, erlmcp_native_options:target(Endpoint), Acc) end,
        fun(Acc) -> own(Options, #{reconnect => false}, Acc) end,
        fun(#{endpoint := Target} = Acc) ->
            named(connection, connection(Target, Options, Acc), Acc)
        end,
        fun(#{connection := Connection, endpoint := Target} = Acc) ->
            named(connection, erlmcp_native_options:fits(Connection, Target), Acc)
        end
    ], fun(#{endpoint := Checked, own := Own, connection := Connection}) ->
        #{owner := Owner, active := Active, path := Path, reconnect := Reconnect} = Own,
        LinkOptions = #{path => Path, reconnect => Reconnect, connection => Connection},
        Dial = {Checked, LinkOptions},
        Start(#{owner => Owner, active => Active, dial => Dial})
    end).

%% @doc A connection as a child of a supervisor of the user's, for an owner that has a name. It is
%% made again by itself, with backoff, and the owner is told at once when it is lost; the
%% supervisor starts it again when it has given up (`max_attempts'), or fails.
%%
%% ```
%% erlmcp_native:child_spec(#{
%%     endpoint => #{command => "npx", args => ["-y", "@modelcontextprotocol/server-everything"]},
%%     owner => my_client,
%%     options => #{active => true}
%% })
%% '''
-spec child_spec(#{
    endpoint := map(),
    owner := pid() | atom(),
    options => connect_options(),
    id => term()
}) -> supervisor:child_spec().
child_spec(#{endpoint := Endpoint, owner := Owner} = Given) ->
    Options = maps:merge(#{reconnect => true}, maps:get(options, Given, #{})),
    #{
        id => maps:get(id, Given, ?MODULE),
        start => {?MODULE, start_link, [Endpoint, Options#{owner => Owner}]}
    }.

%% @private
-spec start_link(map(), map()) -> {ok, pid()} | {error, reason()}.
start_link(Endpoint, #{owner := Name} = Options) when is_atom(Name) ->
    case whereis(Name) of
        undefined -> {error, {option, owner, Name}};
        Owner -> start_link(Endpoint, Options#{owner := Owner})
    end;
start_link(Endpoint, Options) ->
    configured(Endpoint, Options, fun erlmcp_native_conn:start_link/1).

%% @doc Waits in the owner for the outcome of {@link connect/2}; takes the event from the mailbox.
-spec await_connected(pid(), timeout()) -> ok | {error, reason()}.
await_connected(Conn, Timeout) ->
    Monitor = monitor(process, Conn),
    Result =
        receive
            {erlmcp_native, Conn, connected} -> ok;
            {erlmcp_native, Conn, {down, Reason, _}} -> {error, Reason};
            {'DOWN', Monitor, process, _, _} -> {error, closed}
        after Timeout -> {error, timeout}
        end,
    true = demonitor(Monitor, [flush]),
    Result.

%% @equiv listen(Endpoint, #{})
-spec listen(map()) -> {ok, pid()} | {error, reason()}.
listen(Endpoint) ->
    listen(Endpoint, #{}).

%% @doc Listens. The address, and so the port where 0 was asked for, is in {@link info/1}.
-spec listen(map() | stdio, listen_options()) -> {ok, pid()} | {error, reason()}.
listen(Endpoint, Options) ->
    Defaults = #{handler => none, max_connections => 10000},
    with([
        fun(Acc) -> named(endpoint, erlmcp_native_options:endpoint(Endpoint), Acc) end,
        fun(Acc) -> own(Options, Defaults, Acc) end,
        fun(#{rest := Rest} = Acc) ->
            named(listener, erlmcp_native_options:listener(Rest), Acc)
        end,
        fun(#{own := #{path := Path}} = Acc) -> named(path, erlmcp_native_path:use(Path), Acc) end
    ], fun(#{own := Own, path := Path} = Checked) ->
        Config = maps:with([endpoint, listener], Checked),
        erlmcp_native_listener_sup:start_listener(maps:merge(Config, Own#{path => Path}))
    end).

%% @doc Sends one message, without its delimiter. A message is accepted whole or refused whole;
%% accepted means written or queued. `Conn' may be what {@link sender/1} gave.
%%
%% Pings, cancellations and errors overtake what is queued: see {@link send/3}.
-spec send(pid() | erlmcp_native_path:sender(), iodata()) -> ok | {error, reason()}.
send(Conn, Data) ->
    send_as(Conn, Data, auto).

%% @doc With a timeout: sends from the owner, waiting for room where the queue is full; takes
%% `writable' from the mailbox. With options: `priority' says whether a message that has to be
%% queued overtakes others (`urgent', `normal'; `auto' goes by what it is), `timeout_ms' is the
%% timeout.
-spec send(pid(), iodata(), timeout()) -> ok | {error, reason()};
    (pid() | erlmcp_native_path:sender(), iodata(), send_options()) -> ok | {error, reason()}.
send(Conn, Data, Options) when is_map(Options) ->
    case [{Key, Value} || {Key, Value} <- maps:to_list(Options), not sending(Key, Value)] of
        [] -> send_with(Conn, Data, maps:get(priority, Options, auto), Options);
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
send(Conn, Data, Timeout) ->
    send_before(Conn, Data, auto, deadline(Timeout)).

sending(priority, V) -> V =:= auto orelse V =:= urgent orelse V =:= normal;
sending(timeout_ms, V) -> V =:= infinity orelse (is_integer(V) andalso V >= 0);
sending(_, _) -> false.

send_with(Conn, Data, Priority, #{timeout_ms := Timeout}) when is_pid(Conn) ->
    send_before(Conn, Data, Priority, deadline(Timeout));
send_with(Conn, Data, Priority, _) ->
    send_as(Conn, Data, Priority).

send_as({Module, Term}, Data, Priority) ->
    Module:send_direct(Term, Data, Priority);
send_as(Conn, Data, Priority) ->
    call(Conn, {send, Data, Priority}).

%% @doc What any process can send with at the least cost, valid until the connection is down;
%% `none' where sending goes through the process (the `beam' path) or it is not connected.
-spec sender(pid()) -> erlmcp_native_path:sender() | none | {error, reason()}.
sender(Conn) ->
    call(Conn, sender).

%% @equiv take(Conn, MaxItems, 1048576)
-spec take(pid(), pos_integer()) -> {ok, [erlmcp_native_path:item()]} | {error, reason()}.
take(Conn, MaxItems) ->
    take(Conn, MaxItems, ?TAKE_BYTES).

%% @doc Takes what has arrived: at most `MaxItems' and, beyond the first, at most `MaxBytes' bytes.
%% An empty list means that nothing is left and `ready' will tell of more.
-spec take(pid(), pos_integer(), non_neg_integer()) ->
    {ok, [erlmcp_native_path:item()]} | {error, reason()}.
take(Conn, MaxItems, MaxBytes) when
    is_integer(MaxItems), MaxItems > 0, is_integer(MaxBytes), MaxBytes >= 0
->
    call(Conn, {take, MaxItems, MaxBytes}).

%% @doc Waits in the owner of a connection that is not active for what arrives next; takes `ready'
%% from the mailbox, and `{down, _, _}' when nothing precedes it.
-spec recv(pid(), timeout()) -> {ok, [erlmcp_native_path:item(), ...]} | {error, reason()}.
recv(Conn, Timeout) ->
    recv_before(Conn, deadline(Timeout)).

%% @doc How many frames are pushed to the owner: none (`false'), all (`true'), one (`once'), or a
%% number after which `passive' follows. It replaces what was left of the former window.
-spec set_active(pid(), erlmcp_native_conn:active()) -> ok | {error, reason()}.
set_active(Conn, Active) ->
    case valid(active, Active) of
        true -> call(Conn, {active, Active});
        false -> {error, {option, active, Active}}
    end.

%% @doc Hands a connection over; called by its owner. Events that are in the caller's mailbox go to
%% the new owner, in order, before any further.
-spec controlling_process(pid(), pid()) -> ok | {error, reason()}.
controlling_process(Conn, NewOwner) when is_pid(NewOwner) ->
    case call(Conn, {give, NewOwner}) of
        {ok, Ref} ->
            pass_on(Conn, NewOwner),
            Conn ! {given, Ref},
            ok;
        {error, _} = Error ->
            Error
    end.

%% @doc State, addresses and counters of a connection or a listener.
-spec info(pid()) -> {ok, map()} | {error, reason()}.
info(Pid) ->
    call(Pid, info).

%% @doc Closes a connection, after what is queued has been sent, or a listener, whose connections
%% live on. Closing twice is fine.
-spec close(pid()) -> ok.
close(Pid) ->
    case call(Pid, close) of
        ok -> ok;
        {error, closed} -> ok
    end.

%% @doc What kind of failure the reason of a `down' tells of: nobody listens (`refused'), no answer
%% (`timeout'), broken off (`reset'), closed in order (`shutdown'), `tls', `protocol' and so on.
-spec failure(reason() | term()) -> failure().
failure(Reason) ->
    erlmcp_native_failure:kind(Reason).

%% @doc All metrics, by name; {@link erlmcp_native_metrics:overview/1} gives some of them.
-spec overview() -> #{atom() => metric()}.
overview() ->
    erlmcp_native_metrics:overview().

%% Checks one thing after the other, and goes on when all are right.
with([], Then, Acc) ->
    Then(Acc);
with([Check | Checks], Then, Acc) ->
    case Check(Acc) of
        {ok, Next} -> with(Checks, Then, Next);
        {error, _} = Error -> Error
    end.

with(Checks, Then) ->
    with(Checks, Then, #{}).

connection(stdio, #{reconnect := Reconnect}, _) when Reconnect =/= false ->
    {error, {option, reconnect, Reconnect}};
connection(stdio, _, #{rest := Rest}) ->
    erlmcp_native_stdio:options(Rest);
connection(_, _, #{rest := Rest}) ->
    erlmcp_native_options:connection(Rest).

named(Name, {ok, Value}, Acc) -> {ok, Acc#{Name => Value}};
named(_, {error, _} = Error, _) -> Error.

%% The options of the process itself, apart from those of its socket.
own(Options, More, Acc) when is_map(Options) ->
    Defaults = More#{owner => self(), active => false, path => default},
    Keys = maps:keys(Defaults),
    Own = maps:with(Keys, Options),
    Rest = maps:without(Keys, Options),
    case [KV || {Key, Value} = KV <- maps:to_list(Own), not valid(Key, Value)] of
        [] -> reconnect(maps:merge(Defaults, Own), Acc#{rest => Rest});
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
own(Options, _, _) ->
    {error, {option, options, Options}}.

reconnect(#{reconnect := Reconnect} = Own, Acc) when Reconnect =/= false ->
    case erlmcp_native_backoff:options(Reconnect) of
        {ok, Backoff} -> {ok, Acc#{own => Own#{reconnect := Backoff}}};
        {error, badmap} -> {error, {option, reconnect, Reconnect}};
        {error, {Key, Value}} -> {error, {option, {reconnect, Key}, Value}}
    end;
reconnect(Own, Acc) ->
    {ok, Acc#{own => Own}}.

valid(owner, V) -> is_pid(V);
valid(active, V) -> is_boolean(V) orelse V =:= once orelse (is_integer(V) andalso V > 0);
valid(path, V) -> lists:member(V, [default, nif, port, beam]);
valid(reconnect, V) -> is_boolean(V) orelse is_map(V);
valid(handler, {M, F, A}) -> is_atom(M) andalso is_atom(F) andalso is_list(A);
valid(max_connections, V) -> is_integer(V) andalso V > 0;
valid(_, _) -> false.

send_before(Conn, Data, Priority, Deadline) ->
    case send_as(Conn, Data, Priority) of
        {error, busy} ->
            Monitor = monitor(process, Conn),
            Room =
                receive
                    {erlmcp_native, Conn, writable} -> ok;
                    {'DOWN', Monitor, process, _, _} -> {error, closed}
                after left(Deadline) -> {error, busy}
                end,
            true = demonitor(Monitor, [flush]),
            case Room of
                ok -> send_before(Conn, Data, Priority, Deadline);
                {error, _} -> Room
            end;
        Result ->
            Result
    end.

recv_before(Conn, Deadline) ->
    case take(Conn, 1000) of
        {ok, []} ->
            Monitor = monitor(process, Conn),
            Next =
                receive
                    {erlmcp_native, Conn, ready} -> again;
                    {erlmcp_native, Conn, {down, Reason, _}} -> {error, Reason};
                    {'DOWN', Monitor, process, _, _} -> {error, closed}
                after left(Deadline) -> {error, timeout}
                end,
            true = demonitor(Monitor, [flush]),
            case Next of
                again -> recv_before(Conn, Deadline);
                {error, _} -> Next
            end;
        {error, closed} ->
            receive
                {erlmcp_native, Conn, {down, Reason, _}} -> {error, Reason}
            after 0 -> {error, closed}
            end;
        Result ->
            Result
    end.

pass_on(Conn, NewOwner) ->
    receive
        {erlmcp_native, Conn, _} = Event ->
            NewOwner ! Event,
            pass_on(Conn, NewOwner)
    after 0 -> ok
    end.

deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

left(infinity) -> infinity;
left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

call(Pid, Request) ->
    try
        gen_server:call(Pid, Request, ?CALL_TIMEOUT_MS)
    catch
        exit:{Reason, _} when Reason =:= noproc; Reason =:= normal; Reason =:= shutdown ->
            {error, closed}
    end.
