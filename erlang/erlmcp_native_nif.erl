%% @doc The functions of the native library. No logic: this module can never be reloaded.
%%
%% The library is loaded when {@link status/0} is first asked for, and not with the module: a node
%% in embedded mode loads all modules before it can know that nothing native is wanted. Loading is
%% soft. A node whose library is missing or refuses to load runs on the `beam' path; the status
%% tells why. Replacing a module whose library is loaded is refused, the running code stays.
-module(erlmcp_native_nif).

-on_load(init/0).

-export([status/0, is_loaded/0]).
-export([
    connection_open/2,
    stdio_claim/0,
    stdio_open/1,
    stdio_is_leaving/0,
    connection_take/3,
    connection_send/3,
    connection_send_large/3,
    connection_give/2,
    connection_close/1,
    connection_info/1,
    listener_open/2,
    listener_accept/2,
    listener_sockname/1,
    listener_close/1,
    set_workers/1,
    log_to/2,
    metrics_read/0,
    metrics_recording/1
]).
-export([
    http_client_open/2,
    http_client_request/5,
    http_client_request_large/5,
    http_client_events/2,
    http_client_take/3,
    http_client_cancel/2,
    http_client_info/1,
    http_client_close/1
]).
-export([
    json_words/0,
    json_decode/6,
    json_decode_dirty/6,
    json_encode/3,
    json_encode_dirty/3,
    json_scan/3,
    json_scan_dirty/3
]).

-export([
    http_listen/3,
    http_claim/2,
    http_take/1,
    http_listener_info/1,
    http_drain/2,
    http_close/1,
    http_body/1,
    http_reply/4,
    http_reply_large/4,
    http_stream/3,
    http_send/2,
    http_send_large/2,
    http_finish/1,
    http_on_gone/2,
    http_on_exit/2
]).

-export_type([connection/0, listener/0, http_listener/0, http_exchange/0, http_client/0]).

-opaque connection() :: reference().
-opaque listener() :: reference().
-opaque http_listener() :: reference().
-opaque http_exchange() :: reference().
-opaque http_client() :: reference().

-define(NOT_LOADED, erlang:nif_error(not_loaded)).

-define(STATUS_KEY, {?MODULE, status}).

%% @doc Whether the library is loaded, or the reason why it is not. Loads it.
-spec status() -> loaded | {failed, {atom(), string()}}.
status() ->
    case persistent_term:get(?STATUS_KEY, undefined) of
        undefined -> status(load());
        Status -> Status
    end.

%% @doc Whether the library has been loaded. Does not load it.
-spec is_loaded() -> boolean().
is_loaded() ->
    persistent_term:get(?STATUS_KEY, undefined) =:= loaded.

%% @doc Starts to connect; events name the connection by the number.
-spec connection_open(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    {non_neg_integer(), connection()}.
connection_open(_Endpoint, _Options) -> ?NOT_LOADED.

%% @doc Puts the node's own standard input and output aside; what prints goes to standard error.
-spec stdio_claim() -> ok | {error, erlmcp_native_stdio:refusal()}.
stdio_claim() -> ?NOT_LOADED.

%% @doc A connection over them.
-spec stdio_open(erlmcp_native_options:connection()) ->
    {ok, non_neg_integer(), connection()} | {error, erlmcp_native_stdio:refusal()}.
stdio_open(_Options) -> ?NOT_LOADED.

%% @doc Whether messages that were accepted for standard output have still to leave.
-spec stdio_is_leaving() -> boolean().
stdio_is_leaving() -> ?NOT_LOADED.

%% @doc See `erlmcp_native_path:take/3'.
-spec connection_take(connection(), non_neg_integer(), non_neg_integer()) ->
    {[erlmcp_native_path:item()], erlmcp_native_path:status()}.
connection_take(_Connection, _MaxItems, _MaxBytes) -> ?NOT_LOADED.

%% @doc Sends a message of moderate size from any process.
-spec connection_send(connection(), iodata(), erlmcp_native_path:priority()) ->
    ok | {error, erlmcp_native:reason()}.
