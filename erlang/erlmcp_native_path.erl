%% @doc The implementations of a connection, and the contract that all of them meet.
%%
%% A path runs inside the process that owns the connection: it keeps its state in a socket
%% term of its own, gives meaning to the messages that reach the process
%% ({@link handle_info/2}), and hands out what has arrived in bounded batches (`take/3').
%% Nothing is pushed to the owner but one edge-triggered notice that there is something to
%% take; the path reads ahead up to a high-water mark and lets the peer feel back-pressure
%% beyond it.
%%
%% The socket term is valid only in its owner process. `give/2' makes another process the
%% owner; the new owner begins with `take/3', whatever was waiting.
-module(erlmcp_native_path).

-export([configure/0, workers/0, module/1, default/0, use/1, use/2]).

-export_type([path/0, socket/0, listener/0, item/0, status/0, notice/0, sender/0, priority/0]).

-type path() :: nif | port | beam.
%% Implementation: `nif' is the Rust core inside the VM, `port' the same core in the port program,
%% `beam' is pure Erlang.

-type socket() :: term().
-type listener() :: term().

-type item() ::
    binary()
    | {oversized, Bytes :: pos_integer()}
    | {json, term()}
    | {bad_json, erlmcp_native_json:fault(), Frame :: binary()}.
%% One frame without its delimiter, or, where frames over the limit are discarded
%% (`on_oversize => discard'), the size in bytes of a frame that was. With `decode => json' the term
%% that stands in a frame as JSON, or what is wrong with it.

-type status() ::
    connecting
    | armed
    | more
    | again
    | {eof, armed}
    | {down, erlmcp_native:reason()}.
%% What to expect after a batch. `connecting': not yet established, a `ready' notice follows
%% when it is or has failed. `armed': nothing is left, a `ready' notice will tell of the next
%% data. `more': there is more to take now, no notice will come. `again': nothing is left, but
%% there will be more soon; no notice will come before another take, of one item or more or of
%% none, has been answered with `armed'. `{eof, armed}': the peer has shut down its side and
%% everything it sent has been taken; only with `half_close => true'. `{down, Reason}': the
%% connection is over and everything that had arrived has been taken.

-type notice() :: ready | writable | {stderr, [binary() | {dropped, pos_integer()}, ...]} | none.
%% `writable': a send was refused with `busy' and there is room again. `stderr': of a child.

-type sender() :: {module(), term()}.
%% Sends from any process without passing through the owner:
%% `Module:send_direct(Term, Data, Priority)'.

-type priority() :: auto | urgent | normal.
%% Whether a message that has to be queued overtakes others: see `docs/flow.md'. `auto': pings,
%% cancellations, and errors do.

-callback open(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    {ok, socket()} | {error, erlmcp_native:reason()}.
%% Starts to connect with the calling process as owner, and returns at once.

-callback take(socket(), MaxItems :: non_neg_integer(), MaxBytes :: non_neg_integer()) ->
    {[item()], status(), socket()}.
%% At most `MaxItems' items and, beyond the first, at most `MaxBytes' bytes. Zero items ask for
%% the status alone.

-callback send(socket(), iodata(), priority()) ->
    {ok | {error, erlmcp_native:reason()}, socket()}.
%% Queues one message whole or refuses it whole; never waits.

-callback sender(socket()) -> sender() | none.

-callback send_direct(term(), iodata(), priority()) ->
    ok | {error, erlmcp_native:reason()}.

-callback handle_info(term(), socket()) -> {notice(), socket()} | unknown.
%% Gives meaning to a message in the owner's mailbox; `unknown' if it is not this socket's.

-callback close(socket()) -> ok.
%% Sends what is queued, for `linger_ms' at most and without holding the caller, then closes. A
%% notice that was on its way may still arrive; `handle_info/2' of any other socket knows it not.

-callback give(socket(), NewOwner :: pid()) ->
    {ok, socket()} | {error, erlmcp_native:reason()}.
%% Called by the present owner. The socket that is returned is for the new owner.

-callback info(socket()) -> erlmcp_native:socket_info().

-callback listen(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, listener()} | {error, erlmcp_native:reason()}.
%% Binds and listens before it returns. The calling process is the owner.

-callback accept(listener(), Max :: pos_integer()) ->
    {[socket()], armed | more | {down, erlmcp_native:reason()}, listener()}.
%% Connections that have arrived, owned by the caller. They may still be `connecting'
%% (TLS handshake). Nothing is accepted beyond what is asked for here and one batch ahead.

-callback listener_handle_info(term(), listener()) -> {ready | none, listener()} | unknown.

-callback listener_info(listener()) -> #{sockname := erlmcp_native:address()}.

-callback listener_close(listener()) -> ok.

-optional_callbacks([send_direct/3]).

%% Read for each message: an atom is found 16 ns sooner than a tuple.
-define(DEFAULT_KEY, ?MODULE).

-define(MAX_WORKERS, 1024).

%% @doc Applies the application settings `path' and `workers' at start.
%%
%% Without a setting the node uses `nif' where the library is loaded, and else says so once in
%% the log and uses `beam'. A path asked for by name that cannot be had keeps the application
%% from starting, and so does the path `beam' where there is neither OTP 27 nor jsx. Where `beam'
%% is only the way out, that is an error in the log: a node that boots without JSON can be told
%% what it is missing, one that does not boot cannot. On the path `port' it is none, since JSON
%% that arrives is decoded in the program.
-spec configure() -> ok | {error, erlmcp_native:reason()}.
configure() ->
    case workers() of
        Count when is_integer(Count), Count >= 1, Count =< ?MAX_WORKERS ->
            configure(application:get_env(erlmcp_native, path));
        Other ->
            {error, {option, workers, Other}}
    end.

%% Nothing native is loaded where it is not to be used.
configure({ok, beam}) ->
    beam(erlmcp_native_json_beam:codec());
configure({ok, port}) ->
    port(erlmcp_native_port:available());
configure({ok, Path}) when Path =/= nif ->
    {error, {option, path, Path}};
configure(Wanted) ->
    configure(Wanted, erlmcp_native_nif:status()).

configure(_, loaded) ->
    _ = erlmcp_native_nif:set_workers(workers()),
    put_default(nif);
configure({ok, nif}, {failed, Why}) ->
    {error, {path_unavailable, nif, Why}};
configure(undefined, {failed, Why}) ->
    logger:warning("erlmcp_native: no native library, running on pure Erlang: ~0tp", [Why]),
    _ = beam(erlmcp_native_json_beam:codec()),
    put_default(beam).

beam({ok, _}) ->
    put_default(beam);
beam({error, no_json} = Error) ->
    logger:error("erlmcp_native: JSON in pure Erlang needs OTP 27 or jsx on the code path"),
    Error.

port(ok) ->
    put_default(port);
port({error, Why}) ->
    {error, {path_unavailable, port, Why}}.

%% @doc How many threads the native runtime has: the application setting `workers' (1 to 1024).
%% Without it 2, and 1 where the VM has fewer than 4 schedulers: threads that share their cores with
%% the schedulers wake each other for messages that one of them would have found together.
-spec workers() -> pos_integer().
workers() ->
    case application:get_env(erlmcp_native, workers) of
        {ok, Count} -> Count;
        undefined -> default_workers(erlang:system_info(schedulers_online))
    end.

default_workers(Schedulers) when Schedulers < 4 -> 1;
default_workers(_) -> 2.

%% @doc The callback module of a path.
-spec module(path()) -> module().
module(nif) -> erlmcp_native_nif_path;
module(port) -> erlmcp_native_port_path;
module(beam) -> erlmcp_native_beam_path.

%% @doc The path of this node, as {@link configure/0} found it; where the application is not
%% started, the setting, or `nif' if the library can be loaded.
-spec default() -> path().
default() ->
    case persistent_term:get(?DEFAULT_KEY, undefined) of
        undefined -> configured(application:get_env(erlmcp_native, path));
        Path -> Path
    end.

configured({ok, Path}) when Path =:= beam; Path =:= port -> Path;
configured(_) -> available(erlmcp_native_nif:status()).

%% @doc Checks that a path can be used on this node.
-spec use(path() | default) -> {ok, module()} | {error, erlmcp_native:reason()}.
use(default) ->
    {ok, module(default())};
use(nif) ->
    case erlmcp_native_nif:status() of
        loaded -> {ok, module(nif)};
        {failed, Why} -> {error, {path_unavailable, nif, Why}}
    end;
use(port) ->
    case erlmcp_native_port:available() of
        ok -> {ok, module(port)};
        {error, Why} -> {error, {path_unavailable, port, Why}}
    end;
use(beam) ->
    {ok, module(beam)};
use(Other) ->
    {error, {option, path, Other}}.

%% @doc The same for what is to be connected to. Children of the path `nif' live in the port
%% program too: to start processes is the business of one part of a program, and in the VM it is
%% the VM's.
-spec use(path() | default, erlmcp_native:endpoint()) ->
    {ok, module()} | {error, erlmcp_native:reason()}.
use(Path, #{command := _}) ->
    case use(Path) of
        {ok, erlmcp_native_nif_path} -> use(port);
        Other -> Other
    end;
use(Path, _) ->
    use(Path).

available(loaded) -> nif;
available({failed, _}) -> beam.

put_default(Path) ->
    persistent_term:put(?DEFAULT_KEY, Path).
