%% @doc Stands between the wire and an erlmcp process that was not written for every lawful
%% message. Pure: the transport carries out what it says.
%%
%% For either receiver it answers what cannot be read (-32700) and what is no JSON-RPC message
%% (-32600), and splits batches where the protocol revision has them: each element is judged by
%% itself, and the answers go out together. The revision is read from the answer to `initialize';
%% since 2025-06-18 there are no batches.
%%
%% <ul>
%% <li>A `client' never sees a request, which would end it: `ping' is answered with an empty
%% result, the others with -32601. An answer to `initialize' without the objects that it must
%% hold reaches it as an error. What is unanswered when the connection is lost is answered with
%% an error (-32000): the client itself is told nothing of the loss and would wait.</li>
%% <li>A `server' never sees a response, nor a request whose params it would break on: those
%% are answered with -32602. When it dies, what it had not answered is answered with -32603,
%% and so is a request whose answer is too large to be sent.
%% Its answers to requests of an earlier connection are dropped: their ids may be in use
%% again.</li>
%% </ul>
%%
%% Notifications are never answered. Everything that was not simply passed on is counted,
%% see {@link counters/0}.
-module(erlmcp_native_guard).

-export([new/1, inbound/2, oversized/1, outbound/2, unsendable/2]).
-export([connection_lost/1, receiver_lost/1, info/1, counters/0]).

-export_type([guard/0, receiver/0, outcome/0]).

-type receiver() :: client | server.
-type id() :: integer() | binary() | null.
-type outcome() :: {Deliver :: [binary()], Reply :: [iodata()], guard()}.

-type counter() ::
    parse_errors
    | invalid_requests
    | invalid_params
    | invalid_results
    | requests_refused
    | pings_answered
    | responses_dropped
    | notifications_dropped
    | batches_split
    | batches_refused
    | answers_stale
    | answers_in_place
    | answers_unsendable
    | oversized.

-type request() :: call | initialize | {batch, erlmcp_native_batches:key()}.

-record(guard, {
    receiver :: receiver(),
    revision = unknown :: unknown | binary(),
    %% Requests that were passed on and not answered, with their number: nothing keeps a peer
    %% from using an id twice.
    in_flight = #{} :: #{id() => {pos_integer(), request()}},
    %% The same, of connections that were lost.
    stale = #{} :: #{id() => {pos_integer(), request()}},
    batches = erlmcp_native_batches:new() :: erlmcp_native_batches:batches(),
    counters = #{} :: #{counter() => pos_integer()}
}).

-opaque guard() :: #guard{}.

-define(PARSE_ERROR, -32700).
-define(INVALID_REQUEST, -32600).
-define(METHOD_NOT_FOUND, -32601).
-define(INVALID_PARAMS, -32602).
-define(INTERNAL_ERROR, -32603).
-define(CONNECTION_LOST, -32000).

-define(LAST_REVISION_WITH_BATCHES, <<"2025-03-26">>).

%% Bounds on what a peer can make the guard hold or send.
-define(MAX_BATCH_ELEMENTS, 1000).
-define(MAX_IN_FLIGHT, 16384).

%% @doc The counters that {@link info/1} may hold, and what they count.
-spec counters() -> [{counter(), counter, Help :: string()}].
counters() ->
    [
        {parse_errors, counter, "messages that are not JSON"},
        {invalid_requests, counter, "messages that are not JSON-RPC, or break its rules on ids"},
        {invalid_params, counter, "requests whose params the server would break on"},
        {invalid_results, counter, "answers to initialize that the client would break on"},
        {requests_refused, counter, "requests of a server that the client would break on"},
        {pings_answered, counter, "pings of a server, answered for the client"},
        {responses_dropped, counter, "responses that the server would break on"},
        {notifications_dropped, counter, "notifications that the receiver would break on"},
        {batches_split, counter, "batches"},
        {batches_refused, counter, "batches that are empty, too long, or not in the revision"},
        {answers_stale, counter, "answers to requests of an earlier connection"},
        {answers_in_place, counter, "requests answered because the connection or server was lost"},
        {answers_unsendable, counter, "answers that make no frame, replaced by an error"},
        {oversized, counter, "messages over the limit that were skipped"}
    ].

%% @doc A guard for one connection after the other to the same receiver.
-spec new(receiver()) -> guard().
new(Receiver) when Receiver =:= client; Receiver =:= server ->
    #guard{receiver = Receiver}.

