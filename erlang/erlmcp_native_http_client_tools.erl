%% @private What a client knows of the tools of a server of 2026-07-28, whose arguments it repeats
%% in headers: learnt from each `tools/list' that passes, and asked for where a server complains
%% that headers do not match.
-module(erlmcp_native_http_client_tools).

-export([listed/3, called/3, unlisted/1]).

-include_lib("kernel/include/logger.hrl").

-include("erlmcp_native_http_client.hrl").

-define(HEADER_MISMATCH, -32020).

%% @doc The answer to a `tools/list', whoever asked.
-spec listed(message(), binary(), #core{}) -> #core{}.
listed(#{from := From} = Message, Text, Core) ->
    case erlmcp_native_json:decode(Text) of
        {ok, Answer} -> learn(Message, Text, Answer, Core);
        {error, _} when From =:= client -> unlisted(Core);
        {error, _} -> ?INBOUND:frame(Text, Core)
    end.

%% @doc The answer to a `tools/call'. The first time that headers are said not to match, the tools
%% are looked up and the call is made again.
-spec called(message(), binary(), #core{}) -> #core{}.
called(#{from := owner, looked_up := true}, Text, Core) ->
    ?INBOUND:frame(Text, Core);
called(Message, Text, Core) ->
    case is_mismatch(Text) of
        true -> look_up(Message, Text, Core);
        false -> ?INBOUND:frame(Text, Core)
    end.

%% @doc The look-up has failed: what the server said stands.
-spec unlisted(#core{}) -> #core{}.
unlisted(#core{looking_up = Calls} = Core) ->
    Answer = fun({#{id := Id} = Message, Text}, #core{requests = Requests} = Acc) ->
        case ?REQUESTS:remove(Id, Requests) of
            {#{message := Message}, Rest} -> ?INBOUND:frame(Text, Acc#core{requests = Rest});
            _ -> Acc
        end
    end,
    lists:foldr(Answer, Core#core{looking_up = []}, Calls).

learn(#{body := Body, from := From} = Message, Text, Answer, #core{session = Session} = Core) ->
    First = not is_map_key(<<"cursor">>, maps:get(<<"params">>, Body, #{})),
    {Changed, Refused, Next} = ?SESSION:tools(First, Answer, Session),
    Learnt = Core#core{session = Next},
    case {From, Changed} of
        {client, _} ->
            looked_up(Message, Answer, Learnt);
        {owner, unchanged} ->
            ?INBOUND:frame(Text, Learnt);
        {owner, {changed, Less}} ->
            lists:foreach(fun warn/1, Refused),
            ?INBOUND:frame(erlmcp_native_json:encode(Less), Learnt)
    end.

warn({Name, Fault}) ->
    ?LOG_WARNING("erlmcp_native: refused tool ~0p for its x-mcp-header: ~0p", [Name, Fault]).

is_mismatch(Text) ->
    case binary:match(Text, <<"-32020">>) of
        nomatch ->
            false;
        _ ->
            case erlmcp_native_json:decode(Text) of
                {ok, #{<<"error">> := #{<<"code">> := ?HEADER_MISMATCH}}} -> true;
                _ -> false
            end
    end.

look_up(Message, Text, #core{requests = Requests, looking_up = Calls} = Core) ->
    Again = Message#{looked_up => true},
    Waits = Core#core{
        requests = ?REQUESTS:add(Again, Requests),
        looking_up = [{Again, Text} | Calls]
    },
    case Calls of
        [] -> ask(#{}, Message, Waits);
        _ -> Waits
    end.

ask(Params, #{body := #{<<"params">> := #{<<"_meta">> := Meta}}}, Core) ->
    Number = integer_to_binary(erlang:unique_integer([positive])),
    Id = <<"erlmcp_native tools ", Number/binary>>,
    {ok, Message} = ?MESSAGE:read(
        erlmcp_native_json:encode(#{
            <<"jsonrpc">> => <<"2.0">>,
            <<"id">> => Id,
            <<"method">> => <<"tools/list">>,
            <<"params">> => Params#{<<"_meta">> => Meta}
        })
    ),
    Ask = Message#{from := client},
    #core{requests = Requests} = Core,
    ?CORE:resubmit(Ask, Core#core{requests = ?REQUESTS:add(Ask, Requests)}).

looked_up(Message, #{<<"result">> := #{<<"nextCursor">> := Cursor}}, Core) when is_binary(Cursor) ->
    ask(#{<<"cursor">> => Cursor}, Message, Core);
looked_up(_, #{<<"result">> := _}, #core{looking_up = Calls} = Core) ->
    Call = fun({Message, _}, Acc) -> ?CORE:resubmit(Message, Acc) end,
    lists:foldr(Call, Core#core{looking_up = []}, Calls);
looked_up(_, _, Core) ->
    unlisted(Core).