connection_send(_Connection, _Data, _Priority) -> ?NOT_LOADED.

%% @doc Sends a message of any size, on a dirty scheduler.
-spec connection_send_large(connection(), iodata(), erlmcp_native_path:priority()) ->
    ok | {error, erlmcp_native:reason()}.
connection_send_large(_Connection, _Data, _Priority) -> ?NOT_LOADED.

%% @doc Makes another process the owner; `badarg' unless the caller is.
-spec connection_give(connection(), pid()) -> ok.
connection_give(_Connection, _NewOwner) -> ?NOT_LOADED.

%% @doc Closes a connection, after what is queued has been sent.
-spec connection_close(connection()) -> ok.
connection_close(_Connection) -> ?NOT_LOADED.

%% @doc State, addresses and counters.
-spec connection_info(connection()) -> erlmcp_native:socket_info().
connection_info(_Connection) -> ?NOT_LOADED.

%% @doc Binds and listens; events name the listener by the number.
-spec listener_open(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, non_neg_integer(), listener()} | {error, erlmcp_native:reason()}.
listener_open(_Endpoint, _Options) -> ?NOT_LOADED.

%% @doc Takes over at most `Max' connections, owned by the caller.
-spec listener_accept(listener(), non_neg_integer()) ->
    {[{non_neg_integer(), connection()}], armed | more | {down, erlmcp_native:reason()}}.
listener_accept(_Listener, _Max) -> ?NOT_LOADED.

%% @doc The address that is listened on.
-spec listener_sockname(listener()) -> erlmcp_native:address().
listener_sockname(_Listener) -> ?NOT_LOADED.

%% @doc Stops listening.
-spec listener_close(listener()) -> ok.
listener_close(_Listener) -> ?NOT_LOADED.

%% @doc Makes a pool for an origin; notices name it by the number.
-spec http_client_open(
    erlmcp_native_http_client_path:origin(), erlmcp_native_http_options:client()
) ->
    {ok, non_neg_integer(), http_client()} | {error, erlmcp_native:reason()}.
http_client_open(_Origin, _Options) -> ?NOT_LOADED.

%% @doc Sends or queues a request of moderate size.
-spec http_client_request(
    http_client(),
    {Method :: binary(), Target :: binary()},
    [{binary(), iodata()}],
    iodata() | none,
    {timeout(), Total :: timeout()}
) ->
    {ok, non_neg_integer()} | {error, busy | erlmcp_native:reason()}.
http_client_request(_Client, _Start, _Headers, _Body, _Timeouts) -> ?NOT_LOADED.

%% @doc Sends or queues a request of any size, on a dirty scheduler.
-spec http_client_request_large(
    http_client(),
    {Method :: binary(), Target :: binary()},
    [{binary(), iodata()}],
    iodata() | none,
    {timeout(), Total :: timeout()}
) ->
    {ok, non_neg_integer()} | {error, busy | erlmcp_native:reason()}.
http_client_request_large(_Client, _Start, _Headers, _Body, _Timeouts) -> ?NOT_LOADED.

%% @doc The events that a notice of a request stands for.
-spec http_client_events(http_client(), non_neg_integer()) ->
    [erlmcp_native_http_client_path:event()].
http_client_events(_Client, _Request) -> ?NOT_LOADED.

%% @doc See `erlmcp_native_http_client_path:take/3'.
-spec http_client_take(http_client(), non_neg_integer(), non_neg_integer()) ->
    {[binary()], more | armed | done | {failed, erlmcp_native_http_client_path:failure()}}.
http_client_take(_Client, _Request, _MaxBytes) -> ?NOT_LOADED.

%% @doc Stops a request.
-spec http_client_cancel(http_client(), non_neg_integer()) -> ok.
http_client_cancel(_Client, _Request) -> ?NOT_LOADED.

%% @doc Connections, requests under way, and requests that wait.
-spec http_client_info(http_client()) ->
    {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
http_client_info(_Client) -> ?NOT_LOADED.

%% @doc Stops all requests and closes all connections.
-spec http_client_close(http_client()) -> ok.
http_client_close(_Client) -> ?NOT_LOADED.

%% @doc Sets the number of runtime threads; `false' if the runtime runs already.
-spec set_workers(1..1024) -> boolean().
set_workers(_Count) -> ?NOT_LOADED.

