%% @doc What goes out of an HTTP connection: the socket, and what is known of the bytes that it
%% has not got rid of.
%%
%% The socket takes all that it is given. How much waits in it costs half as much to ask as a
%% send, so it is asked only when as much was handed to it as may wait.
-module(erlmcp_native_beam_http_out).

-export([new/3, head/5, write/3, part/4, end_stream/1, room/1, has_room/1, pending/1]).
-export([has_moved/2]).
-export([look_later/2, looked/2, first_look/0, arm/1, shutdown/1, close/1, abort/1]).

-export_type([out/0]).

%% How often the queue is looked at: nobody tells when it has room.
-define(FIRST_LOOK_MS, 1).
-define(LAST_LOOK_MS, 50).

-record(out, {
    wire :: erlmcp_native_beam_http_wire:wire(),
    link :: erlmcp_native_beam_http_exchange:link(),
    max :: pos_integer(),
    %% At least as much as waits.
    handed = 0 :: non_neg_integer(),
    %% Of the stream.
    stream = 0 :: non_neg_integer(),
    %% A look is due.
    looking = false :: boolean(),
    clock = none :: erlmcp_native_beam_http_answer:clock()
}).

-opaque out() :: #out{}.

-spec new(
    erlmcp_native_beam_http_wire:wire(), erlmcp_native_beam_http_exchange:link(), pos_integer()
) -> out().
new(Wire, Link, Max) ->
    #out{wire = Wire, link = Link, max = Max}.

%% @doc The head of an answer of now.
-spec head(
    erlmcp_native_http_path:status(),
    iodata(),
    erlmcp_native_beam_http_answer:framing(),
    Keep :: boolean(),
    out()
) -> {iolist(), out()}.
head(Status, Fields, Framing, Keep, #out{clock = Clock} = O) ->
    {_, Date} = Now = erlmcp_native_beam_http_answer:date(Clock),
    About = #{date => Date, keep => Keep},
    {erlmcp_native_beam_http_answer:head(Status, Fields, Framing, About), O#out{clock = Now}}.

-spec write(iodata(), Size :: non_neg_integer(), out()) -> {ok, out()} | {error, closed}.
write(Data, Size, #out{wire = Wire, handed = Handed} = O) ->
    case erlmcp_native_beam_http_wire:send(Wire, Data) of
        ok -> {ok, O#out{handed = Handed + Size}};
        {error, closed} -> {error, closed}
    end.

%% @doc A part of a stream, of which the serving process knows that it waits.
-spec part(iodata(), pos_integer(), erlmcp_native_beam_http_answer:framing(), out()) ->
    {ok, out()} | {error, closed}.
part(_, Size, none, #out{link = Link} = O) ->
    ok = erlmcp_native_beam_http_exchange:left(Link, Size),
    {ok, O};
part(Data, Size, chunked, O) ->
    settle(Size, write(erlmcp_native_beam_http_answer:chunk(Data, Size), Size, O));
part(Data, Size, until_close, O) ->
    settle(Size, write(Data, Size, O)).

settle(Size, {ok, #out{stream = Stream, max = Max} = O0}) ->
    O = O0#out{stream = Stream + Size},
    case 2 * (Stream + Size) >= Max of
        true -> {ok, element(2, pending(O))};
        false -> {ok, O}
    end;
settle(_, {error, closed}) ->
    {error, closed}.

-spec end_stream(out()) -> out().
end_stream(#out{link = Link} = O) ->
    ok = erlmcp_native_beam_http_exchange:reset(Link),
    O#out{stream = 0}.

%% @doc Whether the stream can go on: half of what may wait is free.
-spec room(out()) -> {boolean(), out()}.
room(#out{link = Link, max = Max} = O0) ->
    {_, O} = pending(O0),
    {2 * erlmcp_native_beam_http_exchange:queued(Link) =< Max, O}.

%% @doc Whether another request may be answered before the peer reads more.
-spec has_room(out()) -> {boolean(), out()}.
has_room(#out{handed = Handed, max = Max} = O) when Handed < Max ->
    {true, O};
has_room(#out{max = Max} = O0) ->
    {Pending, O} = pending(O0),
    {Pending < Max, O}.

%% @doc Bytes that wait for the peer.
-spec pending(out()) -> {non_neg_integer(), out()}.
pending(#out{wire = Wire, link = Link, stream = Stream} = O) ->
    Pending = erlmcp_native_beam_http_wire:pending(Wire),
    Left = min(Stream, Pending),
    ok = erlmcp_native_beam_http_exchange:left(Link, Stream - Left),
    {Pending, O#out{handed = Pending, stream = Left}}.

%% @doc Whether the peer has read between two looks.
-spec has_moved(out(), out()) -> boolean().
has_moved(#out{handed = Before}, #out{handed = Now}) -> Now < Before.

-spec first_look() -> pos_integer().
first_look() -> ?FIRST_LOOK_MS.

%% @doc Sends the caller `{look, Ms}' then, unless it will get one already.
-spec look_later(pos_integer(), out()) -> out().
look_later(Ms, #out{looking = false} = O) ->
    _ = erlang:send_after(Ms, self(), {look, Ms}),
    O#out{looking = true};
look_later(_, O) ->
    O.

%% @doc Takes note of the message. Returns when to look the next time.
-spec looked(pos_integer(), out()) -> {pos_integer(), out()}.
looked(Ms, O) ->
    {min(2 * Ms, ?LAST_LOOK_MS), O#out{looking = false}}.

%% The socket.

-spec arm(out()) -> ok | {error, closed}.
arm(#out{wire = Wire}) -> erlmcp_native_beam_http_wire:arm(Wire).

-spec shutdown(out()) -> ok.
shutdown(#out{wire = Wire}) -> erlmcp_native_beam_http_wire:shutdown(Wire).

-spec close(out()) -> ok.
close(#out{wire = Wire}) -> erlmcp_native_beam_http_wire:close(Wire).

-spec abort(out()) -> ok.
abort(#out{wire = Wire}) -> erlmcp_native_beam_http_wire:abort(Wire).
