%% @doc The body of the request that is being served: whether it is there, who waits for it, and
%% what its being there or not means for the connection.
-module(erlmcp_native_beam_http_intake).

-export([new/3, to_serve/1, read/4, push/2, expired/1, closed/1, is_read/1, deadline/1]).
-export([kept/1, rest/1]).

-export_type([intake/0]).

%% A body up to this size that has come with its head goes to the serving process at once. It is
%% also what is read of a body that nobody wants so that the connection can be kept.
-define(SMALL, 65536).

-record(intake, {
    body ::
        {complete, binary()}
        | {pending, erlmcp_native_beam_http_body:body()}
        | {failed, body_too_large | timeout},
    %% The client waits to be asked for it.
    expect :: boolean(),
    %% When it has to be there.
    limit :: deadline(),
    reader = none :: none | reader(),
    %% When the reader will have waited enough.
    deadline = infinity :: deadline()
}).

-opaque intake() :: #intake{}.

-type reader() :: reference().
%% An alias, and the mark of the answer.

-type deadline() :: infinity | integer().

%% @doc A body as it came with its head. `Limit' counts from now if the client is free to send.
-spec new(
    {complete, binary()} | {pending, erlmcp_native_beam_http_body:body()},
    Expect :: boolean(),
    Limit :: integer()
) -> intake().
new({pending, _} = Body, false, Limit) -> #intake{body = Body, expect = false, limit = Limit};
new(Body, Expect, _) -> #intake{body = Body, expect = Expect, limit = infinity}.

%% @doc What of it the serving process is started with.
-spec to_serve(intake()) -> {complete, binary()} | pending.
to_serve(#intake{body = {complete, Whole} = Body}) when byte_size(Whole) =< ?SMALL -> Body;
to_serve(#intake{}) -> pending.

%% @doc Answers the reader or has it wait until `Deadline'. `ask': the client is to be told to send
%% the body, for which it has until `Limit'.
-spec read(reader(), deadline(), Limit :: integer(), intake()) ->
    {answered | wait | ask, intake()}.
read(From, _, _, #intake{body = {complete, Whole}} = I) ->
    ok = answer(From, {ok, Whole}),
    {answered, I};
read(From, _, _, #intake{body = {failed, Why}} = I) ->
    ok = answer(From, {error, Why}),
    {answered, I};
read(From, Deadline, Limit, #intake{expect = true} = I) ->
    {ask, waits(From, Deadline, I#intake{expect = false, limit = Limit})};
read(From, Deadline, _, I) ->
    {wait, waits(From, Deadline, I)}.

%% An atom is larger than any number.
waits(From, Deadline, #intake{limit = Limit} = I) ->
    I#intake{reader = From, deadline = min(Deadline, Limit)}.

%% @doc More of it. `done' comes with what follows it.
-spec push(binary(), intake()) ->
    {more | failed, intake()}
    | {done, Rest :: binary(), intake()}
    | {bad, erlmcp_native_beam_http_head:refusal()}.
push(Data, #intake{body = {pending, Body}, reader = From} = I) ->
    case erlmcp_native_beam_http_body:push(Data, Body) of
        {more, More} ->
            {more, I#intake{body = {pending, More}}};
        {done, Whole, Rest} ->
            ok = answer(From, {ok, Whole}),
            {done, Rest, was_read({complete, Whole}, I)};
        {error, body_too_large} ->
            ok = answer(From, {error, body_too_large}),
            {failed, was_read({failed, body_too_large}, I)};
        {error, Status} ->
            ok = answer(From, {error, closed}),
            {bad, Status}
    end.

was_read(Body, I) ->
    I#intake{body = Body, reader = none, deadline = infinity}.

%% @doc The reader has waited enough, or the client has had its time.
-spec expired(intake()) -> intake().
expired(#intake{body = Body, reader = From, deadline = Deadline, limit = Limit} = I) ->
    ok = answer(From, {error, timeout}),
    case Deadline of
        Limit -> was_read({failed, timeout}, I);
        _ -> was_read(Body, I)
    end.

%% @doc Nothing more will come.
-spec closed(intake()) -> ok.
closed(#intake{reader = From}) -> answer(From, {error, closed}).

answer(none, _) ->
    ok;
answer(From, Result) ->
    From ! {From, Result},
    ok.

-spec is_read(intake()) -> boolean().
is_read(#intake{reader = From}) -> From =/= none.

-spec deadline(intake()) -> deadline().
deadline(#intake{deadline = Deadline}) -> Deadline.

%% @doc Whether the connection can be kept after the answer: `rest' if what is left of the body is
%% read first.
-spec kept(intake()) -> yes | rest | no.
kept(#intake{body = {complete, _}}) -> yes;
kept(#intake{body = {failed, _}}) -> no;
kept(#intake{expect = true}) -> no;
kept(#intake{body = {pending, Body}}) ->
    case erlmcp_native_beam_http_body:left(Body) of
        Left when is_integer(Left), Left > ?SMALL -> no;
        _ -> rest
    end.

%% @doc To be pushed what is left, and by when; too much of it is `failed'.
-spec rest(intake()) -> {intake(), deadline()}.
rest(#intake{body = {pending, Body}, limit = Limit} = I) ->
    Limited = erlmcp_native_beam_http_body:limit(?SMALL, Body),
    {I#intake{body = {pending, Limited}, reader = none}, Limit}.
