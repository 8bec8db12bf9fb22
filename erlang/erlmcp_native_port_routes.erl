%% @private Where the packets of the port program go: a process for each id, which is monitored.
%%
%% For the process that routes, which alone receives the `{{'DOWN', Id}, ...}' of the monitors.
-module(erlmcp_native_port_routes).

-export([new/0, add/4, born/3, give/3, attach/4, remove/2]).
-export([pid/2, deliver/3, sending/2, lose/2]).

-export_type([routes/0]).

-record(route, {
    pid :: pid(),
    monitor :: reference(),
    %% Brought down as bytes leave, for those that send.
    sending = none :: erlmcp_native_port_sending:sending() | none,
    %% Messages for a new owner that has not come for them, latest first.
    held = none :: none | [term()]
}).

-type routes() :: #{erlmcp_native_port:id() => #route{}}.

-spec new() -> routes().
new() ->
    #{}.

-spec add(erlmcp_native_port:id(), pid(), erlmcp_native_port_sending:sending() | none, routes()) ->
    routes().
add(Id, Pid, Sending, Routes) ->
    Routes#{Id => #route{pid = Pid, monitor = watch(Id, Pid), sending = Sending}}.

%% @doc A route whose process is to come for what it gets.
-spec born(erlmcp_native_port:id(), pid(), routes()) -> routes().
born(Id, Pid, Routes) ->
    Routes#{Id => #route{pid = Pid, monitor = watch(Id, Pid), held = []}}.

watch(Id, Pid) ->
    monitor(process, Pid, [{tag, {'DOWN', Id}}]).

%% @doc Has a route lead to another process, which is to come for what it gets.
-spec give(erlmcp_native_port:id(), pid(), routes()) -> {ok, routes()} | error.
give(Id, Pid, Routes) ->
    case Routes of
        #{Id := #route{monitor = Monitor, held = Held} = Route} ->
            true = demonitor(Monitor, [flush]),
            Given = Route#route{pid = Pid, monitor = watch(Id, Pid), held = hold(Held)},
            {ok, Routes#{Id := Given}};
        #{} ->
            error
    end.

hold(none) -> [];
hold(Held) -> Held.

%% @doc The new owner has come.
-spec attach(
    erlmcp_native_port:id(), pid(), erlmcp_native_port_sending:sending() | none, routes()
) -> {ok, routes()} | error.
attach(Id, Pid, Sending, Routes) ->
    case Routes of
        #{Id := #route{pid = Pid, held = Held} = Route} ->
            _ = [tell(Id, Message, Pid) || Message <- lists:reverse(hold(Held))],
            {ok, Routes#{Id := Route#route{held = none, sending = Sending}}};
        #{} ->
            error
    end.

%% @doc Ends a route.
-spec remove(erlmcp_native_port:id(), routes()) -> {ok, routes()} | error.
remove(Id, Routes) ->
    case maps:take(Id, Routes) of
        {Route, Rest} ->
            ok = close(Route),
            {ok, Rest};
        error ->
            error
    end.

close(#route{monitor = Monitor, sending = Sending}) ->
    true = demonitor(Monitor, [flush]),
    case Sending of
        none -> ok;
        _ -> erlmcp_native_port_sending:close(Sending)
    end.

-spec pid(erlmcp_native_port:id(), routes()) -> {ok, pid()} | error.
pid(Id, Routes) ->
    case Routes of
        #{Id := #route{pid = Pid}} -> {ok, Pid};
        #{} -> error
    end.

-spec sending(erlmcp_native_port:id(), routes()) -> erlmcp_native_port_sending:sending() | none.
sending(Id, Routes) ->
    case Routes of
        #{Id := #route{sending = Sending}} -> Sending;
        #{} -> none
    end.

%% @doc Passes a message on; `unknown' if there is no such route.
-spec deliver(erlmcp_native_port:id(), term(), routes()) -> ok | {held, routes()} | unknown.
deliver(Id, Message, Routes) ->
    case Routes of
        #{Id := #route{held = none, pid = Pid}} ->
            tell(Id, Message, Pid);
        #{Id := #route{held = Held} = Route} ->
            {held, Routes#{Id := Route#route{held = [Message | Held]}}};
        #{} ->
            unknown
    end.

%% @doc Ends all routes, whose processes are told of it.
-spec lose(erlmcp_native:reason(), routes()) -> routes().
lose(Reason, Routes) ->
    maps:foreach(
        fun(Id, #route{pid = Pid} = Route) ->
            ok = close(Route),
            tell(Id, {down, Reason}, Pid)
        end,
        Routes
    ),
    new().

tell(Id, Message, Pid) ->
    Pid ! {erlmcp_native_io, Id, Message},
    ok.
