%% @doc One request's answer between its connection and its owner: what has arrived of the body and
%% has not been taken, how it ended, and what the owner is to be told.
-module(erlmcp_native_beam_http_client_exchange).

-export([new/2, received/2, lost/2, fail/2, take/2]).
-export([ending/1, has_head/1, is_untouched/1, has_room/2]).

-export_type([exchange/0, notice/0, ending/0]).

-record(exchange, {
    response :: erlmcp_native_beam_http_response:response(),
    has_head = false :: boolean(),
    parts = queue:new() :: queue:queue(binary()),
    bytes = 0 :: non_neg_integer(),
    ending = none :: ending(),
    %% Whether the owner is to be told that there is something to take.
    armed = true :: boolean()
}).

-opaque exchange() :: #exchange{}.

-type ending() ::
    none | {done, keep | close} | {failed, erlmcp_native_http_client_path:failure()}.

-type notice() ::
    {head, 200..599, erlmcp_native_beam_http_response:headers()}
    | readable
    | {failed, erlmcp_native_http_client_path:failure()}.
%% `failed': before there was a head. A failure after it is found by taking.

%% @doc The answer to a request, whose head may have `MaxHead' bytes.
-spec new(Method :: binary(), MaxHead :: pos_integer()) -> exchange().
new(Method, MaxHead) ->
    #exchange{response = erlmcp_native_beam_http_response:new(Method, MaxHead)}.

%% @doc Bytes have come from the server.
-spec received(binary(), exchange()) -> {[notice()], exchange()}.
received(Bytes, #exchange{ending = none, response = Response0} = X) ->
    {Events, Response} = erlmcp_native_beam_http_response:feed(Bytes, Response0),
    happened(Events, X#exchange{response = Response});
received(_, X) ->
    {[], X}.

%% @doc The connection is gone.
-spec lost(erlmcp_native:reason(), exchange()) -> {[notice()], exchange()}.
lost(Reason, #exchange{response = Response} = X) ->
    case Reason =:= closed andalso erlmcp_native_beam_http_response:eof(Response) of
        [_ | _] = Events -> happened(Events, X);
        _ -> fail(#{reason => Reason, safe => false}, X)
    end.

%% @doc Nothing more will come.
-spec fail(erlmcp_native_http_client_path:failure(), exchange()) -> {[notice()], exchange()}.
fail(Failure, #exchange{ending = none, has_head = true} = X) ->
    tell(X#exchange{ending = {failed, Failure}});
fail(Failure, #exchange{ending = none} = X) ->
    {[{failed, Failure}], X#exchange{ending = {failed, Failure}}};
fail(_, X) ->
    {[], X}.

happened([{head, _, _} = Head | Events], X0) ->
    {Notices, X} = happened(Events, X0#exchange{has_head = true}),
    {[Head | Notices], X};
happened([{data, Data} | Events], #exchange{parts = Parts, bytes = Bytes} = X) ->
    happened(Events, X#exchange{
        parts = queue:in(Data, Parts),
        bytes = Bytes + byte_size(Data)
    });
happened([{done, _} = Done], X) ->
    tell(X#exchange{ending = Done});
happened([fault], X) ->
    fail(#{reason => protocol, safe => false}, X);
happened([], X) ->
    tell(X).

tell(#exchange{armed = true, bytes = Bytes, ending = Ending} = X) when
    Bytes > 0; Ending =/= none
->
    {[readable], X#exchange{armed = false}};
tell(X) ->
    {[], X}.

%% @doc The first part, and more as long as all are within `Max' bytes.
-spec take(Max :: pos_integer(), exchange()) ->
    {[binary()], more | armed | done | {failed, erlmcp_native_http_client_path:failure()},
        exchange()}.
take(Max, #exchange{parts = Parts0, bytes = Bytes} = X0) ->
    {Taken, Size, Parts} = take(Parts0, Max, [], 0),
    X = X0#exchange{parts = Parts, bytes = Bytes - Size},
    case {queue:is_empty(Parts), X#exchange.ending} of
        {false, _} -> {Taken, more, X};
        {true, none} -> {Taken, armed, X#exchange{armed = true}};
        {true, {done, _}} -> {Taken, done, X};
        {true, {failed, _} = Failed} -> {Taken, Failed, X}
    end.

take(Parts, Max, Acc, Size) ->
    case queue:peek(Parts) of
        {value, Part} when Acc =:= []; Size + byte_size(Part) =< Max ->
            take(queue:drop(Parts), Max, [Part | Acc], Size + byte_size(Part));
        _ ->
            {lists:reverse(Acc), Size, Parts}
    end.

%% @doc How it ended.
-spec ending(exchange()) -> ending().
ending(#exchange{ending = Ending}) -> Ending.

%% @doc Whether the owner knows status and headers.
-spec has_head(exchange()) -> boolean().
has_head(#exchange{has_head = HasHead}) -> HasHead.

%% @doc Whether the server has not sent a byte.
-spec is_untouched(exchange()) -> boolean().
is_untouched(#exchange{response = Response}) ->
    erlmcp_native_beam_http_response:is_untouched(Response).

%% @doc Whether more is to be read ahead of the owner.
-spec has_room(HighWater :: pos_integer(), exchange()) -> boolean().
has_room(HighWater, #exchange{bytes = Bytes}) -> Bytes < HighWater.
