%% @private The circuit breaker of an HTTP client, as a value in its process: that of the server's
%% origin, which all clients of this node share that have one.
-module(erlmcp_native_http_client_breaker).

-export([new/1, ask/2, sent/3, told/2]).

-export_type([breaker/0]).

-record(guarded, {
    key :: {http, term()},
    options :: map() | true,
    %% What is owed for the requests that are under way.
    tickets = #{} :: #{binary() | integer() => erlmcp_native_breakers:ticket()}
}).

-opaque breaker() :: none | #guarded{}.

-spec new(erlmcp_native_http_client_options:options()) -> breaker().
new(#{breaker := false}) -> none;
new(#{breaker := Options, url := #{origin := Origin}}) ->
    #guarded{key = {http, Origin}, options = Options}.

%% @doc Whether a message may be sent. Only requests are counted, and only they are refused. A batch
%% is one call, whose outcome is that of its first request: counted one by one, more of them than
%% a breaker has probes would never be let through, and so never close it.
-spec ask(iodata(), breaker()) ->
    {ok, none | {binary() | integer(), erlmcp_native_breakers:ticket()}} | {error, breaker_open}.
ask(_, none) ->
    {ok, none};
ask(Message, #guarded{key = Key, options = Options}) ->
    case requests(erlmcp_native_json:scan(iolist_to_binary(Message))) of
        [Id | _] ->
            case erlmcp_native_breakers:ask(Key, Options) of
                {ok, Ticket} -> {ok, {Id, Ticket}};
                {error, breaker_open} = Open -> Open
            end;
        [] ->
            {ok, none}
    end.

requests({ok, #{kind := request, id := Id}}) -> [Id];
requests({ok, {batch, Elements}}) -> [Id || {_, #{kind := request, id := Id}} <- Elements];
requests(_) -> [].

%% @doc What became of the wish to send it.
-spec sent(none | {binary() | integer(), erlmcp_native_breakers:ticket()}, term(), breaker()) ->
    breaker().
sent(none, _, Breaker) ->
    Breaker;
sent({Id, Ticket}, ok, #guarded{tickets = Tickets} = Breaker) ->
    Breaker#guarded{tickets = Tickets#{Id => Ticket}};
sent({_, Ticket}, {error, _}, Breaker) ->
    ok = erlmcp_native_breakers:done(Ticket, cancelled),
    Breaker.

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
