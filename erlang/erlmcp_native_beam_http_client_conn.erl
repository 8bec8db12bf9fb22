%% @doc One connection of a client, as a value in its owner: being opened, or open.
-module(erlmcp_native_beam_http_client_conn).

-export([dial/3, keys/1, handle_info/2, send/3, arm/1, is_idle/1, is_flushed/1, close/1]).
-export([is_open/1, is_armed/1, is_used/1]).

-export_type([conn/0, key/0, news/0]).

%% Whatever a request has in it goes out with it.
-define(UNBOUNDED, 1 bsl 58).

%% Requests up to this size are taken for sent when they are answered.
-define(SMALL, 65536).

-record(conn, {
    phase ::
        {opening, erlmcp_native_beam_opening:opening()}
        | {open, erlmcp_native_beam_stream:stream()},
    armed = false :: boolean(),
    requests = 0 :: non_neg_integer(),
    last_size = 0 :: non_neg_integer()
}).

-opaque conn() :: #conn{}.

-type key() :: gen_tcp:socket() | reference().

-type news() ::
    {opened, conn()}
    | {failed, erlmcp_native:reason()}
    | {data, binary(), conn()}
    | {lost, erlmcp_native:reason()}.

%% @doc Starts to connect.
-spec dial(
    erlmcp_native:endpoint(),
    erlmcp_native_options:connection(),
    erlmcp_native_beam_opening:manner()
) -> conn().
dial(Endpoint, Options, Manner) ->
    #conn{phase = {opening, erlmcp_native_beam_opening:dial(Endpoint, Options, Manner)}}.

%% @doc What its messages can be told by.
-spec keys(conn()) -> [key()].
keys(#conn{phase = {opening, Opening}}) -> erlmcp_native_beam_opening:keys(Opening);
keys(#conn{phase = {open, Stream}}) -> erlmcp_native_beam_stream:keys(Stream).

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), conn()) -> news() | unknown.
handle_info(Msg, #conn{phase = {opening, Opening}} = Conn) ->
    case erlmcp_native_beam_opening:handle_info(Msg, Opening) of
        {open, Stream, _} ->
            {opened, Conn#conn{phase = {open, erlmcp_native_beam_stream:watch(Stream)}}};
        Other ->
            Other
    end;
handle_info(Msg, #conn{phase = {open, Stream}} = Conn) ->
    case erlmcp_native_beam_stream:handle_info(Msg, Stream) of
        {data, Bytes} -> {data, Bytes, Conn#conn{armed = false}};
        Other -> Other
    end.

%% @doc Sends a request, or what the kernel does not take of it later. After an error nothing of it
%% was sent.
-spec send(iodata(), Size :: pos_integer(), conn()) -> {ok | {error, closed | reset}, conn()}.
send(Wire, Size, #conn{phase = {open, Stream0}, requests = Requests} = Conn) ->
    {Result, Stream} = erlmcp_native_beam_stream:send(Stream0, Wire, Size, ?UNBOUNDED),
    Sent = Conn#conn{phase = {open, Stream}, requests = Requests + 1, last_size = Size},
    case Result of
        ok -> {ok, Sent};
        {error, reset} -> {Result, Sent};
        {error, _} -> {{error, closed}, Sent}
    end.

%% @doc Asks for the next bytes, or the end.
-spec arm(conn()) -> {ok | {error, closed}, conn()}.
arm(#conn{armed = false, phase = {open, Stream}} = Conn) ->
    {erlmcp_native_beam_stream:arm(Stream), Conn#conn{armed = true}};
arm(Conn) ->
    {ok, Conn}.

%% @doc Whether an armed connection that is to be used again has had no sign of its end, or of
%% anything else that nobody asked for.
-spec is_idle(conn()) -> boolean().
is_idle(#conn{phase = {open, Stream}, armed = Armed}) ->
    Armed andalso erlmcp_native_beam_stream:waiting(Stream) =:= none.

%% @doc Whether the last request was sent whole, as far as can be told at no cost.
-spec is_flushed(conn()) -> boolean().
is_flushed(#conn{last_size = Size}) when Size =< ?SMALL -> true;
is_flushed(#conn{phase = {open, Stream}}) ->
    element(1, erlmcp_native_beam_stream:queued(Stream)) =:= 0.

%% @doc Whether it was established.
-spec is_open(conn()) -> boolean().
is_open(#conn{phase = {Phase, _}}) -> Phase =:= open.

%% @doc Whether it is read from.
-spec is_armed(conn()) -> boolean().
is_armed(#conn{armed = Armed}) -> Armed.

%% @doc Whether the request that it carries is not its first.
-spec is_used(conn()) -> boolean().
is_used(#conn{requests = Requests}) -> Requests > 1.

%% @doc Gives up what is being opened, and closes what is open, with what was not sent.
-spec close(conn()) -> ok.
close(#conn{phase = {opening, Opening}}) -> erlmcp_native_beam_opening:cancel(Opening);
close(#conn{phase = {open, Stream}}) -> erlmcp_native_beam_stream:close(Stream, 0).
