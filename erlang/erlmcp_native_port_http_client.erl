%% @doc HTTP clients on the path `port': the pool and the protocols are in the port program.
%%
%% Of an answer the program sends as much as its window allows; the rest waits there, and makes the
%% server wait. A client whose program has ended fails what was under way and is opened again, in
%% the next program, for its next request.
-module(erlmcp_native_port_http_client).

-behaviour(erlmcp_native_http_client_path).

-include("erlmcp_native_port.hrl").
-include("erlmcp_native_port_http.hrl").

-export([open/2, request/2, handle_info/2, take/3, cancel/2, info/1, close/1]).

%% Bytes of an answer that may be under way or wait here.
-define(MAX_WINDOW, 262144).

%% Looking at certificates takes a while.
-define(OPEN_MS, 30000).

%% Requests at a time on one connection over HTTP/2, as long as the program knows better.
-define(STREAMS, 100).

-define(ANSWER, erlmcp_native_port_http_client_answer).

-record(link, {
    id :: erlmcp_native_port:id(),
    handle :: erlmcp_native_port:handle(),
    %% Should that process be killed, the program is gone with it.
    router :: reference()
}).

-record(client, {
    origin :: erlmcp_native_http_client_path:origin(),
    options :: erlmcp_native_http_options:client(),
    window :: pos_integer(),
    max :: pos_integer(),
    link :: #link{} | none,
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
        {ok, Opened} -> opened(Opened);
        {error, _} = Error -> Error
    end.

%% The program knows the limit of the peer; what it refuses beyond this fails.
max_requests(#{protocols := Protocols, max_connections := Connections, max_queue := Queue}) ->
    case lists:member(http2, Protocols) of
        true -> max(Connections, ?STREAMS) + Queue;
        false -> Connections + Queue
    end.

connect(#client{origin = Origin, options = Options} = Client) ->
    case erlmcp_native_port:open(none) of
        {ok, Id, Handle} ->
            Terms = term_to_binary({Origin, Options}),
            _ = erlmcp_native_port:command(Handle, ?TO_HTTP_CLIENT_OPEN, Id, Terms),
            Router = monitor(process, erlmcp_native_port),
            {ok, Client#client{link = #link{id = Id, handle = Handle, router = Router}}};
        {error, _} = Error ->
            Error
    end.

opened(#client{link = #link{id = Id, router = Router}, origin = Origin} = Client) ->
    Result =
        receive
            {erlmcp_native_io, Id, <<?FROM_HTTP_CLIENT_OPENED, _:64>>} ->
                ok;
            {erlmcp_native_io, Id, <<?FROM_DOWN, _:64, Reason/binary>>} ->
                {error, binary_to_term(Reason, [safe])};
            {erlmcp_native_io, Id, {down, Reason}} ->
                {error, Reason};
            {'DOWN', Router, process, _, _} ->
                {error, port_program}
        after ?OPEN_MS -> {error, timeout}
        end,
    case Result of
        ok ->
            {ok, Client};
        {error, Why} ->
            ok = unlink_program(Client),
            {error, open_error(Why, Origin)}
    end.

%% Nothing was looked up.
open_error(nxdomain, #{host := Host}) -> {option, host, Host};
open_error(Reason, _) -> Reason.

unlink_program(#client{link = #link{id = Id, router = Router}}) ->
    true = demonitor(Router, [flush]),
    erlmcp_native_port:forget(Id);
unlink_program(#client{link = none}) ->
    ok.

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
            %% Soon there may be a program again, and it is told as if this one had gone now.
            self() ! {Client#client.key, Client#client.last + 1, Reason},
            add(Client)
    end;
transmit(Head, Body, #client{link = #link{id = Id, handle = Handle}} = Client0) ->
    {ok, Number, Client} = add(Client0),
    Packet = [<<Number:64, (Client#client.window):32>>, Head | Body],
    _ = erlmcp_native_port:command(Handle, ?TO_HTTP_CLIENT_REQUEST, Id, Packet),
    {ok, Number, Client}.

add(#client{requests = Requests, active = Active, last = Last} = Client) ->
    Number = Last + 1,
    {ok, Number, Client#client{
        requests = Requests#{Number => ?ANSWER:new()}, active = Active + 1, last = Number
    }}.

%% @private
-spec handle_info(term(), #client{}) -> {events(), #client{}} | unknown.
handle_info({erlmcp_native_io, Id, Message}, #client{link = #link{id = Id}} = Client) ->
    message(Message, Client);
handle_info({'DOWN', Router, process, _, _}, #client{link = #link{router = Router}} = Client) ->
    down(port_program, false, Client);
handle_info({Key, Number, Reason}, #client{key = Key, requests = Requests} = Client) ->
    case Requests of
        #{Number := Answer} -> lost(Number, Answer, #{reason => Reason, safe => true}, Client);
        #{} -> {[], Client}
    end;
handle_info(_, _) ->
    unknown.

message(<<?FROM_HTTP_ANSWER, _:64, Number:64, Packet/binary>>, Client) ->
    #client{requests = Requests} = Client,
    case Requests of
        #{Number := Answer} -> news(Number, ?ANSWER:packet(Packet, Answer), Answer, Client);
        %% It was cancelled.
        #{} -> {[], Client}
    end;
%% It could not be opened again.
message(<<?FROM_DOWN, _:64, Reason/binary>>, Client) ->
    ok = unlink_program(Client),
    down(binary_to_term(Reason, [safe]), true, Client);
message({down, Reason}, Client) ->
    down(Reason, false, Client);
message(_, Client) ->
    {[], Client}.

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

%% What the program had not sent yet when it ended nobody knows.
down(Reason, Safe, #client{requests = Requests, link = #link{router = Router}} = Client) ->
    true = demonitor(Router, [flush]),
    Failure = #{reason => Reason, safe => Safe},
    maps:fold(
        fun(Number, Answer, {Events, C0}) ->
            {More, C} = lost(Number, Answer, Failure, C0),
            {More ++ Events, C}
        end,
        {[], Client#client{link = none}},
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

tell(Op, Body, #client{link = #link{id = Id, handle = Handle}}) ->
    erlmcp_native_port:command(Handle, Op, Id, Body);
tell(_, _, #client{link = none}) ->
    {error, closed}.

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
info(#client{link = #link{id = Id, handle = Handle}}) ->
    {Connections, Active, Queued} =
        erlmcp_native_port_http_call:counts(Handle, ?TO_HTTP_CLIENT_INFO, Id),
    #{connections => Connections, active => Active, queued => Queued}.

%% @private
-spec close(#client{}) -> ok.
close(Client) ->
    unlink_program(Client).
