%% @doc A request that is being served, as its connection sees it: the process that serves it, what
%% that process wishes, how far the answer is, and what it counts as.
-module(erlmcp_native_beam_http_serving).

-export([start/5, method/1, is_served_by/2, release/2, keep/1]).
-export([intake/1, set_intake/2, stream/1, begin_stream/2, on_gone/2, on_exit/2, on_exit/1]).
-export([busy/1, is_busy/1, writable/2, gone/3]).

-export_type([serving/0, stream/0]).

-record(serving, {
    pid :: pid(),
    monitor :: reference(),
    method :: binary(),
    version :: {1, 0} | {1, 1},
    %% Whether the client wants the connection kept.
    keep :: boolean(),
    intake :: erlmcp_native_beam_http_intake:intake(),
    on_gone = notice :: notice | exit,
    on_exit = 500 :: erlmcp_native_http_path:status(),
    stream = not_yet :: stream(),
    busy = false :: boolean()
}).

-opaque serving() :: #serving{}.

-type stream() :: not_yet | chunked | until_close | none.
%% How the answer is framed, once it has begun to stream; `none' if it has no body.

%% @doc Starts the process.
-spec start(
    erlmcp_native_http_path:serve(),
    erlmcp_native_http_path:exchange(),
    erlmcp_native_beam_http_request:meaning(),
    erlmcp_native_beam_http_intake:intake(),
    {http | https, erlmcp_native:address()}
) -> serving().
start({Module, Function, Argument}, Exchange, Meaning, Intake, {Scheme, PeerName}) ->
    #{method := Method, path := Path, query := Query, headers := Fields, version := Version} =
        Meaning,
    Request = #{
        method => Method,
        path => Path,
        query => Query,
        headers => Fields,
        version => Version,
        scheme => Scheme,
        peername => PeerName,
        body => erlmcp_native_beam_http_intake:to_serve(Intake)
    },
    {Pid, Monitor} = spawn_opt(Module, Function, [Argument, Exchange, Request], [monitor]),
    #serving{
        pid = Pid,
        monitor = Monitor,
        method = Method,
        version = Version,
        keep = maps:get(keep, Meaning),
        intake = Intake
    }.

-spec method(serving()) -> binary().
method(#serving{method = Method}) -> Method.

%% @doc Whether it is the process of this monitor.
-spec is_served_by(reference(), serving()) -> boolean().
is_served_by(Monitor, #serving{monitor = Own}) -> Monitor =:= Own.

%% @doc The answer is complete, or will never be.
-spec release(erlmcp_native_beam_http_count:counts(), serving()) -> ok.
release(Counts, #serving{monitor = Monitor, stream = Stream}) ->
    true = demonitor(Monitor, [flush]),
    case Stream of
        not_yet -> erlmcp_native_beam_http_count:release(Counts, requests);
        _ -> erlmcp_native_beam_http_count:release(Counts, streams)
    end.

%% @doc Whether the connection can be kept after it.
-spec keep(serving()) -> boolean().
keep(#serving{keep = false}) -> false;
keep(#serving{stream = until_close}) -> false;
keep(#serving{intake = Intake}) -> erlmcp_native_beam_http_intake:kept(Intake) =/= no.

-spec intake(serving()) -> erlmcp_native_beam_http_intake:intake().
intake(#serving{intake = Intake}) -> Intake.

-spec set_intake(erlmcp_native_beam_http_intake:intake(), serving()) -> serving().
set_intake(Intake, Serving) -> Serving#serving{intake = Intake}.

-spec stream(serving()) -> stream().
stream(#serving{stream = Stream}) -> Stream.

%% @doc The answer begins, with that status, and its length is not known.
-spec begin_stream(erlmcp_native_http_path:status(), serving()) ->
    {chunked | until_close | none, serving()}.
begin_stream(Status, #serving{method = Method, version = Version} = Serving) ->
    Stream =
        case {erlmcp_native_beam_http_answer:has_body(Method, Status), Version} of
            {false, _} -> none;
            {true, {1, 1}} -> chunked;
            {true, {1, 0}} -> until_close
        end,
    {Stream, Serving#serving{stream = Stream}}.

-spec on_gone(notice | exit, serving()) -> serving().
on_gone(What, Serving) -> Serving#serving{on_gone = What}.

-spec on_exit(erlmcp_native_http_path:status(), serving()) -> serving().
on_exit(Status, Serving) -> Serving#serving{on_exit = Status}.

%% @doc The status that answers for the process if it does not.
-spec on_exit(serving()) -> erlmcp_native_http_path:status().
on_exit(#serving{on_exit = Status}) -> Status.

%% @doc A part of the stream was refused, so the process waits.
-spec busy(serving()) -> serving().
busy(Serving) -> Serving#serving{busy = true}.

-spec is_busy(serving()) -> boolean().
is_busy(#serving{busy = Busy}) -> Busy.

%% @doc It need not wait any more.
-spec writable(pos_integer(), serving()) -> serving().
writable(Number, #serving{pid = Pid} = Serving) ->
    ok = erlmcp_native_beam_http_exchange:notice(Pid, Number, writable),
    Serving#serving{busy = false}.

%% @doc The client has gone.
-spec gone(erlmcp_native_beam_http_exchange:link(), pos_integer(), serving()) -> ok.
gone(Link, Number, #serving{pid = Pid, intake = Intake, on_gone = OnGone}) ->
    ok = erlmcp_native_beam_http_exchange:gone(Link, Number),
    ok = erlmcp_native_beam_http_intake:closed(Intake),
    case wish(Number, OnGone) of
        exit ->
            true = exit(Pid, {shutdown, gone}),
            ok;
        notice ->
            erlmcp_native_beam_http_exchange:notice(Pid, Number, gone)
    end.

%% What the process said before it could see that the client has gone.
wish(Number, Last) ->
    receive
        {on_gone, Number, What} -> wish(Number, What)
    after 0 -> Last
    end.
