%% @private The messages that a client sends: what a transport has to know of them. Pure.
-module(erlmcp_native_http_client_message).

-export([read/1, initialized/0, cancelled/2, is_repeatable/1, modern_error/1]).

-export_type([message/0, from/0]).

-type from() :: owner | client.
%% Who wants to know what became of it.

-type message() :: #{
    kind := request | notification | response,
    id := integer() | binary() | undefined,
    method := binary() | undefined,
    text := binary(),
    ref := reference(),
    from := from(),
    limits => erlmcp_native_http_client_requests:limits(),
    looked_up => true,
    renewed => true,
    again => erlmcp_native_http_client_requests:again(),
    modern := none | binary(),
    body := none | map()
}.
%% `ref' tells messages of the same id apart. `limits': of time, where they are its own.
%% `looked_up': the tools were, for its sake; `renewed': so was the session. `again': how it may be
%% sent again, once it was tried. `modern': the revision that the message names itself, as all do
%% from 2026-07-28 on; their `body' is decoded.

-define(META, <<"io.modelcontextprotocol/protocolVersion">>).

%% @doc Reads one message. `batch': it is not one but an array.
-spec read(iodata()) -> {ok, message()} | {batch, binary()} | {error, invalid_message}.
read(Data) ->
    Text = iolist_to_binary(Data),
    case erlmcp_native_json:scan(Text) of
        {ok, #{kind := Kind, id := Id, method := Method}} when Kind =/= invalid, Id =/= null ->
            Message = #{
                kind => Kind,
                id => Id,
                method => Method,
                text => Text,
                ref => make_ref(),
                from => owner,
                modern => none,
                body => none
            },
            {ok, modern(Message)};
        {ok, {batch, _}} ->
            {batch, Text};
        _ ->
            {error, invalid_message}
    end.

-spec initialized() -> message().
initialized() ->
    ours(#{<<"method">> => <<"notifications/initialized">>}).

-spec cancelled(integer() | binary(), Why :: binary()) -> message().
cancelled(Id, Why) ->
    ours(#{
        <<"method">> => <<"notifications/cancelled">>,
        <<"params">> => #{<<"requestId">> => Id, <<"reason">> => Why}
    }).

%% @doc Whether a request changes nothing at the server, so that it can be sent again.
-spec is_repeatable(message()) -> boolean().
is_repeatable(#{method := Method}) ->
    lists:member(Method, [
        <<"initialize">>,
        <<"server/discover">>,
        <<"ping">>,
        <<"tools/list">>,
        <<"resources/list">>,
        <<"resources/templates/list">>,
        <<"resources/read">>,
        <<"prompts/list">>,
        <<"prompts/get">>,
        <<"completion/complete">>,
        <<"notifications/initialized">>,
        <<"notifications/cancelled">>
    ]).

%% @doc Whether only a server of 2026-07-28 or later can have answered so.
-spec modern_error(binary()) -> boolean().
modern_error(Body) ->
    case erlmcp_native_json:decode(Body) of
        {ok, #{<<"error">> := #{<<"code">> := Code}}} ->
            lists:member(Code, [-32020, -32021, -32022]);
        _ ->
            false
    end.

ours(Members) ->
    Text = erlmcp_native_json:encode(Members#{<<"jsonrpc">> => <<"2.0">>}),
    {ok, Message} = read(Text),
    Message#{from := client}.

%% Nearly all messages of the older revisions are told by this search and not decoded.
modern(#{kind := response} = Message) ->
    Message;
modern(#{text := Text} = Message) ->
    case binary:match(Text, <<"io.modelcontextprotocol">>) of
        nomatch -> Message;
        _ -> decoded(erlmcp_native_json:decode(Text), Message)
    end.

decoded({ok, #{<<"params">> := #{<<"_meta">> := #{?META := Revision}}} = Body}, Message) when
    is_binary(Revision)
->
    Message#{modern := Revision, body := Body};
decoded(_, Message) ->
    Message.
