%% @doc HTTP clients on the path `port': the pool and the protocols are in the port program.
%%
%% Of an answer the program sends as much as its window allows; the rest waits there, and makes the
%% server wait. A client whose program has ended fails what was under way and is opened again, in
%% the next program, for its next request.
-module(erlmcp_native_port_http_client).

-behaviour(erlmcp_native_http_client_path).

-include("erlmcp_native_port_http.hrl").

-export([open/2, request/2, handle_info/2, take/3, cancel/2, info/1, close/1]).

%% Bytes of an answer that may be under way or wait here.
-define(MAX_WINDOW, 262144).

%% Requests at a time on one connection over HTTP/2, as long as the program knows better.
-define(STREAMS, 100).

-define(LINK, erlmcp_native_port_http_link).
-define(ANSWER, erlmcp_native_port_http_client_answer).

-record(client, {
    origin :: erlmcp_native_http_client_path:origin(),
    options :: erlmcp_native_http_options:client(),
    window :: pos_integer(),
    max :: pos_integer(),
    link :: ?LINK:link() | none,
    %% What the client tells itself carries it.
    key = make_ref() :: reference(),
    requests = #{} :: #{number_() => ?ANSWER:answer()},
    %% Of these, those that are not over.
    active = 0 :: non_neg_integer(),
    last = 0 :: non_neg_integer()
}).

-type number_() :: pos_integer().

-type events() :: [erlmcp_native_http_client_path:event()].

%% @private
-spec open(erlmcp_native_http_client_path:origin(), erlmcp_native_http_options:client()) ->
    {ok, #client{}} | {error, erlmcp_native:reason()}.
open(#{scheme := https} = Origin, #{tls := false} = Options) ->
    {ok, #{tls := Tls}} = erlmcp_native_http_options:client(#{tls => true}),
    open(Origin, Options#{tls := Tls});
open(#{scheme := http}, #{protocols := [http2], proxy := #{}}) ->
    {error, {option, protocols, [http2]}};
open(Origin, #{high_water_bytes := HighWater} = Options) ->
    Client = #client{
        origin = Origin,
        options = Options,
        window = min(HighWater, ?MAX_WINDOW),
        max = max_requests(Options),
        link = none
    },
    case connect(Client) of
        {ok, #client{link = Link} = Opened} ->
            case ?LINK:await(?FROM_HTTP_CLIENT_OPENED, Link) of
                {ok, _} -> {ok, Opened};
                %% Nothing was looked up.
                {error, nxdomain} -> {error, {option, host, maps:get(host, Origin)}};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% The program knows the limit of the peer; what it refuses beyond this fails.
max_requests(#{protocols := Protocols, max_connections := Connections, max_queue := Queue}) ->
    case lists:member(http2, Protocols) of
        true -> max(Connections, ?STREAMS) + Queue;
        false -> Connections + Queue
    end.

%% What is told before it is open waits in the program.
connect(#client{origin = Origin, options = Options} = Client) ->
    case ?LINK:open() of
        {ok, Link} ->
            _ = ?LINK:tell(?TO_HTTP_CLIENT_OPEN, term_to_binary({Origin, Options}), Link),
            {ok, Client#client{link = Link}};
        {error, _} = Error ->
            Error
    end.

%% @private
-spec request(erlmcp_native_http_client_path:request(), #client{}) ->
    {ok, number_(), #client{}} | {error, busy | erlmcp_native:reason(), #client{}}.
request(Request, Client) ->
    case erlmcp_native_port_http_packet:client_request(Request) of
        {ok, _} when Client#client.active >= Client#client.max -> {error, busy, Client};
        {ok, Head} -> transmit(Head, body(Request), Client);
        {error, Reason} -> {error, Reason, Client}
    end.

body(#{body := none}) -> [];
body(#{body := Body}) -> Body.

transmit(Head, Body, #client{link = none} = Client) ->
    case connect(Client) of
        {ok, Connected} ->
            transmit(Head, Body, Connected);
        {error, Reason} ->
            %% Soon there may be a program again: it fails as if this one had gone now.
            self() ! {Client#client.key, Client#client.last + 1, Reason},
            add(false, Client)
    end;
transmit(Head, Body, #client{window = Window, last = Last} = Client) ->
    Packet = [<<(Last + 1):64, Window:32>>, Head | Body],
    %% If there is no program any more, word of its end is under way.
    add(tell(?TO_HTTP_CLIENT_REQUEST, Packet, Client) =:= ok, Client).

add(Sent, #client{requests = Requests, active = Active, last = Last} = Client) ->
    Number = Last + 1,
    {ok, Number, Client#client{
        requests = Requests#{Number => ?ANSWER:new(Sent)}, active = Active + 1, last = Number
    }}.

%% @private
-spec handle_info(term(), #client{}) -> {events(), #client{}} | unknown.
handle_info({Key, Number, Reason}, #client{key = Key, requests = Requests} = Client) ->
    case Requests of
        #{Number := Answer} -> lost(Number, Answer, #{reason => Reason, safe => false}, Client);
        #{} -> {[], Client}
    end;
handle_info(_, #client{link = none}) ->
    unknown;
handle_info(Msg, #client{link = Link} = Client) ->
    case ?LINK:message(Msg, Link) of
        {packet, ?FROM_HTTP_ANSWER, Packet} ->
            answered(Packet, Client);
        {packet, _, _} ->
            {[], Client};
        {lost, Reason} ->
            %% What it had not sent yet when it ended nobody knows.
            all_lost(#{reason => Reason, safe => false}, Client#client{link = none});
        {down, Reason} ->
            %% It could not be opened again.
            ok = ?LINK:forget(Link),
            all_lost(#{reason => Reason, safe => true}, Client#client{link = none});
        unknown ->
            unknown
    end.

answered(<<Number:64, Packet/binary>>, #client{requests = Requests} = Client) ->
    case Requests of
        #{Number := Answer} -> news(Number, ?ANSWER:packet(Packet, Answer), Answer, Client);
        %% It was cancelled.
        #{} -> {[], Client}
    end.

news(Number, {Notices, Answer}, Before, #client{requests = Requests, active = Active} = C0) ->
    C = C0#client{requests = Requests#{Number := Answer}},
    Events = [event(Number, Notice) || Notice <- Notices],
    case {?ANSWER:is_over(Answer), ?ANSWER:is_over(Before)} of
        {true, false} -> {Events, ended(Notices, Number, C#client{active = Active - 1})};
        _ -> {Events, C}
    end.

%% Of a request without an answer nothing is left to take.
ended([{failed, _}], Number, #client{requests = Requests} = Client) ->
    Client#client{requests = maps:remove(Number, Requests)};
ended(_, _, Client) ->
    Client.

event(Number, {head, Status, Headers}) -> {head, Number, Status, Headers};
event(Number, readable) -> {readable, Number};
event(Number, {failed, Failure}) -> {failed, Number, Failure}.

all_lost(Failure, #client{requests = Requests} = Client) ->
    maps:fold(
        fun(Number, Answer, {Events, C0}) ->
            {More, C} = lost(Number, Answer, Failure, C0),
            {More ++ Events, C}
        end,
        {[], Client},
        Requests
    ).

lost(Number, Answer, Failure, Client) ->
    case ?ANSWER:is_over(Answer) of
        true -> {[], Client};
        false -> news(Number, ?ANSWER:fail(Failure, Answer), Answer, Client)
    end.

%% @private
-spec take(number_(), pos_integer(), #client{}) ->
    {
        [binary()],
        more | armed | done | {failed, erlmcp_native_http_client_path:failure()},
        #client{}
    }.
take(Number, MaxBytes, #client{requests = Requests} = Client) ->
    case Requests of
        #{Number := Answer0} ->
            {Parts, Status, Answer} = ?ANSWER:take(MaxBytes, Answer0),
            {Parts, Status, taken(Status, Number, Answer, Client)};
        %% It is over, and was taken to its end.
        #{} ->
            {[], done, Client}
    end.

taken(Status, Number, Answer0, #client{requests = Requests, window = Window} = Client) when
    Status =:= more; Status =:= armed
->
    {Granted, Answer} = ?ANSWER:granted(Window, Answer0),
    _ = [tell(?TO_HTTP_CLIENT_GRANT, <<Number:64, Granted:32>>, Client) || Granted > 0],
    Client#client{requests = Requests#{Number := Answer}};
taken(_, Number, _, #client{requests = Requests} = Client) ->
    Client#client{requests = maps:remove(Number, Requests)}.

tell(_, _, #client{link = none}) -> {error, closed};
tell(Op, Body, #client{link = Link}) -> ?LINK:tell(Op, Body, Link).

%% @private
-spec cancel(number_(), #client{}) -> #client{}.
cancel(Number, #client{requests = Requests, active = Active} = Client) ->
    case maps:take(Number, Requests) of
        {Answer, Rest} ->
            _ = tell(?TO_HTTP_CLIENT_CANCEL, <<Number:64>>, Client),
            Ends =
                case ?ANSWER:is_over(Answer) of
                    true -> 0;
                    false -> 1
                end,
            Client#client{requests = Rest, active = Active - Ends};
        error ->
            Client
    end.

%% @private
-spec info(#client{}) ->
    #{connections := non_neg_integer(), active := non_neg_integer(), queued := non_neg_integer()}.
info(#client{link = none}) ->
    #{connections => 0, active => 0, queued => 0};
info(#client{link = Link}) ->
    {Connections, Active, Queued} = ?LINK:counts(?TO_HTTP_CLIENT_INFO, Link),
    #{connections => Connections, active => Active, queued => Queued}.

%% @private
-spec close(#client{}) -> ok.
close(#client{link = none}) -> ok;
close(#client{link = Link}) -> ?LINK:forget(Link).
