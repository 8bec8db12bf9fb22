%% @private Event streams as they go out: their head, their events, and a client that is slow to
%% read.
-module(erlmcp_native_http_out).

-export([open/2, send/2, keepalive/1, send_last/2]).

-type exchange() :: erlmcp_native_http_path:exchange().

%% How long the last message of a stream waits for room.
-define(ROOM_TIMEOUT_MS, 60000).

%% @doc Begins a stream.
-spec open(exchange(), erlmcp_native_http_path:headers()) -> ok | {error, closed}.
open(Exchange, Headers) ->
    erlmcp_native_http_path:stream(Exchange, 200, [
        {<<"content-type">>, <<"text/event-stream">>},
        {<<"cache-control">>, <<"no-cache">>},
        {<<"x-accel-buffering">>, <<"no">>}
        | Headers
    ]).

-spec send(exchange(), erlmcp_native_sse:fields()) -> ok | {error, busy | closed}.
send(Exchange, Fields) ->
    erlmcp_native_http_path:send(Exchange, erlmcp_native_sse:encode(Fields)).

%% @doc Where something waits to be read there is no need of more.
-spec keepalive(exchange()) -> ok | {error, closed}.
keepalive(Exchange) ->
    case erlmcp_native_http_path:send(Exchange, erlmcp_native_sse:comment()) of
        {error, busy} -> ok;
        Result -> Result
    end.

%% @doc Sends what nothing follows, when there is room for it.
-spec send_last(exchange(), erlmcp_native_sse:fields()) -> ok | {error, closed}.
send_last(Exchange, Fields) ->
    send_last(Exchange, Fields, erlang:monotonic_time(millisecond) + ?ROOM_TIMEOUT_MS).

send_last(Exchange, Fields, Deadline) ->
    case send(Exchange, Fields) of
        {error, busy} ->
            case room(Exchange, Deadline) of
                ok -> send_last(Exchange, Fields, Deadline);
                {error, closed} = Error -> Error
            end;
        Result ->
            Result
    end.

room(Exchange, Deadline) ->
    receive
        Msg ->
            case erlmcp_native_http_path:handle_info(Msg, Exchange) of
                writable -> ok;
                gone -> {error, closed};
                unknown -> room(Exchange, Deadline)
            end
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        {error, closed}
    end.
