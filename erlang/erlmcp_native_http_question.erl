%% @private What a handler sends to the client in the course of a request.
-module(erlmcp_native_http_question).

-export([notify/3, ask/4]).

%% While the process that serves the request waits here it is the one to send keep-alives.
-define(KEEPALIVE_MS, 10000).

%% @doc Sends a notification; one of a subscription says which.
-spec notify(erlmcp_native_http_answer:ref(), binary(), map()) ->
    ok | {error, gone | busy | not_allowed}.
notify(Ref, Method, Params) ->
    Marked =
        case erlmcp_native_http_answer:subscription(Ref) of
            {subscription, Id} -> erlmcp_native_http_message:of_subscription(Id, Params);
            none -> Params
        end,
    Json = erlmcp_native_http_message:notification(Method, Marked),
    erlmcp_native_http_answer:ask(Ref, {send, Json}).

%% @doc Sends a request and waits for the response. Its id is one that no other client can guess.
-spec ask(erlmcp_native_http_answer:ref(), binary(), map(), pos_integer()) ->
    {ok, term()}
    | {error, {rpc, integer(), binary(), term()}}
    | {error, timeout | gone | not_allowed}.
ask(Ref, Method, Params, TimeoutMs) ->
    Id = erlmcp_native_http_initialize:id(),
    Tag = make_ref(),
    true = erlmcp_native_http_tables:begin_question(Id, Tag),
    Json = erlmcp_native_http_message:request(Id, Method, Params),
    try erlmcp_native_http_answer:ask(Ref, {ask, Id, Json}) of
        ok -> wait(Ref, Tag, erlang:monotonic_time(millisecond) + TimeoutMs);
        {error, busy} -> {error, gone};
        {error, _} = Error -> Error
    after
        erlmcp_native_http_tables:end_question(Id)
    end.

wait(Ref, Tag, Deadline) ->
    Left = max(0, Deadline - erlang:monotonic_time(millisecond)),
    receive
        {erlmcp_native_http, {response, Tag, Message}} -> outcome(Message)
    after min(Left, ?KEEPALIVE_MS) ->
        case Left =< ?KEEPALIVE_MS of
            true ->
                {error, timeout};
            false ->
                _ = erlmcp_native_http_answer:ask(Ref, keepalive),
                wait(Ref, Tag, Deadline)
        end
    end.

outcome(#{<<"error">> := #{<<"code">> := Code} = Error}) ->
    Text = maps:get(<<"message">>, Error, <<>>),
    {error, {rpc, Code, Text, maps:get(<<"data">>, Error, undefined)}};
outcome(#{<<"result">> := Result}) ->
    {ok, Result};
outcome(_) ->
    {error, {rpc, -32603, <<"The client's answer is malformed">>, undefined}}.
