%% @doc The registry against a model of a few maps: whatever is registered, bound, given up or
%% killed in whatever order, both agree on who is who, and every message finds whom it is for.
-module(registry_props).

-include("props.hrl").

-import(proper_types, [elements/1, frequency/1, list/1]).

-export([prop_the_registry_is_the_model/0, as_the_model/1]).

-define(WAIT, 60000).

-define(SERVERS, [a, b, <<"a">>, '_']).
-define(TRANSPORTS, [a, t, <<"t">>, '$1']).
-define(PROCESSES, [1, 2, 3]).

prop_the_registry_is_the_model() ->
    as_the_model(erlmcp_native_registry).

%% @doc The same for whatever has the functions of erlmcp's registry.
as_the_model(Registry) ->
    ?FORALL(Commands, list(command()), run(Commands, Registry)).

command() ->
    [Server, Transport] = [elements(Ids) || Ids <- [?SERVERS, ?TRANSPORTS]],
    Process = elements(?PROCESSES),
    frequency([
        {4, {register_server, Server, Process}},
        {4, {register_transport, Transport, Process, elements([none | ?SERVERS])}},
        {1, {unregister_server, Server}},
        {1, {unregister_transport, Transport}},
        {3, {bind_transport_to_server, Transport, Server}},
        {1, {unbind_transport, Transport}},
        {2, {route_to_server, Server}},
        {2, {route_to_transport, Transport}},
        {2, {broadcast, Server}},
        {1, {kill, Process}}
    ]).

%% The model: servers and transports with their processes, what each transport is bound to, and
%% which pid a process has now.
run(Commands, Registry) ->
    Model = #{
        servers => #{},
        transports => #{},
        bound => #{},
        pids => maps:from_list([{N, start()} || N <- ?PROCESSES])
    },
    try
        #{pids := Pids} = lists:foldl(fun(C, M) -> step(C, M, Registry) end, Model, Commands),
        _ = [kill(Pid, Registry) || Pid <- maps:values(Pids)],
        receive
            {got, _, Message} -> {unexpected, Message}
        after 0 -> true
        end
    catch
        throw:Difference ->
            io:format("~p~n", [Difference]),
            false
    end.

step(Command, Model, Registry) ->
    {Expected, Next} = model(Command, Model),
    agree(Command, Expected, command(Command, Model, Registry)),
    agree(Command, seen(Next), seen(Registry, Next)),
    Next.

agree(_, Same, Same) -> ok;
agree(Command, Expected, Got) -> throw({Command, {expected, Expected}, {got, Got}}).

