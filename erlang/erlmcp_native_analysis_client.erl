%% @private A client over a connection that carries framed messages, as the analyses use it: for
%% TCP and for stdio.
-module(erlmcp_native_analysis_client).

-export([open/3, request/3, handle_info/2, close/1]).

-export_type([state/0]).

-opaque state() :: erlmcp_native_analysis_link:conn().

%% An id that no request of a load has.
-define(INITIALIZE_ID, 0).

-spec open(erlmcp_native_analysis_subject:spec(), term(), map()) ->
    {ok, state()} | {error, erlmcp_native_analysis_subject:reason()}.
open(#{path := Path, timeout_ms := TimeoutMs}, Endpoint, Options) ->
    Deadline = erlang:monotonic_time(millisecond) + TimeoutMs,
    Given = maps:merge(#{decode => json}, Options),
    case erlmcp_native_analysis_link:dial(Endpoint, Path, Given, TimeoutMs) of
        {ok, Conn} -> initialize(Conn, Deadline);
        {error, _} = Error -> Error
    end.

initialize(Conn, Deadline) ->
    Request = erlmcp_native_analysis_call:initialize(?INITIALIZE_ID),
    case erlmcp_native_analysis_link:send(Request, Conn) of
        {ok, Sent} ->
            case await(Sent, Deadline, []) of
                {ok, Next} -> confirm(Next);
                {error, _} = Error -> closed(Error, Conn)
            end;
        {{error, _} = Error, _} ->
            closed(Error, Conn)
    end.

closed(Error, Conn) ->
    ok = erlmcp_native_analysis_link:close(Conn),
    Error.

confirm(Conn) ->
    case erlmcp_native_analysis_link:send(erlmcp_native_analysis_call:initialized(), Conn) of
        {ok, Sent} -> {ok, Sent};
        {{error, _} = Error, _} -> closed(Error, Conn)
    end.

await(Conn, Deadline, Others) ->
    receive
        Msg ->
            case handle_info(Msg, Conn) of
                unknown -> await(Conn, Deadline, [Msg | Others]);
                {Events, Next} -> initialized(answer(Events), Next, Deadline, Others)
            end
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        given_back(Others, {error, timeout})
    end.

initialized(none, Conn, Deadline, Others) -> await(Conn, Deadline, Others);
initialized(ok, Conn, _, Others) -> given_back(Others, {ok, Conn});
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
request(Conn, _, Json) ->
    erlmcp_native_analysis_link:send(Json, Conn).

-spec handle_info(term(), state()) -> {[erlmcp_native_analysis_subject:event()], state()} | unknown.
handle_info(Msg, Conn) ->
    case erlmcp_native_analysis_link:handle_info(Msg, Conn) of
        {Events, Next} -> {events(Events), Next};
        unknown -> unknown
    end.

-spec close(state()) -> ok.
close(Conn) ->
    erlmcp_native_analysis_link:close(Conn).

events([]) -> [];
events([connected | Events]) -> events(Events);
events([{items, Items} | Events]) -> answers(Items, Events);
events([Event | Events]) -> [Event | events(Events)].

answers([], Events) -> events(Events);
answers([Item | Items], Events) ->
    case outcome(Item) of
        {Id, Outcome} when is_integer(Id) -> [{answer, Id, Outcome} | answers(Items, Events)];
        _ -> answers(Items, Events)
    end.

outcome({json, Term}) -> erlmcp_native_analysis_call:outcome(Term);
outcome(_) -> none.
