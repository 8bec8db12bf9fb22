%% @private Batches of JSON-RPC, which 2025-03-26 alone has: several messages in one POST. Each
%% request in it has its own response, its own time and its own end; what befalls the POST befalls
%% each message as if it had been sent alone.
-module(erlmcp_native_http_client_batch).

-export([read/1, messages/1, ids/1, is_mixed/1, waiting/2, each/3]).

-export_type([batch/0]).

-include("erlmcp_native_http_client.hrl").

-type batch() :: {Text :: binary(), [message(), ...]}.

%% What servers take as well.
-define(MAX_MESSAGES, 100).

%% @doc `initialize' must not be in one (2025-03-26, lifecycle), nor a message that names a revision
%% itself.
-spec read(binary()) -> {ok, batch()} | {error, invalid_message}.
read(Text) ->
    case erlmcp_native_json:scan(Text, #{max_batch => ?MAX_MESSAGES}) of
        {ok, {batch, [_ | _] = Elements}} ->
            Messages = [?MESSAGE:read(Element) || {Element, _} <- Elements],
            case lists:all(fun is_allowed/1, Messages) of
                true -> {ok, {Text, [Message || {ok, Message} <- Messages]}};
                false -> {error, invalid_message}
            end;
        _ ->
            {error, invalid_message}
    end.

is_allowed({ok, #{method := Method, modern := none}}) -> Method =/= <<"initialize">>;
is_allowed(_) -> false.

-spec messages(batch()) -> [message(), ...].
messages({_, Messages}) -> Messages.

%% @doc Of its requests.
-spec ids(batch()) -> [id()].
ids({_, Messages}) -> [Id || #{kind := request, id := Id} <- Messages].

%% @doc Whether there is something in it that is not a request.
-spec is_mixed(batch()) -> boolean().
is_mixed({_, Messages}) -> lists:any(fun(#{kind := Kind}) -> Kind =/= request end, Messages).

%% @doc The requests that wait for their responses on this exchange.
-spec waiting(#exchange{}, #core{}) -> [id()].
waiting(#exchange{role = {batch, Batch}, key = Key}, #core{requests = Requests}) ->
    [Id || Id <- ids(Batch), {ok, #{exchange := At}} <- [?REQUESTS:find(Id, Requests)], At =:= Key].

%% @doc Does with each message whose fate is open what is done with one that was sent alone.
-spec each(fun((#exchange{}, #core{}) -> #core{}), #exchange{}, #core{}) -> #core{}.
each(Do, #exchange{role = {batch, Batch}} = Exchange, Core) ->
    One = fun(Message, Acc) ->
        Alone = Exchange#exchange{role = {post, Message}},
        case ?EXCHANGE:still_wanted(Alone, Acc) of
            true -> Do(Alone, Acc);
            false -> Acc
        end
    end,
    lists:foldl(One, Core, messages(Batch)).
