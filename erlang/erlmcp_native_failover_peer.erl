%% @private One endpoint of a failover, as a value in its process: connected, initialized, kept warm
%% with pings, and connected again when it is lost.
%%
%% A stream (TCP, TLS, Unix socket, child process) is a connection that dials again by itself; when
%% it is down everything that was sent on it is lost. Over HTTP each request has a fate of its own:
%% one that fails says that the endpoint is not to be used for now (`leave'), until a ping is
%% answered.
-module(erlmcp_native_failover_peer).

-export([new/3, open/1, close/1, pid/1, is_ready/1, info/1]).
-export([event/2, gone/3, tick/1, ping/2, doubt/2]).
-export([send/2, withdraw/2, go_on/1]).

-export_type([peer/0, notice/0]).

-type notice() ::
    ready
    | {down, Reason :: term()}
    | {leave, Reason :: term()}
    | {answer, erlmcp_native_failover_plan:wire(), map()}
    | {failed, erlmcp_native_failover_plan:wire(), Reason :: term()}
    | {message, map()}
    | {initialized, map()}
    | {ponged, Tag :: term(), ok | failed}
    | passive
    | writable.

-record(peer, {
    name :: term(),
    kind :: stream | http,
    to :: term(),
    options :: map(),
    settings :: erlmcp_native_failover_options:options(),
    pid = none :: pid() | none,
    monitor = none :: reference() | none,
    sender = none :: term(),
    phase = closed :: closed | connecting | initializing | ready | doubtful,
    %% Since when it is in its phase, and when something was heard last.
    since :: integer(),
    heard :: integer(),
    %% What was sent on our own behalf and is not answered: the latest of each kind.
    controls = #{} :: #{binary() => initialize | {ping, SentMs :: integer(), Tag :: term()}},
    backoff :: erlmcp_native_backoff:backoff(),
    %% When to open it, or to ping it, again.
    due = none :: integer() | none
}).

-opaque peer() :: #peer{}.

%% Frames that a connection pushes before it waits.
-define(WINDOW, 128).

-spec new(
    erlmcp_native_failover_options:endpoint(),
    erlmcp_native_failover_options:options(),
    erlmcp_native_backoff:options()
) -> peer().
new(#{name := Name, kind := Kind, to := To, options := Options}, Settings, Backoff) ->
    Now = now_ms(),
    #peer{
        name = Name,
        kind = Kind,
        to = To,
        options = Options,
        settings = Settings,
        since = Now,
        heard = Now,
        backoff = erlmcp_native_backoff:new(Backoff)
    }.

%% @doc Begins to connect.
-spec open(peer()) -> {[notice()], peer()}.
open(#peer{kind = stream, to = To, options = Options} = Peer) ->
    Own = #{owner => self(), active => ?WINDOW, decode => json},
    opened(erlmcp_native:connect(To, maps:merge(#{reconnect => true}, maps:merge(Options, Own))),
        connecting, Peer);
open(#peer{kind = http, to = Url, options = Options} = Peer) ->
    Own = #{owner => self()},
    Defaults = #{reinitialize => true, initialized => auto, retries => 0},
    case opened(
        erlmcp_native_http_client:start(Url, maps:merge(maps:merge(Defaults, Options), Own)),
        connecting, Peer)
    of
        {[], #peer{phase = connecting} = Opened} -> greet(Opened);
        Failed -> Failed
    end.

opened({ok, Pid}, Phase, Peer) ->
    Monitor = monitor(process, Pid),
    {[], phase(Phase, Peer#peer{pid = Pid, monitor = Monitor, due = none})};
opened({error, Reason}, _, Peer) ->
    {[], later(Reason, Peer)}.

-spec close(peer()) -> peer().
close(#peer{pid = none} = Peer) ->
    Peer;
close(#peer{pid = Pid, monitor = Monitor, kind = Kind} = Peer) ->
    true = demonitor(Monitor, [flush]),
    %% Closing may take a while; nobody waits for it here.
    _ = spawn(fun() -> close(Kind, Pid) end),
    phase(closed, Peer#peer{pid = none, monitor = none, sender = none, controls = #{}}).

close(stream, Pid) -> erlmcp_native:close(Pid);
close(http, Pid) -> erlmcp_native_http_client:close(Pid).

-spec pid(peer()) -> pid() | none.
pid(#peer{pid = Pid}) -> Pid.

-spec is_ready(peer()) -> boolean().
is_ready(#peer{phase = Phase}) -> Phase =:= ready.

-spec info(peer()) -> map().
info(#peer{phase = Phase, kind = Kind, pid = Pid, heard = Heard}) ->
    #{phase => Phase, kind => Kind, pid => Pid, heard_ms => now_ms() - Heard}.

%% @doc An event of the endpoint's process.
-spec event(term(), peer()) -> {[notice()], peer()}.
event(connected, #peer{pid = Pid} = Peer) ->
    Sender =
        case erlmcp_native:sender(Pid) of
            {Module, _} = Direct when is_atom(Module), Module =/= error -> Direct;
            _ -> Pid
        end,
    greet(Peer#peer{sender = Sender});
event({frames, Frames}, Peer) ->
    Heard = Peer#peer{heard = now_ms()},
    lists:foldl(fun frame/2, {[], Heard}, Frames);
event({failed, Id, Reason}, Peer) ->
    request_failed(Id, Reason, Peer);
event({down, Reason, {retry_in, _}}, Peer) ->
    {[{down, Reason}], phase(connecting, Peer#peer{controls = #{}, sender = none})};
event({down, Reason, final}, Peer) ->
    gone(Reason, now_ms(), Peer);
event(session_lost, Peer) ->
    {[{leave, session_lost}], later(session_lost, doubtful(Peer))};
event(passive, Peer) ->
    {[passive], Peer};
event(writable, Peer) ->
    {[writable], Peer};
event(_, Peer) ->
    {[], Peer}.

%% @doc Its process has ended.
-spec gone(term(), integer(), peer()) -> {[notice()], peer()}.
gone(Reason, _, Peer) ->
    {[{down, Reason}], later(Reason, close(Peer))}.

%% @doc It is not heard any more, or does not keep to the protocol: begin anew.
-spec doubt(term(), peer()) -> {[notice()], peer()}.
doubt(Reason, #peer{kind = stream} = Peer) ->
    gone(Reason, now_ms(), Peer);
doubt(Reason, #peer{kind = http} = Peer) ->
    {[{leave, Reason}], later(Reason, doubtful(Peer))}.

doubtful(#peer{phase = initializing} = Peer) -> Peer;
doubtful(Peer) -> phase(doubtful, Peer).

frame({json, Term}, Acc) -> term(Term, Acc);
frame(Frame, Acc) when is_binary(Frame) ->
    case erlmcp_native_json:decode(Frame) of
        {ok, Term} -> term(Term, Acc);
        {error, _} -> Acc
    end;
frame(_, Acc) -> Acc.

term(Terms, Acc) when is_list(Terms) ->
    lists:foldl(fun term/2, Acc, Terms);
term(#{<<"method">> := <<"ping">>, <<"id">> := Id}, {Notices, Peer}) ->
    _ = send(#{jsonrpc => <<"2.0">>, id => Id, result => #{}}, Peer),
    {Notices, Peer};
term(#{<<"method">> := _} = Message, {Notices, Peer}) ->
    {Notices ++ [{message, Message}], Peer};
term(#{<<"id">> := Id} = Answer, {Notices, Peer}) when is_integer(Id) ->
    {Notices ++ [{answer, Id, Answer}], Peer};
term(#{<<"id">> := Id} = Answer, {Notices, Peer}) when is_binary(Id) ->
    {More, Next} = control(Id, {answered, Answer}, Peer),
    {Notices ++ More, Next};
term(_, Acc) ->
    Acc.

control(Id, How, #peer{controls = Controls} = Peer) ->
    case maps:take(Id, Controls) of
        {initialize, Rest} -> greeted(How, Peer#peer{controls = Rest});
        {{ping, _, Tag}, Rest} -> ponged(How, Tag, Peer#peer{controls = Rest});
        error -> {[], Peer}
    end.

ponged({answered, _}, Tag, #peer{phase = doubtful} = Peer) ->
    {[{ponged, Tag, ok}, ready], stands(Peer)};
ponged({answered, _}, Tag, Peer) ->
    {[{ponged, Tag, ok}], Peer};
ponged({failed, Reason}, Tag, Peer) ->
    {Notices, Next} = doubt(Reason, Peer),
    {[{ponged, Tag, failed} | Notices], Next}.

%% The first words.
greet(#peer{settings = #{initialize := none}} = Peer) ->
    {[ready], stands(Peer)};
greet(#peer{settings = #{initialize := Initialize}, name = Name} = Peer) ->
    Given =
        case Initialize of
            Params when is_map(Params) -> Params;
            Fun -> Fun(Name)
        end,
    Id = control_id(),
    Message = #{
        jsonrpc => <<"2.0">>, id => Id, method => <<"initialize">>, params => params(Given)
    },
    Greeting = phase(initializing, Peer#peer{controls = #{Id => initialize}, due = none}),
    case send(Message, Greeting) of
        ok -> {[], Greeting};
        {error, Reason} -> {[], later(Reason, Greeting)}
    end.

params(Given) ->
    Client = #{name => <<"erlmcp_native">>, version => <<"0.1.0">>},
    maps:merge(
        #{protocolVersion => <<"2025-11-25">>, capabilities => #{}, clientInfo => Client}, Given
    ).

greeted({answered, #{<<"result">> := Result}}, #peer{kind = Kind} = Peer) ->
    Done = #{jsonrpc => <<"2.0">>, method => <<"notifications/initialized">>},
    %% Over HTTP the client says it.
    _ = Kind =:= stream andalso send(Done, Peer),
    {[{initialized, Result}, ready], stands(Peer)};
greeted({answered, #{<<"error">> := Error}}, #peer{kind = stream} = Peer) ->
    gone({rpc, Error}, now_ms(), Peer);
greeted({answered, #{<<"error">> := Error}}, Peer) ->
    {[], later({rpc, Error}, Peer)};
greeted({answered, _}, Peer) ->
    {[], later(protocol, Peer)};
greeted({failed, Reason}, Peer) ->
    {[], later(Reason, Peer)}.

stands(#peer{backoff = Backoff} = Peer) ->
    phase(ready, Peer#peer{backoff = erlmcp_native_backoff:connected(now_ms(), Backoff)}).

request_failed(Id, Reason, Peer) when is_binary(Id) -> control(Id, {failed, Reason}, Peer);
request_failed(Id, Reason, Peer) when is_integer(Id) -> {[{failed, Id, Reason}], Peer};
request_failed(_, _, Peer) -> {[], Peer}.

later(Reason, #peer{backoff = Backoff} = Peer) ->
    Failure = erlmcp_native_failure:kind(Reason),
    {Delay, Next} = erlmcp_native_backoff:next(now_ms(), Failure, Backoff),
    Peer#peer{backoff = Next, due = now_ms() + Delay}.

%% @doc Looks at the time.
-spec tick(peer()) -> {[notice()], peer()}.
tick(#peer{due = Due} = Peer) when is_integer(Due) ->
    case now_ms() >= Due of
        true -> again(Peer#peer{due = none});
        false -> {[], Peer}
    end;
tick(#peer{phase = initializing, since = Since, settings = Settings} = Peer) ->
    #{initialize_timeout_ms := Limit} = Settings,
    case now_ms() - Since >= Limit of
        true when Peer#peer.kind =:= stream -> gone(timeout, now_ms(), Peer);
        true -> {[], later(timeout, Peer)};
        false -> {[], Peer}
    end;
tick(#peer{phase = Phase} = Peer) when Phase =:= ready; Phase =:= doubtful ->
    warm(now_ms(), Peer);
tick(Peer) ->
    {[], Peer}.

again(#peer{phase = closed} = Peer) -> open(Peer);
again(#peer{phase = initializing} = Peer) -> greet(Peer);
again(#peer{phase = doubtful} = Peer) -> {[], ping(none, Peer)};
again(Peer) -> {[], Peer}.

%% What is heard often needs no ping; of what was asked something must be heard.
warm(Now, #peer{controls = Controls, heard = Heard, settings = Settings} = Peer) ->
    #{ping_ms := Every, ping_timeout_ms := Limit} = Settings,
    case [Sent || {ping, Sent, _} <- maps:values(Controls)] of
        [] when Now - Heard >= Every -> {[], ping(none, Peer)};
        [] -> {[], Peer};
        Sent ->
            Oldest = lists:min(Sent),
            case Now - Oldest >= Limit of
                true when Heard < Oldest -> unheard(Peer);
                true -> {[], Peer#peer{controls = without_pings(Controls)}};
                false -> {[], Peer}
            end
    end.

unheard(#peer{controls = Controls} = Peer) ->
    Tags = [{ponged, Tag, failed} || {ping, _, Tag} <- maps:values(Controls)],
    Ids = [Id || {Id, {ping, _, _}} <- maps:to_list(Controls)],
    Forgotten = lists:foldl(fun withdraw/2, Peer, Ids),
    {Notices, Next} = doubt(timeout, Forgotten#peer{controls = without_pings(Controls)}),
    {Tags ++ Notices, Next}.

without_pings(Controls) -> maps:filter(fun(_, What) -> What =:= initialize end, Controls).

%% @doc Asks whether it is there; the tag comes back with the answer.
-spec ping(term(), peer()) -> peer().
ping(Tag, #peer{controls = Controls} = Peer) ->
    Id = control_id(),
    case send(#{jsonrpc => <<"2.0">>, id => Id, method => <<"ping">>}, Peer) of
        %% One that has no room for a ping is not heard either.
        Result when Result =:= ok; Result =:= {error, busy} ->
            Peer#peer{controls = Controls#{Id => {ping, now_ms(), Tag}}};
        {error, Reason} ->
            later(Reason, Peer)
    end.

%% @doc Sends a message. `{error, busy}': there will be room.
-spec send(map(), peer()) -> ok | {error, term()}.
send(_, #peer{pid = none}) ->
    {error, not_connected};
send(_, #peer{kind = stream, sender = none}) ->
    {error, not_connected};
send(Message, #peer{kind = stream, sender = Sender}) ->
    erlmcp_native:send(Sender, erlmcp_native_json:encode(Message));
send(Message, #peer{kind = http, pid = Pid}) ->
    Json = erlmcp_native_json:encode(Message),
    %% The time that a request may take is the failover's business.
    erlmcp_native_http_client:send(Pid, Json, #{
        timeout_ms => infinity, total_timeout_ms => infinity
    }).

%% @doc Tells it that nobody waits for an answer any more.
-spec withdraw(erlmcp_native_failover_plan:wire() | binary(), peer()) -> peer().
withdraw(Id, #peer{kind = http, pid = Pid} = Peer) when is_pid(Pid) ->
    _ = erlmcp_native_http_client:cancel(Pid, Id),
    Peer;
withdraw(Id, Peer) when is_integer(Id) ->
    _ = send(
        #{
            jsonrpc => <<"2.0">>,
            method => <<"notifications/cancelled">>,
            params => #{requestId => Id}
        },
        Peer
    ),
    Peer;
withdraw(_, Peer) ->
    Peer.

%% @doc Has the next frames pushed.
-spec go_on(peer()) -> ok.
go_on(#peer{kind = stream, pid = Pid}) when is_pid(Pid) ->
    _ = erlmcp_native:set_active(Pid, ?WINDOW),
    ok;
go_on(_) ->
    ok.

phase(Phase, #peer{phase = Phase} = Peer) -> Peer;
phase(Phase, Peer) -> Peer#peer{phase = Phase, since = now_ms()}.

control_id() ->
    <<"erlmcp_native.", (integer_to_binary(erlang:unique_integer([positive])))/binary>>.

now_ms() -> erlang:monotonic_time(millisecond).
