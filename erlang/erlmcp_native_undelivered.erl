%% @private What a peer is told whose messages found no server: nobody else answers its requests.
-module(erlmcp_native_undelivered).

-export([answers/1]).

-define(INTERNAL_ERROR, -32603).

%% @doc An error for each request among the messages, one array for those of a batch.
-spec answers([binary()]) -> [binary()].
answers(Messages) ->
    lists:append([answer(erlmcp_native_json:scan(Message)) || Message <- Messages]).

answer({ok, {batch, Elements}}) ->
    case lists:append([answer({ok, Envelope}) || {_, Envelope} <- Elements]) of
        [] -> [];
        Errors -> [iolist_to_binary([$[, lists:join($,, Errors), $]])]
    end;
answer({ok, #{kind := request, id := Id}}) ->
    [
        erlmcp_native_json:encode(#{
            <<"jsonrpc">> => <<"2.0">>,
            <<"id">> => Id,
            <<"error">> => #{
                <<"code">> => ?INTERNAL_ERROR,
                <<"message">> => <<"The server is not available">>
            }
        })
    ];
answer(_) ->
    [].
