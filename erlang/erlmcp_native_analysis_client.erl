%% @private A client over a connection that carries framed messages, as the analyses use it: for
%% TCP and for stdio.
-module(erlmcp_native_analysis_client).

-export([open/3, request/3, handle_info/2, close/1]).

-export_type([state/0]).

-record(client, {
    conn :: erlmcp_native_analysis_link:conn(),
    batch :: erlmcp_native_analysis_batch:batch()
}).

-opaque state() :: #client{}.

%% An id that no request of a load has.
-define(INITIALIZE_ID, 0).

-spec open(erlmcp_native_analysis_subject:spec(), term(), map()) ->
    {ok, state()} | {error, erlmcp_native_analysis_subject:reason()}.
open(#{path := Path, timeout_ms := TimeoutMs, batch := Batch}, Endpoint, Options) ->
    Deadline = erlang:monotonic_time(millisecond) + TimeoutMs,
    Given = maps:merge(#{decode => json}, Options),
    case erlmcp_native_analysis_link:dial(Endpoint, Path, Given, TimeoutMs) of
        {ok, _Unasked, Conn} ->
            Client = #client{conn = Conn, batch = erlmcp_native_analysis_batch:new(Batch)},
            initialize(Client, revision(Batch), Deadline);
        {error, _} = Error ->
            Error
    end.

%% The only one that has batches.
revision(1) -> <<"2025-06-18">>;
revision(_) -> <<"2025-03-26">>.

initialize(Client, Revision, Deadline) ->
    Request = erlmcp_native_analysis_call:initialize(?INITIALIZE_ID, Revision),
    case sent(Request, Client) of
        {ok, Sent} ->
            case await(Sent, Deadline, []) of
                {ok, Next} -> confirm(Next);
                {error, _} = Error -> closed(Error, Client)
            end;
        {{error, _} = Error, _} ->
            closed(Error, Client)
    end.

sent(Json, #client{conn = Conn} = Client) ->
    {Result, Next} = erlmcp_native_analysis_link:send(Json, Conn),
    {Result, Client#client{conn = Next}}.

closed(Error, Client) ->
    ok = close(Client),
    Error.

confirm(Client) ->
    case sent(erlmcp_native_analysis_call:initialized(), Client) of
        {ok, Sent} -> {ok, Sent};
        {{error, _} = Error, _} -> closed(Error, Client)
    end.

await(Client, Deadline, Others) ->
    receive
        Msg ->
            case handle_info(Msg, Client) of
                unknown -> await(Client, Deadline, [Msg | Others]);
                {Events, Next} -> initialized(answer(Events), Next, Deadline, Others)
            end
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        given_back(Others, {error, timeout})
    end.

initialized(none, Client, Deadline, Others) -> await(Client, Deadline, Others);
initialized(ok, Client, _, Others) -> given_back(Others, {ok, Client});
initialized({error, _} = Error, _, _, Others) -> given_back(Others, Error).

given_back(Others, Result) ->
    lists:foreach(fun(Msg) -> self() ! Msg end, lists:reverse(Others)),
    Result.

answer([]) -> none;
answer([{answer, ?INITIALIZE_ID, ok} | _]) -> ok;
answer([{answer, ?INITIALIZE_ID, {error, Why}} | _]) -> {error, {initialize, Why}};
answer([{down, Reason} | _]) -> {error, Reason};
answer([_ | Events]) -> answer(Events).

-spec request(state(), pos_integer(), iodata()) ->
    {ok | {error, busy | erlmcp_native:reason()}, state()}.
request(#client{batch = Batch} = Client, Id, Json) ->
    case erlmcp_native_analysis_batch:is_full(Batch) of
        true ->
            %% It did not fit the outbound queue.
            {{error, busy}, Client};
        false ->
            Next = erlmcp_native_analysis_batch:add(Id, Json, Batch),
            case erlmcp_native_analysis_batch:is_full(Next) of
                true -> flush(Next, Client);
                false -> {ok, Client#client{batch = Next}}
            end
    end.

%% One call is refused as it is; a batch that is complete waits for room.
flush(Batch, Client) ->
    case erlmcp_native_analysis_batch:take(Batch) of
        empty ->
            {ok, Client};
        {{Ids, Body}, Empty} ->
            case sent(Body, Client) of
                {ok, Next} ->
                    {ok, Next#client{batch = Empty}};
                {{error, busy}, Next} when length(Ids) > 1 ->
                    {ok, Next#client{batch = Batch}};
                {{error, _} = Error, Next} ->
                    {Error, Next#client{batch = Empty}}
            end
    end.

-spec handle_info(term(), state()) -> {[erlmcp_native_analysis_subject:event()], state()} | unknown.
handle_info(Msg, #client{conn = Conn, batch = Batch} = Client) ->
    case erlmcp_native_analysis_link:handle_info(Msg, Conn) of
        {Events, Next} ->
            retried(events(Events), Client#client{conn = Next});
        unknown ->
            case erlmcp_native_analysis_batch:is_flush(Msg, Batch) of
                true ->
                    {_, Next} = flush(Batch, Client),
                    {[], Next};
                false ->
                    unknown
            end
    end.

retried(Events, #client{batch = Batch} = Client) ->
    case lists:member(writable, Events) of
        true ->
            {_, Next} = flush(Batch, Client),
            {Events, Next};
        false ->
            {Events, Client}
    end.

-spec close(state()) -> ok.
close(#client{conn = Conn}) ->
    erlmcp_native_analysis_link:close(Conn).

events([]) -> [];
events([connected | Events]) -> events(Events);
events([{items, Items} | Events]) -> answers(Items, Events);
events([Event | Events]) -> [Event | events(Events)].

answers([], Events) -> events(Events);
answers([Item | Items], Events) ->
    outcomes(Item) ++ answers(Items, Events).

outcomes({json, Answers}) when is_list(Answers) ->
    lists:append([outcomes({json, Answer}) || Answer <- Answers]);
outcomes({json, Term}) ->
    case erlmcp_native_analysis_call:outcome(Term) of
        {Id, Outcome} when is_integer(Id) -> [{answer, Id, Outcome}];
        _ -> []
    end;
outcomes(_) ->
    [].
