%% @private The circuit breaker of an HTTP client, as a value in its process: that of the server's
%% origin, which all clients of this node share that have one.
-module(erlmcp_native_http_client_breaker).

-export([new/1, ask/2, sent/3, told/2]).

-export_type([breaker/0, tickets/0]).

-record(guarded, {
    key :: {http, term()},
    options :: map() | true,
    %% What is owed for the requests that are under way.
    tickets = #{} :: tickets()
}).

-type tickets() :: #{binary() | integer() => erlmcp_native_breakers:ticket()}.

-opaque breaker() :: none | #guarded{}.

-spec new(erlmcp_native_http_client_options:options()) -> breaker().
new(#{breaker := false}) -> none;
new(#{breaker := Options, url := #{origin := Origin}}) ->
    #guarded{key = {http, Origin}, options = Options}.

%% @doc Whether a message may be sent, or a batch. Only requests are counted, and only they are
%% refused.
-spec ask(iodata(), breaker()) -> {ok, tickets()} | {error, breaker_open}.
ask(_, none) ->
    {ok, #{}};
ask(Message, Guarded) ->
    case erlmcp_native_json:scan(iolist_to_binary(Message)) of
        {ok, {batch, Elements}} -> ask_each([Envelope || {_, Envelope} <- Elements], #{}, Guarded);
        {ok, Envelope} -> ask_each([Envelope], #{}, Guarded);
        {error, _} -> {ok, #{}}
    end.

ask_each([], Tickets, _) ->
    {ok, Tickets};
ask_each([#{kind := request, id := Id} | Envelopes], Tickets, Guarded) when
    not is_map_key(Id, Tickets)
->
    #guarded{key = Key, options = Options} = Guarded,
    case erlmcp_native_breakers:ask(Key, Options) of
        {ok, Ticket} ->
            ask_each(Envelopes, Tickets#{Id => Ticket}, Guarded);
        {error, breaker_open} = Open ->
            ok = give_back(Tickets),
            Open
    end;
ask_each([_ | Envelopes], Tickets, Guarded) ->
    ask_each(Envelopes, Tickets, Guarded).

%% @doc What became of the wish to send it.
-spec sent(tickets(), ok | {error, term()}, breaker()) -> breaker().
sent(New, _, Breaker) when map_size(New) =:= 0 ->
    Breaker;
sent(New, ok, #guarded{tickets = Tickets} = Breaker) ->
    Breaker#guarded{tickets = maps:merge(Tickets, New)};
sent(New, {error, _}, Breaker) ->
    ok = give_back(New),
    Breaker.

give_back(Tickets) ->
    GiveBack = fun(Ticket) -> ok = erlmcp_native_breakers:done(Ticket, cancelled) end,
    lists:foreach(GiveBack, maps:values(Tickets)).

%% @doc What the owner is told.
-spec told([erlmcp_native_http_client_core:event()], breaker()) -> breaker().
told(_, none) ->
    none;
told(_, #guarded{tickets = Tickets} = Breaker) when map_size(Tickets) =:= 0 ->
    Breaker;
told(Events, Breaker) ->
    lists:foldl(fun event/2, Breaker, Events).

event({frames, Frames}, Breaker) -> lists:foldl(fun frame/2, Breaker, Frames);
event({failed, Id, Reason}, Breaker) -> done(Id, outcome(Reason), Breaker);
event(_, Breaker) -> Breaker.

frame(Frame, Breaker) ->
    case erlmcp_native_json:scan(Frame) of
        {ok, #{kind := response, id := Id}} -> done(Id, ok, Breaker);
        _ -> Breaker
    end.

done(Id, Outcome, #guarded{tickets = Tickets} = Breaker) ->
    case maps:take(Id, Tickets) of
        {Ticket, Rest} ->
            ok = erlmcp_native_breakers:done(Ticket, Outcome),
            Breaker#guarded{tickets = Rest};
        error ->
            Breaker
    end.

%% A server that refuses a request is well.
outcome({status, Status, _}) when Status >= 500; Status =:= 429 -> failed;
outcome({status, _, _}) -> ok;
outcome({unauthorized, _}) -> ok;
outcome({forbidden, _}) -> ok;
outcome(Reason) ->
    case erlmcp_native_failure:kind(Reason) of
        other -> cancelled;
        _ -> failed
    end.