%% @doc Has native log events of this level and above sent to a process.
-spec log_to(pid(), none | error | warning | info | debug | trace) -> ok.
log_to(_Receiver, _Level) -> ?NOT_LOADED.

%% @doc Reads what the native side counts: name, kind, group, unit, help and value, which is a
%% number, one for each transport, or, of a histogram, sum, maximum and counts by bucket.
-spec metrics_read() -> [{atom(), atom(), atom(), atom(), binary(), Value}] when
    Value ::
        non_neg_integer()
        | [{atom(), non_neg_integer()}]
        | {non_neg_integer(), non_neg_integer(), [{non_neg_integer(), pos_integer()}]}.
metrics_read() -> ?NOT_LOADED.

%% @doc Switches the recording of native histograms on or off.
-spec metrics_recording(boolean()) -> ok.
metrics_recording(_On) -> ?NOT_LOADED.

%% @doc The names and strings that {@link json_decode/6} need not make.
-spec json_words() -> tuple().
json_words() -> ?NOT_LOADED.

%% @doc Decodes on a normal scheduler; `late' asks for the same call on a dirty one.
-spec json_decode(
    binary(), Words :: tuple(), Null :: atom(), boolean(), boolean(), pos_integer()
) ->
    {ok, term()} | {error, erlmcp_native_json:fault()} | late.
json_decode(_Input, _Words, _Null, _ExistingAtoms, _References, _MaxDepth) -> ?NOT_LOADED.

%% @doc Decodes on a dirty scheduler.
-spec json_decode_dirty(
    binary(), Words :: tuple(), Null :: atom(), boolean(), boolean(), pos_integer()
) ->
    {ok, term()} | {error, erlmcp_native_json:fault()}.
json_decode_dirty(_Input, _Words, _Null, _ExistingAtoms, _References, _MaxDepth) -> ?NOT_LOADED.

%% @doc Encodes on a normal scheduler; `late' asks for the same call on a dirty one.
-spec json_encode(term(), Null :: atom(), Pieces :: boolean()) ->
    {ok, iodata()} | {error, erlmcp_native_json:refusal()} | late.
json_encode(_Term, _Null, _Pieces) -> ?NOT_LOADED.

%% @doc Encodes on a dirty scheduler.
-spec json_encode_dirty(term(), Null :: atom(), Pieces :: boolean()) ->
    {ok, iodata()} | {error, erlmcp_native_json:refusal()}.
json_encode_dirty(_Term, _Null, _Pieces) -> ?NOT_LOADED.

%% @doc Reads envelopes on a normal scheduler.
-spec json_scan(binary(), pos_integer(), pos_integer()) -> erlmcp_native_json:scanned().
json_scan(_Input, _MaxDepth, _MaxBatch) -> ?NOT_LOADED.

%% @doc Reads envelopes on a dirty scheduler.
-spec json_scan_dirty(binary(), pos_integer(), pos_integer()) -> erlmcp_native_json:scanned().
json_scan_dirty(_Input, _MaxDepth, _MaxBatch) -> ?NOT_LOADED.

%% @doc Binds and listens; the acceptor is told of requests, the owner of the end.
-spec http_listen(erlmcp_native:endpoint(), erlmcp_native_http_options:listener(), pid()) ->
    {ok, non_neg_integer(), http_listener()} | {error, erlmcp_native:reason()}.
http_listen(_Endpoint, _Options, _Acceptor) -> ?NOT_LOADED.

%% @doc For so many requests a process is to be started; with 0 an event tells of the next.
-spec http_claim(http_listener(), pos_integer()) -> non_neg_integer().
http_claim(_Listener, _Max) -> ?NOT_LOADED.