model({register_server, Id, _}, #{servers := Servers} = Model) when is_map_key(Id, Servers) ->
    {{error, already_registered}, Model};
model({register_server, Id, N}, #{servers := Servers} = Model) ->
    {ok, Model#{servers := Servers#{Id => N}}};
model({register_transport, Id, _, _}, #{transports := All} = Model) when is_map_key(Id, All) ->
    {{error, already_registered}, Model};
model({register_transport, Id, N, none}, #{transports := All} = Model) ->
    {ok, Model#{transports := All#{Id => N}}};
model({register_transport, Id, N, Server}, #{transports := All, bound := Bound} = Model) ->
    {ok, Model#{transports := All#{Id => N}, bound := Bound#{Id => Server}}};
model({unregister_server, Id}, Model) ->
    {ok, without_server(Id, Model)};
model({unregister_transport, Id}, Model) ->
    {ok, without_transport(Id, Model)};
model({bind_transport_to_server, Id, Server}, #{bound := Bound} = Model) ->
    #{servers := Servers, transports := Transports} = Model,
    case {is_map_key(Server, Servers), is_map_key(Id, Transports)} of
        {true, true} -> {ok, Model#{bound := Bound#{Id => Server}}};
        {false, _} -> {{error, server_not_found}, Model};
        {true, false} -> {{error, transport_not_found}, Model}
    end;
model({unbind_transport, Id}, #{bound := Bound} = Model) ->
    {ok, Model#{bound := maps:remove(Id, Bound)}};
model({route_to_server, Id}, #{servers := Servers} = Model) ->
    case Servers of
        #{Id := N} -> {{ok, [{N, {mcp_message, from, Id}}]}, Model};
        #{} -> {{{error, server_not_found}, []}, Model}
    end;
model({route_to_transport, Id}, #{transports := Transports} = Model) ->
    case Transports of
        #{Id := N} -> {{ok, [{N, {mcp_response, from, Id}}]}, Model};
        #{} -> {{{error, transport_not_found}, []}, Model}
    end;
model({broadcast, Server}, #{transports := Transports, bound := Bound} = Model) ->
    Reached = [maps:get(Id, Transports) || {Id, S} <- maps:to_list(Bound), S =:= Server],
    {{ok, [{N, {mcp_response, Server, all}} || N <- lists:sort(Reached)]}, Model};
model({kill, N}, #{servers := Servers, transports := Transports, pids := Pids} = Model) ->
    Of = fun(Entries) -> [Id || {Id, P} <- maps:to_list(Entries), P =:= N] end,
    Alive = lists:foldl(fun without_server/2, Model, Of(Servers)),
    Rest = lists:foldl(fun without_transport/2, Alive, Of(Transports)),
    {ok, Rest#{pids := Pids#{N := start()}}}.

without_server(Id, #{servers := Servers, bound := Bound} = Model) when
    is_map_key(Id, Servers)
->
    Others = maps:filter(fun(_, Server) -> Server =/= Id end, Bound),
    Model#{servers := maps:remove(Id, Servers), bound := Others};
without_server(_, Model) ->
    Model.

without_transport(Id, #{transports := Transports, bound := Bound} = Model) ->
    Model#{transports := maps:remove(Id, Transports), bound := maps:remove(Id, Bound)}.

command({register_server, Id, N}, #{pids := Pids}, Registry) ->
    Registry:register_server(Id, maps:get(N, Pids), #{});
command({register_transport, Id, N, none}, #{pids := Pids}, Registry) ->
    Registry:register_transport(Id, maps:get(N, Pids), #{});
command({register_transport, Id, N, Server}, #{pids := Pids}, Registry) ->
    Registry:register_transport(Id, maps:get(N, Pids), #{server_id => Server});
command({route_to_server, Id}, Model, Registry) ->
    routed(Registry:route_to_server(Id, from, Id), {route_to_server, Id}, Model);
command({route_to_transport, Id}, Model, Registry) ->
    routed(Registry:route_to_transport(Id, from, Id), {route_to_transport, Id}, Model);
command({broadcast, Id}, Model, Registry) ->
    routed(Registry:route_to_transport(broadcast, Id, all), {broadcast, Id}, Model);
command({kill, N}, #{pids := Pids}, Registry) ->
    kill(maps:get(N, Pids), Registry);
command(Command, _, Registry) ->
    [Function | Args] = tuple_to_list(Command),
    apply(Registry, Function, Args).

%% As many messages as the model says, and at the end of the run no more.
routed(Result, Command, #{pids := Pids} = Model) ->
    {{_, Expected}, _} = model(Command, Model),
    Names = maps:from_list([{Pid, N} || {N, Pid} <- maps:to_list(Pids)]),
    Got = [
        receive
            {got, Pid, Message} -> {maps:get(Pid, Names), Message}
        after ?WAIT -> throw({Command, lost, Expected})
        end
     || _ <- Expected
    ],
    {Result, lists:sort(Got)}.

seen(#{servers := Servers, transports := Transports, bound := Bound, pids := Pids}) ->
    Of = fun(Entries) ->
        lists:sort([{Id, maps:get(N, Pids)} || {Id, N} <- maps:to_list(Entries)])
    end,
    {Of(Servers), Of(Transports), lists:sort(maps:to_list(Bound))}.

seen(Registry, _) ->
    Of = fun(Listed) -> lists:sort([{Id, Pid} || {Id, {Pid, _}} <- Listed]) end,
    Found = fun(Find, Ids) ->
        lists:sort([{Id, Pid} || Id <- Ids, {ok, {Pid, _}} <- [Registry:Find(Id)]])
    end,
    Servers = Found(find_server, ?SERVERS),
    Transports = Found(find_transport, ?TRANSPORTS),
    Servers = Of(Registry:list_servers()),
    Transports = Of(Registry:list_transports()),
    Bound = [
        {Id, Server}
     || Id <- ?TRANSPORTS, {ok, Server} <- [Registry:get_server_for_transport(Id)]
    ],
    {Servers, Transports, lists:sort(Bound)}.

start() ->
    Test = self(),
    spawn(fun() -> pass_on(Test) end).

pass_on(Test) ->
    receive
        Message -> Test ! {got, self(), Message}
    end,
    pass_on(Test).

%% Until the registry has noticed.
kill(Pid, Registry) ->
    exit(Pid, kill),
    forgotten(Pid, Registry, ?WAIT).

forgotten(Pid, _, 0) ->
    throw({not_forgotten, Pid});
forgotten(Pid, Registry, Looks) ->
    Listed = Registry:list_servers() ++ Registry:list_transports(),
    case [Id || {Id, {P, _}} <- Listed, P =:= Pid] of
        [] ->
            ok;
        _ ->
            receive
            after 1 -> forgotten(Pid, Registry, Looks - 1)
            end
    end.
