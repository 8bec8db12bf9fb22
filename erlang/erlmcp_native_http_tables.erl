%% @private Who is there: the sessions of all listeners, the requests that are under way in them,
%% and the questions that wait for a client's answer. Read and written by the processes of requests
%% without a call; this process owns the tables and removes what processes that were killed have
%% left.
-module(erlmcp_native_http_tables).

-behaviour(gen_server).
-behaviour(erlmcp_native_metrics).

-export([start_link/0, metrics/0, count/1]).
-export([enter_session/1, leave_session/1, session/1, sessions_of/1, touch/1, idle_ms/1]).
-export([begin_request/4, end_request/0, requests/2, is_busy/1, of_listener/1]).
-export([begin_question/2, address_question/2, end_question/1, question/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([session/0, what/0]).

-type session() :: #{
    id := binary(),
    pid := pid(),
    key := erlmcp_native_http_config:key(),
    principal := term(),
    revision := binary(),
    state := term(),
    bound := boolean(),
    clock := atomics:atomics_ref()
}.

-type what() :: {request, Id :: integer() | binary() | batch} | stream.

-define(SESSIONS, erlmcp_native_http_sessions).
-define(REQUESTS, erlmcp_native_http_requests).
-define(QUESTIONS, erlmcp_native_http_questions).

-define(SWEEP_MS, 30000).

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        gauge(http_sessions, ?SESSIONS, <<"Sessions of HTTP servers">>),
        gauge(http_session_requests, ?REQUESTS, <<"Requests and streams under way in them">>),
        gauge(http_questions, ?QUESTIONS, <<"Questions of HTTP servers that wait for an answer">>)
    ].

gauge(Name, Table, Help) ->
    #{
        name => Name,
        kind => gauge,
        group => session,
        help => Help,
        read => {?MODULE, count, [Table]}
    }.

%% @doc How many there are, if the table is there.
-spec count(atom()) -> non_neg_integer() | undefined.
count(Table) -> ets:info(Table, size).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-spec enter_session(session()) -> boolean().
enter_session(#{id := Id} = Session) ->
    ets:insert(?SESSIONS, {Id, Session}).

-spec leave_session(binary()) -> true.
leave_session(Id) ->
    ets:delete(?SESSIONS, Id).

-spec session(binary()) -> {ok, session()} | error.
session(Id) ->
    try ets:lookup(?SESSIONS, Id) of
        [{_, Session}] -> {ok, Session};
        [] -> error
    catch
        %% The application is stopping.
        error:badarg -> error
    end.

%% @doc The processes of a listener's sessions.
-spec sessions_of(erlmcp_native_http_config:key()) -> [pid()].
sessions_of(Key) ->
    ets:select(?SESSIONS, [{{'_', #{key => Key, pid => '$1'}}, [], ['$1']}]).

%% @doc Notes that a session is in use.
-spec touch(session()) -> ok.
touch(#{clock := Clock}) ->
    atomics:put(Clock, 1, erlang:monotonic_time(millisecond)).

-spec idle_ms(session()) -> integer().
idle_ms(#{clock := Clock}) ->
    erlang:monotonic_time(millisecond) - atomics:get(Clock, 1).

%% @doc Enters a process that serves a request or a stream. Keyed by process: an entry is made and
%% removed for each request, while somebody looks for one by its id only to cancel it.
-spec begin_request(pid(), binary() | none, what(), erlmcp_native_http_config:key()) -> true.
begin_request(Pid, Session, What, Key) ->
    ets:insert(?REQUESTS, {Pid, Session, What, Key}).

-spec end_request() -> true.
end_request() ->
    ets:delete(?REQUESTS, self()).

%% @doc The processes that serve a session: those of the request with an id, all
%% `requests', or streams as well.
-spec requests(binary(), what() | requests | all) -> [pid()].
requests(Session, requests) ->
    ets:select(?REQUESTS, [{{'$1', Session, {request, '_'}, '_'}, [], ['$1']}]);
requests(Session, all) ->
    ets:select(?REQUESTS, [{{'$1', Session, '_', '_'}, [], ['$1']}]);
requests(Session, What) ->
    ets:select(?REQUESTS, [{{'$1', Session, What, '_'}, [], ['$1']}]).

-spec is_busy(binary()) -> boolean().
is_busy(Session) ->
    lists:any(fun is_process_alive/1, requests(Session, all)).

-spec of_listener(erlmcp_native_http_config:key()) -> [pid()].
of_listener(Key) ->
    ets:select(?REQUESTS, [{{'$1', '_', '_', Key}, [], ['$1']}]).

%% @doc Enters the calling process as one that asks something.
-spec begin_question(binary(), reference()) -> true.
begin_question(Id, Ref) ->
    ets:insert(?QUESTIONS, {Id, nobody, self(), Ref}).

%% @doc Says in which session, if in any, the question is asked; false if nobody asks any more.
-spec address_question(binary(), binary() | none) -> boolean().
address_question(Id, Session) ->
    ets:update_element(?QUESTIONS, Id, {2, Session}).

-spec end_question(binary()) -> true.
end_question(Id) ->
    ets:delete(?QUESTIONS, Id).

-spec question(binary()) -> {ok, {Session :: binary() | none | nobody, pid(), reference()}} | error.
question(Id) ->
    case ets:lookup(?QUESTIONS, Id) of
        [{_, Session, Pid, Ref}] -> {ok, {Session, Pid, Ref}};
        [] -> error
    end.

%% @private
-spec init([]) -> {ok, []}.
init([]) ->
    Shared = [named_table, public, {read_concurrency, true}],
    Written = [named_table, public, {write_concurrency, true}],
    ?SESSIONS = ets:new(?SESSIONS, Shared),
    ?REQUESTS = ets:new(?REQUESTS, Written),
    ?QUESTIONS = ets:new(?QUESTIONS, Written),
    sweep_later(),
    {ok, []}.

%% @private
-spec handle_call(term(), gen_server:from(), []) -> {reply, term(), []}.
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), []) -> {noreply, []}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), []) -> {noreply, []}.
handle_info({?MODULE, sweep}, State) ->
    sweep(?REQUESTS, 1),
    sweep(?QUESTIONS, 3),
    sweep_later(),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

sweep(Table, At) ->
    Dead = fun(Entry, Keys) ->
        case is_process_alive(element(At, Entry)) of
            true -> Keys;
            false -> [element(1, Entry) | Keys]
        end
    end,
    lists:foreach(fun(Key) -> ets:delete(Table, Key) end, ets:foldl(Dead, [], Table)).

sweep_later() ->
    _ = erlang:send_after(?SWEEP_MS, self(), {?MODULE, sweep}),
    ok.