%% @doc Takes a request that was claimed; the caller receives what concerns it.
-spec http_take(http_listener()) ->
    {non_neg_integer(), http_exchange(), erlmcp_native_http_path:request()} | none.
http_take(_Listener) -> ?NOT_LOADED.

%% @doc Address and counts.
-spec http_listener_info(http_listener()) ->
    #{
        sockname := erlmcp_native:address(),
        connections := non_neg_integer(),
        requests := non_neg_integer(),
        streams := non_neg_integer()
    }.
http_listener_info(_Listener) -> ?NOT_LOADED.

%% @doc See `erlmcp_native_http_path:listener_drain/2'.
-spec http_drain(http_listener(), non_neg_integer()) -> ok.
http_drain(_Listener, _Ms) -> ?NOT_LOADED.

%% @doc Closes the listener and all its connections.
-spec http_close(http_listener()) -> ok.
http_close(_Listener) -> ?NOT_LOADED.

%% @doc The body, or `waiting': a message tells when to ask again.
-spec http_body(http_exchange()) ->
    {ok, binary()} | {error, body_too_large | timeout | closed} | waiting.
http_body(_Exchange) -> ?NOT_LOADED.

%% @doc Answers whole, with a body of moderate size.
-spec http_reply(
    http_exchange(),
    erlmcp_native_http_path:status(),
    erlmcp_native_http_path:headers(),
    iodata()
) -> ok | {error, closed}.
http_reply(_Exchange, _Status, _Headers, _Body) -> ?NOT_LOADED.

%% @doc Answers whole, on a dirty scheduler.
-spec http_reply_large(
    http_exchange(),
    erlmcp_native_http_path:status(),
    erlmcp_native_http_path:headers(),
    iodata()
) -> ok | {error, closed}.
http_reply_large(_Exchange, _Status, _Headers, _Body) -> ?NOT_LOADED.

%% @doc Begins an answer of unknown length.
-spec http_stream(
    http_exchange(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers()
) -> ok | {error, closed}.
http_stream(_Exchange, _Status, _Headers) -> ?NOT_LOADED.

%% @doc Sends a part of moderate size.
-spec http_send(http_exchange(), iodata()) -> ok | {error, busy | closed}.
http_send(_Exchange, _Data) -> ?NOT_LOADED.

%% @doc Sends a part, on a dirty scheduler.
-spec http_send_large(http_exchange(), iodata()) -> ok | {error, busy | closed}.
http_send_large(_Exchange, _Data) -> ?NOT_LOADED.

%% @doc Ends a stream.
-spec http_finish(http_exchange()) -> ok | {error, closed}.
http_finish(_Exchange) -> ?NOT_LOADED.

%% @doc What becomes of the process when the client goes; `gone' if it has gone already.
-spec http_on_gone(http_exchange(), notice | exit) -> ok | gone.
http_on_gone(_Exchange, _What) -> ?NOT_LOADED.

%% @doc The status that answers for a process that ends without an answer.
-spec http_on_exit(http_exchange(), erlmcp_native_http_path:status()) -> ok.
http_on_exit(_Exchange, _Status) -> ?NOT_LOADED.

init() ->
    case is_loaded() of
        true -> reload(load());
        false -> forget()
    end.

%% The former instance of the module is gone, or keeps the library.
reload(ok) -> ok;
reload({error, {Kind, _}}) when Kind =:= upgrade; Kind =:= reload -> {error, Kind};
reload({error, Reason}) -> persistent_term:put(?STATUS_KEY, {failed, Reason}).

forget() ->
    _ = persistent_term:erase(?STATUS_KEY),
    ok.

load() ->
    erlang:load_nif(library(), 0).

%% Another process may have been faster.
status(Result) ->
    Status =
        case Result of
            ok -> loaded;
            {error, {reload, _}} -> loaded;
            {error, Reason} -> {failed, Reason}
        end,
    ok = persistent_term:put(?STATUS_KEY, Status),
    Status.

library() ->
    case code:priv_dir(erlmcp_native) of
        {error, bad_name} -> "erlmcp_native";
        Dir -> filename:join(Dir, "erlmcp_native")
    end.
