%% @private The messages that reach a client: who waits for them, and what they say of the session.
-module(erlmcp_native_http_client_inbound).

-export([items/3, item/3, frame/2, tell/2, told/1]).

-include("erlmcp_native_http_client.hrl").

-spec items([?ANSWER:item()], #exchange{}, #core{}) -> #core{}.
items(Items, Exchange, Core) ->
    lists:foldl(fun(Item, Acc) -> item(Item, Exchange, Acc) end, Core, Items).

-spec item(?ANSWER:item(), #exchange{}, #core{}) -> #core{}.
item({message, Text}, Exchange, Core) ->
    case erlmcp_native_json:scan(Text) of
        {ok, {batch, Elements}} ->
            One = fun({Element, Envelope}, Acc) -> message(Envelope, Element, Exchange, Acc) end,
            lists:foldl(One, Core, Elements);
        {ok, Envelope} ->
            message(Envelope, Text, Exchange, Core);
        {error, _} ->
            ignore(Core)
    end;
item({endpoint, Reference}, #exchange{role = sse} = Exchange, Core) ->
    ?STREAM:endpoint(Reference, Exchange, Core);
item({endpoint, _}, _, Core) ->
    Core;
item({event_id, EventId}, #exchange{role = listen}, #core{listen = Listen} = Core) ->
    Core#core{listen = Listen#listen{event_id = EventId}};
item({retry_ms, Ms}, #exchange{role = listen}, #core{listen = Listen} = Core) ->
    Core#core{listen = Listen#listen{retry_ms = Ms}};
item(Item, Exchange, #core{requests = Requests} = Core) ->
    Heard = fun(Id, Acc) -> ?REQUESTS:heard(Id, Item, Acc) end,
    Core#core{requests = lists:foldl(Heard, Requests, ?EXCHANGE:waiting(Exchange, Core))}.

message(#{kind := response, id := Id}, Text, Exchange, #core{requests = Requests} = Core) ->
    case ?REQUESTS:remove(Id, Requests) of
        {#{message := Message, exchange := Key} = Request, Rest} ->
            #core{options = #{path := Path}} = Core,
            ok = erlmcp_native_http_client_measure:ended(Path, answered, Request),
            Answered = ?EXCHANGE:linger(Key, Core#core{requests = Rest}),
            response(Message, Text, Exchange, Answered);
        error ->
            %% It is late, or was asked for by nobody.
            ignore(Core)
    end;
message(#{kind := invalid}, _, _, Core) ->
    ignore(Core);
message(_, Text, Exchange, Core) ->
    frame(Text, ?EXCHANGE:touch(Exchange, Core)).

response(#{method := <<"initialize">>, from := From}, Text, Exchange, Core) ->
    #exchange{url = #{origin := Origin}, answer = Answer} = Exchange,
    Decoded =
        case erlmcp_native_json:decode(Text) of
            {ok, Map} -> Map;
            {error, _} -> #{}
        end,
    Headers = ?ANSWER:headers(Answer),
    #core{session = Session} = Core,
    Next = ?SESSION:answered(Decoded, Headers, Origin, Session),
    Agreed = ?SESSION:is_legacy(Next),
    initialized(From, Agreed, Text, Core#core{session = Next});
response(#{method := <<"tools/list">>, modern := Modern} = Message, Text, _, Core) when
    Modern =/= none
->
    ?TOOLS:listed(Message, Text, Core);
response(#{method := <<"tools/call">>, modern := Modern} = Message, Text, _, Core) when
    Modern =/= none
->
    ?TOOLS:called(Message, Text, Core);
response(_, Text, _, Core) ->
    frame(Text, Core).

initialized(owner, true, Text, #core{options = #{initialized := auto}} = Core) ->
    Confirmation = ?MESSAGE:initialized(),
    ?CORE:flush(?CORE:resubmit(Confirmation, frame(Text, Core)));
initialized(owner, _, Text, Core) ->
    ?CORE:flush(frame(Text, Core));
initialized(client, true, _, #core{restarting = Confirmation} = Core) ->
    ?CORE:resubmit(Confirmation#{from := client}, Core);
initialized(client, false, _, Core) ->
    ?STREAM:lose_session(Core).

%% @doc A message for the owner.
-spec frame(binary(), #core{}) -> #core{}.
frame(Text, #core{out = [{frames, Frames} | Out]} = Core) ->
    Core#core{out = [{frames, [Text | Frames]} | Out]};
frame(Text, #core{out = Out} = Core) ->
    Core#core{out = [{frames, [Text]} | Out]}.

ignore(#core{ignored = Ignored} = Core) ->
    Core#core{ignored = Ignored + 1}.

%% @doc The events since the last time, in order.
-spec told(#core{}) -> {[event()], #core{}}.
told(#core{out = Out} = Core) ->
    {lists:foldl(fun in_order/2, [], Out), Core#core{out = []}}.

in_order({frames, Frames}, Events) -> [{frames, lists:reverse(Frames)} | Events];
in_order(Event, Events) -> [Event | Events].

-spec tell(event(), #core{}) -> #core{}.
tell(Event, #core{out = Out} = Core) ->
    Core#core{out = [Event | Out]}.