%% @doc Judges a message from the peer.
-spec inbound(binary(), guard()) -> outcome().
inbound(Message, Guard) ->
    case erlmcp_native_json:scan(Message) of
        {ok, {batch, Elements}} ->
            batch(Elements, Guard);
        {ok, Envelope} ->
            single(judge(Message, Envelope, alone, Guard));
        {error, {batch_limit, _}} ->
            single(answer(null, ?INVALID_REQUEST, <<"Batch too long">>, batches_refused, Guard));
        {error, {depth_limit, _}} ->
            single(answer(null, ?INVALID_REQUEST, <<"Nested too deep">>, invalid_requests, Guard));
        {error, _} ->
            single(answer(null, ?PARSE_ERROR, <<"Parse error">>, parse_errors, Guard))
    end.

%% @doc Judges a message that was over the limit and skipped.
-spec oversized(guard()) -> outcome().
oversized(Guard) ->
    single(answer(null, ?INVALID_REQUEST, <<"Message too large">>, oversized, Guard)).

%% @doc Judges a message from the receiver: what of it, or instead of it, is to be sent now.
-spec outbound(iodata(), guard()) -> {[iodata()], guard()}.
outbound(Data, #guard{receiver = server, in_flight = InFlight, stale = Stale} = Guard) when
    map_size(InFlight) =:= 0, map_size(Stale) =:= 0
->
    {[Data], Guard};
outbound(Data, #guard{receiver = Receiver} = Guard) ->
    Message = iolist_to_binary(Data),
    case {Receiver, erlmcp_native_json:scan(Message)} of
        {server, {ok, #{kind := response, id := Id}}} ->
            answered(Id, Message, Guard);
        {client, {ok, #{kind := request, id := Id, method := Method}}} ->
            {[Message], passed(Id, request(Method), Guard)};
        _ ->
            {[Message], Guard}
    end.

%% @doc What is sent in place of answers that make no frame, the most likely because they are over
%% the limit: the peer would wait for them.
-spec unsendable(iodata(), guard()) -> {[iodata()], guard()}.
unsendable(Data, #guard{receiver = server} = Guard) ->
    case erlmcp_native_json:scan(iolist_to_binary(Data)) of
        {ok, {batch, Elements}} ->
            Errors = lists:append([in_place_of(Envelope) || {_, Envelope} <- Elements]),
            Array = erlmcp_native_batches:array(lists:reverse(Errors)),
            {Array, count(answers_unsendable, length(Errors), Guard)};
        {ok, Envelope} ->
            Errors = in_place_of(Envelope),
            {Errors, count(answers_unsendable, length(Errors), Guard)};
        {error, _} ->
            {[], Guard}
    end;
unsendable(_, Guard) ->
    {[], Guard}.

%% @doc The connection was lost: what the receiver gets to hear in place of answers.
-spec connection_lost(guard()) -> {Deliver :: [binary()], guard()}.
connection_lost(#guard{receiver = client, in_flight = InFlight} = Guard) ->
    Errors = [
        iolist_to_binary(error_response(Id, ?CONNECTION_LOST, <<"Connection lost">>))
     || Id <- maps:keys(InFlight)
    ],
    {Errors, count(answers_in_place, length(Errors), forget(Guard))};
connection_lost(#guard{in_flight = InFlight, stale = Stale} = Guard) ->
    Sum = fun(_, {A, Kind}, {B, _}) -> {A + B, Kind} end,
    {[], (forget(Guard))#guard{stale = maps:merge_with(Sum, InFlight, Stale)}}.

%% @doc The receiver died: what the peer gets to hear in place of answers.
-spec receiver_lost(guard()) -> {Reply :: [iodata()], guard()}.
receiver_lost(#guard{in_flight = InFlight, revision = Revision} = Guard) ->
    {Replies, Answered} = maps:fold(fun answer_in_place/3, {[], Guard}, InFlight),
    {Replies, (forget(Answered))#guard{revision = Revision, stale = #{}}}.

%% @doc What has been learnt and counted. Counters at 0 are left out.
-spec info(guard()) ->
    #{
        receiver := receiver(),
        revision := unknown | binary(),
        in_flight := non_neg_integer(),
        counters := #{counter() => pos_integer()}
    }.
info(#guard{receiver = Receiver, revision = Revision, in_flight = InFlight} = Guard) ->
    #{
        receiver => Receiver,
        revision => Revision,
        in_flight => map_size(InFlight),
        counters => Guard#guard.counters
    }.

%% ---- messages from the peer

single({pass, Message, Guard}) -> {[Message], [], Guard};
single({pass, Message, Id, Kind, Guard}) -> {[Message], [], passed(Id, Kind, Guard)};
single({answer, Answer, Guard}) -> {[], [Answer], Guard};
single({drop, Guard}) -> {[], [], Guard}.

judge(Message, #{kind := request, id := Id, method := Method} = Envelope, Place, Guard) when
    is_integer(Id); is_binary(Id)
->
    case Guard of
        #guard{receiver = client} -> refuse(Id, Method, Guard);
        #guard{receiver = server} -> request(Message, Envelope, Place, Guard)
    end;
judge(Message, #{kind := response, id := Id}, _, #guard{receiver = client} = Guard) ->
    response(Message, Id, Guard);
judge(_, #{kind := response}, _, Guard) ->
    {drop, count(responses_dropped, Guard)};
judge(Message, #{kind := notification, method := Method, params := Params}, _, Guard) ->
    case erlmcp_native_guard_rules:bears_notification(Guard#guard.receiver, Method, Params) of
        true -> {pass, Message, Guard};
        false -> {drop, count(notifications_dropped, Guard)}
    end;
judge(_, Envelope, _, Guard) ->
    %% An id that is null or a fraction is none that an answer could carry.
    Id =
        case Envelope of
            #{id := Given} when is_integer(Given); is_binary(Given) -> Given;
            #{} -> null
        end,
    answer(Id, ?INVALID_REQUEST, <<"Invalid Request">>, invalid_requests, Guard).

refuse(Id, <<"ping">>, Guard) ->
    Answer = erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => #{}
    }),
    {answer, Answer, count(pings_answered, Guard)};
refuse(Id, _, Guard) ->
    answer(Id, ?METHOD_NOT_FOUND, <<"Method not found">>, requests_refused, Guard).

request(Message, #{id := Id, method := Method, params := Params}, Place, Guard) ->
    case check_request(Message, Id, Method, Params, Place, Guard) of
        ok ->
            {pass, Message, Id, request(Method), Guard};
        {invalid_requests, Text} ->
            answer(Id, ?INVALID_REQUEST, Text, invalid_requests, Guard);
        invalid_params ->
            answer(Id, ?INVALID_PARAMS, <<"Invalid params">>, invalid_params, Guard)
    end.

check_request(_, _, <<"initialize">>, _, batched, _) ->
    {invalid_requests, <<"initialize must not be part of a batch">>};
check_request(Message, Id, Method, Params, Place, #guard{in_flight = InFlight}) ->
    case InFlight of
        #{Id := {_, Kind}} when Place =:= batched; is_tuple(Kind) ->
            {invalid_requests, <<"id is in use">>};
        #{} ->
            case erlmcp_native_guard_rules:bears_request(Method, Params, Message) of
                true -> ok;
                false -> invalid_params
            end
    end.

response(Message, Id, #guard{in_flight = InFlight} = Guard) ->
    case InFlight of
        #{Id := {_, initialize}} -> initialized(Message, Id, done(Id, Guard));
        #{Id := _} -> {pass, Message, done(Id, Guard)};
        #{} -> {pass, Message, Guard}
    end.

initialized(Message, Id, Guard) ->
    case erlmcp_native_json:decode(Message) of
        {ok, #{<<"result">> := Result}} ->
            case erlmcp_native_guard_rules:bears_result(Result) of
                true -> {pass, Message, learn(Result, Guard)};
                false -> invalid_result(Id, Guard)
            end;
        _ ->
            {pass, Message, Guard}
    end.

invalid_result(Id, Guard) ->
    Text = <<"The server's answer to initialize is invalid">>,
    Answer = iolist_to_binary(error_response(Id, ?INTERNAL_ERROR, Text)),
    {pass, Answer, count(invalid_results, Guard)}.

%% ---- batches

batch(Elements, Guard) ->
    case batch_allowed(Elements, Guard) of
        true ->
            split(Elements, count(batches_split, Guard));
        {false, Text} ->
            single(answer(null, ?INVALID_REQUEST, Text, batches_refused, Guard))
    end.

batch_allowed([], _) ->
    {false, <<"Empty batch">>};
batch_allowed(_, #guard{revision = Revision}) when
    Revision =/= unknown, Revision > ?LAST_REVISION_WITH_BATCHES
->
    {false, <<"This protocol revision has no batches">>};
batch_allowed(Elements, #guard{in_flight = InFlight}) ->
    Length = length(Elements),
    case Length =< ?MAX_BATCH_ELEMENTS andalso map_size(InFlight) + Length =< ?MAX_IN_FLIGHT of
        true -> true;
        false -> {false, <<"Batch too long">>}
    end.

split(Elements, #guard{batches = Batches} = Guard) ->
    Key = erlmcp_native_batches:next(Batches),
    Step = fun({Message, Envelope}, {Deliver, Answers, Asked, Acc}) ->
        case judge(Message, Envelope, batched, Acc) of
            {pass, Passed, Next} ->
                {[Passed | Deliver], Answers, Asked, Next};
            {pass, Passed, Id, _, Next} ->
                {[Passed | Deliver], Answers, Asked + 1, passed(Id, {batch, Key}, Next)};
            {answer, Answer, Next} ->
                {Deliver, [Answer | Answers], Asked, Next};
            {drop, Next} ->
                {Deliver, Answers, Asked, Next}
        end
    end,
    {Deliver, Answers, Asked, Judged} = lists:foldl(Step, {[], [], 0, Guard}, Elements),
    {Reply, Opened} = erlmcp_native_batches:open(Key, Asked, Answers, Batches),
    {lists:reverse(Deliver), Reply, Judged#guard{batches = Opened}}.

gather(Key, Answer, #guard{batches = Batches} = Guard) ->
    {Reply, Rest} = erlmcp_native_batches:add(Key, Answer, Batches),
    {Reply, Guard#guard{batches = Rest}}.

%% ---- messages from the receiver

request(<<"initialize">>) -> initialize;
request(_) -> call.

answered(Id, Message, #guard{in_flight = InFlight, stale = Stale} = Guard) ->
    case {Stale, InFlight} of
        {#{Id := {Count, Kind}}, _} ->
            Rest = less(Id, Count, Kind, Stale),
            {[], count(answers_stale, Guard#guard{stale = Rest})};
        {_, #{Id := {_, Kind}}} ->
            %% The server answers in order: what it has not answered by now of an earlier
            %% connection, it never will.
            answer_to(Kind, Message, done(Id, Guard#guard{stale = #{}}));
        _ ->
            {[Message], Guard}
    end.

answer_to(call, Message, Guard) ->
    {[Message], Guard};
answer_to({batch, Key}, Message, Guard) ->
    gather(Key, Message, Guard);
answer_to(initialize, Message, Guard) ->
    case erlmcp_native_json:decode(Message) of
        {ok, #{<<"result">> := #{} = Result}} -> {[Message], learn(Result, Guard)};
        _ -> {[Message], Guard}
    end.

in_place_of(#{kind := response, id := Id}) when is_integer(Id); is_binary(Id) ->
    [error_response(Id, ?INTERNAL_ERROR, <<"The answer cannot be sent">>)];
in_place_of(_) ->
    [].

answer_in_place(Id, {Count, Kind}, {Replies, Guard}) ->
    Error = error_response(Id, ?INTERNAL_ERROR, <<"The server is not available">>),
    {Sent, Next} =
        case Kind of
            {batch, Key} -> gather(Key, Error, Guard);
            _ -> {lists:duplicate(Count, Error), Guard}
        end,
    {Sent ++ Replies, count(answers_in_place, Count, Next)}.

%% ---- common

learn(#{<<"protocolVersion">> := Revision}, Guard) when is_binary(Revision) ->
    Guard#guard{revision = Revision};
learn(_, Guard) ->
    Guard.

%% Beyond the bound requests are passed on unseen; their answers are, too.
passed(Id, Kind, #guard{in_flight = InFlight} = Guard) ->
    case InFlight of
        #{Id := {Count, First}} ->
            Guard#guard{in_flight = InFlight#{Id := {Count + 1, First}}};
        #{} when map_size(InFlight) < ?MAX_IN_FLIGHT ->
            Guard#guard{in_flight = InFlight#{Id => {1, Kind}}};
        #{} ->
            Guard
    end.

done(Id, #guard{in_flight = InFlight} = Guard) ->
    #{Id := {Count, Kind}} = InFlight,
    Guard#guard{in_flight = less(Id, Count, Kind, InFlight)}.

less(Id, 1, _, Requests) -> maps:remove(Id, Requests);
less(Id, Count, Kind, Requests) -> Requests#{Id := {Count - 1, Kind}}.

forget(Guard) ->
    Guard#guard{revision = unknown, in_flight = #{}, batches = erlmcp_native_batches:new()}.

answer(Id, Code, Text, Counter, Guard) ->
    {answer, error_response(Id, Code, Text), count(Counter, Guard)}.

error_response(Id, Code, Text) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"error">> => #{<<"code">> => Code, <<"message">> => Text}
    }).

count(Counter, Guard) ->
    count(Counter, 1, Guard).

count(_, 0, Guard) ->
    Guard;
count(Counter, N, #guard{counters = Counters} = Guard) ->
    Add = fun(Value) -> Value + N end,
    Guard#guard{counters = maps:update_with(Counter, Add, N, Counters)}.
