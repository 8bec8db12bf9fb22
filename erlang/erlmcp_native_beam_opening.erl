%% @doc The process between the wish for a connection and the connection: it has the dial and
%% the TLS handshake done, which block, and answers its owner meanwhile.
%%
%% The blocking part is a worker's. It hands a plain socket on; with TLS it stays the one that
%% `ssl' knows, as the connection's session, see {@link erlmcp_native_beam_session}.
-module(erlmcp_native_beam_opening).

-export([dial/2, dial/3, accepted/3, watch/1, keys/1, give/2, cancel/1, handle_info/2]).

-export_type([opening/0, outcome/0, manner/0]).

-record(opening, {
    pid :: pid(),
    tag :: reference(),
    %% None where the process was given to this owner and is not watched yet.
    monitor :: reference() | none
}).

-opaque opening() :: #opening{}.

-type ends() :: #{
    peername := erlmcp_native:address() | undefined,
    sockname := erlmcp_native:address() | undefined,
    peercert := public_key:der_encoded() | undefined
}.

-type outcome() ::
    {open, erlmcp_native_beam_stream:stream(), ends()} | {failed, erlmcp_native:reason()}.

-type manner() :: #{
    alpn := [binary()],
    through := none | {erlmcp_native:endpoint(), tunnel()}
}.
%% How to connect: with what names of protocols for TLS to choose from, and through whom.

-type tunnel() :: fun((gen_tcp:socket()) -> ok | {error, erlmcp_native:reason()}).
%% Has a connection to the one passed through become one to the endpoint. It may block.

%% @doc Starts to connect, on behalf of the calling process.
-spec dial(erlmcp_native:endpoint(), erlmcp_native_options:connection()) -> opening().
dial(Endpoint, Options) ->
    dial(Endpoint, Options, #{alpn => [], through => none}).

%% @doc The same in a manner of its own.
-spec dial(erlmcp_native:endpoint(), erlmcp_native_options:connection(), manner()) -> opening().
dial(Endpoint, #{tls := Tls, handshake_timeout_ms := Timeout} = Options, Manner) ->
    #{alpn := Alpn, through := Through} = Manner,
    start(fun() ->
        case reach(Endpoint, Options, Through) of
            {ok, Port} when Tls =:= false -> {tcp, Port, ends(Port)};
            {ok, Port} -> secure(Port, tls(Tls, Endpoint, Alpn), Timeout);
            {error, _} = Error -> Error
        end
    end).

tls(Tls, Endpoint, Alpn) ->
    case erlmcp_native_beam_tls:client(Tls, Endpoint) of
        {ok, Config} when Alpn =/= [] -> {ok, erlmcp_native_beam_tls:with_alpn(Alpn, Config)};
        Result -> Result
    end.

reach(Endpoint, Options, none) ->
    erlmcp_native_beam_dial:connect(Endpoint, Options);
reach(_, Options, {Proxy, Tunnel}) ->
    case erlmcp_native_beam_dial:connect(Proxy, Options) of
        {ok, Port} -> tunnelled(Tunnel(Port), Port);
        {error, _} = Error -> Error
    end.

tunnelled(ok, Port) -> {ok, Port};
tunnelled({error, _} = Error, _) -> Error.

%% @doc Starts the handshake on an accepted socket, which the calling process owns.
-spec accepted(
    gen_tcp:socket(), erlmcp_native_options:listener(), erlmcp_native_beam_tls:config()
) -> opening().
accepted(Port, #{handshake_timeout_ms := Timeout}, Tls) ->
    #opening{pid = Pid} = Opening = start(fun() ->
        receive
            {accepted, ok} -> secure(Port, {ok, Tls}, Timeout);
            {accepted, _} -> {error, closed}
        end
    end),
    Pid ! {accepted, Port, gen_tcp:controlling_process(Port, Pid)},
    Opening.

%% @doc Watches an opening that was given to the calling process, and asks for its outcome: a
%% message before that could come before the new owner knows what it is about.
-spec watch(opening()) -> opening().
watch(#opening{pid = Pid, monitor = none} = Opening) ->
    Monitor = monitor(process, Pid),
    Pid ! {claim, self()},
    Opening#opening{monitor = Monitor};
watch(Opening) ->
    Opening.

%% @doc What the messages that are meant for it can be told by: the first element of a pair, the
%% reference of a `DOWN'.
-spec keys(opening()) -> [reference()].
keys(#opening{tag = Tag, monitor = Monitor}) when Monitor =/= none -> [Tag, Monitor].

%% @doc Makes another process the owner. The outcome may have come before; then it is returned,
%% and whether it belongs to the new owner already.
-spec give(opening(), pid()) ->
    {pending, opening()} | {given | kept, outcome()}.
give(#opening{pid = Pid, tag = Tag, monitor = Monitor} = Opening, NewOwner) ->
    Taken = erlmcp_native_beam_keeper:transfer(Pid, NewOwner),
    unwatch(Monitor),
    receive
        {Tag, Outcome} -> {Taken, Outcome}
    after 0 ->
        case Taken of
            given -> {pending, Opening#opening{monitor = none}};
            kept -> {kept, {failed, panic}}
        end
    end.

%% @doc Gives up.
-spec cancel(opening()) -> ok.
cancel(#opening{pid = Pid, tag = Tag, monitor = Monitor}) ->
    unwatch(Monitor),
    exit(Pid, kill),
    receive
        {Tag, {open, Stream, _}} -> erlmcp_native_beam_stream:close(Stream, 0);
        {Tag, _} -> ok
    after 0 -> ok
    end.

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), opening()) -> outcome() | unknown.
handle_info({Tag, Outcome}, #opening{tag = Tag, monitor = Monitor}) ->
    unwatch(Monitor),
    Outcome;
handle_info({'DOWN', Monitor, process, _, _}, #opening{monitor = Monitor}) ->
    {failed, panic};
handle_info(_, _) ->
    unknown.

unwatch(none) -> true;
unwatch(Monitor) -> demonitor(Monitor, [flush]).

start(Work) ->
    Owner = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> init(Owner, Tag, Work) end),
    #opening{pid = Pid, tag = Tag, monitor = Monitor}.

%% The worker is linked: it and what it has started end with this process, however that ends.
init(Owner, Tag, Work) ->
    Self = self(),
    Worker = spawn_link(fun() -> work(Self, Tag, Work) end),
    wait(Owner, monitor(process, Owner), Tag, Worker).

wait(Owner, Monitor, Tag, Worker) ->
    receive
        {Worker, {tcp, Port, Ends}} ->
            open_tcp(Owner, Tag, Port, Ends);
        {Worker, {tls, Keeper, Session, Ends}} ->
            Worker ! {owner, Owner},
            Owner ! {Tag, {open, erlmcp_native_beam_stream:tls(Keeper, Session), Ends}};
        {Worker, {error, Reason}} ->
            Owner ! {Tag, {failed, Reason}};
        {accepted, Port, ok} ->
            Worker ! {accepted, gen_tcp:controlling_process(Port, Worker)},
            wait(Owner, Monitor, Tag, Worker);
        {accepted, _, {error, _} = Gone} ->
            Worker ! {accepted, Gone},
            wait(Owner, Monitor, Tag, Worker);
        {give, NewOwner, Owner, Ref} ->
            given(NewOwner, Owner, Ref, Monitor, Tag, Worker);
        {give, _, From, Ref} ->
            From ! {Ref, not_owner},
            wait(Owner, Monitor, Tag, Worker);
        {'DOWN', Monitor, process, _, _} ->
            exit(shutdown)
    end.

given(Owner, Former, Ref, FormerMonitor, Tag, Worker) ->
    demonitor(FormerMonitor, [flush]),
    Former ! {Ref, given},
    Monitor = monitor(process, Owner),
    receive
        {claim, Owner} -> wait(Owner, Monitor, Tag, Worker);
        {give, Next, Owner, Again} -> given(Next, Owner, Again, Monitor, Tag, Worker);
        {'DOWN', Monitor, process, _, _} -> exit(shutdown)
    end.

%% The new owner begins with a take, and the socket delivers nothing before that.
open_tcp(Owner, Tag, Port, Ends) ->
    case gen_tcp:controlling_process(Port, Owner) of
        ok -> Owner ! {Tag, {open, erlmcp_native_beam_stream:tcp(Port), Ends}};
        {error, _} -> Owner ! {Tag, {failed, closed}}
    end.

work(Opening, Tag, Work) ->
    case Work() of
        {tls, Socket, Port, Ends} ->
            erlmcp_native_beam_session:enter(Opening, Tag, Socket, Port, Ends);
        {tcp, Port, Ends} ->
            ok = gen_tcp:controlling_process(Port, Opening),
            Opening ! {self(), {tcp, Port, Ends}};
        {error, _} = Error ->
            Opening ! {self(), Error}
    end.

secure(Port, {ok, Tls}, Timeout) ->
    %% Before the handshake: a peer that goes takes its name with it.
    Ends = ends(Port),
    case erlmcp_native_beam_tls:handshake(Port, Tls, Timeout) of
        {ok, Socket} -> {tls, Socket, Port, Ends#{peercert := peercert(Socket)}};
        {error, _} = Error -> Error
    end;
secure(_, {error, _} = Error, _) ->
    Error.

ends(Port) ->
    #{
        peername => erlmcp_native_beam_inet:peername(Port),
        sockname => erlmcp_native_beam_inet:sockname(Port),
        peercert => undefined
    }.

peercert(Socket) ->
    case ssl:peercert(Socket) of
        {ok, Der} -> Der;
        {error, _} -> undefined
    end.
