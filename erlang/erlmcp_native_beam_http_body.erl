%% @doc The body of a request, collected within a limit.
-module(erlmcp_native_beam_http_body).

-export([new/2, push/2, left/1, limit/2]).

-export_type([body/0, framing/0]).

-type framing() :: {length, non_neg_integer()} | chunked.

-record(body, {
    %% Of a body with a length, what is to come of it.
    rest :: non_neg_integer() | erlmcp_native_beam_http_chunked:decoder(),
    max :: non_neg_integer(),
    size = 0 :: non_neg_integer(),
    %% Newest first.
    parts = [] :: [binary()]
}).

-opaque body() :: #body{}.

-spec new(framing(), erlmcp_native_http_options:listener()) -> body().
new({length, Size}, #{max_body_bytes := Max}) ->
    #body{rest = Size, max = Max};
new(chunked, #{max_body_bytes := Max} = Options) ->
    #body{rest = erlmcp_native_beam_http_chunked:new(Options), max = Max}.

%% @doc Reads on. `done' comes with the whole body and what follows it.
-spec push(binary(), body()) ->
    {more, body()}
    | {done, binary(), Rest :: binary()}
    | {error, body_too_large | erlmcp_native_beam_http_head:refusal()}.
push(Bin, #body{rest = Left, parts = []}) when is_integer(Left), byte_size(Bin) >= Left ->
    <<Whole:Left/binary, Rest/binary>> = Bin,
    {done, Whole, Rest};
push(Bin, #body{rest = Left, parts = Parts}) when is_integer(Left), byte_size(Bin) >= Left ->
    <<Last:Left/binary, Rest/binary>> = Bin,
    {done, whole([Last | Parts]), Rest};
push(Bin, #body{rest = Left, size = Size, parts = Parts} = Body) when is_integer(Left) ->
    Came = byte_size(Bin),
    {more, Body#body{rest = Left - Came, size = Size + Came, parts = add([Bin], Parts)}};
push(Bin, #body{rest = Decoder0, parts = Parts} = Body) ->
    case erlmcp_native_beam_http_chunked:decode(Bin, Decoder0) of
        {more, More, Decoder} -> within(More, Body#body{rest = Decoder});
        {done, More, Rest} ->
            case within(More, Body) of
                {more, _} -> {done, whole(add(More, Parts)), Rest};
                Error -> Error
            end;
        {error, Refusal, _} -> {error, Refusal}
    end.

within(More, #body{size = Size0, max = Max, parts = Parts} = Body) ->
    case Size0 + iolist_size(More) of
        Size when Size > Max -> {error, body_too_large};
        Size -> {more, Body#body{size = Size, parts = add(More, Parts)}}
    end.

add(More, Parts) ->
    lists:reverse([Part || Part <- More, Part =/= <<>>], Parts).

whole([Only]) -> Only;
whole(Parts) -> iolist_to_binary(lists:reverse(Parts)).

%% @doc How much is to come, if that is known.
-spec left(body()) -> non_neg_integer() | unknown.
left(#body{rest = Left}) when is_integer(Left) -> Left;
left(#body{}) -> unknown.

%% @doc Allows so much more than has come.
-spec limit(non_neg_integer(), body()) -> body().
limit(More, #body{size = Size, max = Max} = Body) ->
    Body#body{max = min(Max, Size + More)}.
