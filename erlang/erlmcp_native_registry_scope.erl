%% @doc Registrations on all nodes, where the application setting `registry_scope' names a scope of
%% OTP's `pg': who is registered on this node is a member there, and what is not registered on this
%% node is looked for there.
%%
%% The groups are `{server, ServerId}', `{transport, TransportId}' and, with the transports that are
%% bound to a server, `{bound, ServerId}'. The processes themselves are the members: those of a node
%% that is lost, or that have ended, are members no more.
-module(erlmcp_native_registry_scope).

-export([start_link/0, name/0, watch/0, share/1, join/2, leave/2, find/1, find/2, elsewhere/1]).

-export_type([group/0]).

-type group() ::
    {server | bound, erlmcp_native_registry:server_id()}
    | {transport, erlmcp_native_registry:transport_id()}.

%% @doc Starts the scope, unless there is none or it runs already.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    case name() of
        none ->
            ignore;
        Scope ->
            case pg:start_link(Scope) of
                {error, {already_started, _}} -> ignore;
                Result -> Result
            end
    end.

-spec name() -> atom().
name() -> application:get_env(erlmcp_native, registry_scope, none).

%% @doc Tells the caller when the scope ends, which then knows nobody: by a monitor, whose message
%% names `{Scope, Node}' in place of a pid.
-spec watch() -> ok.
watch() ->
    case name() of
        none ->
            ok;
        Scope ->
            _ = monitor(process, Scope),
            ok
    end.

%% @doc Makes these, and no others, the members of this node.
-spec share([{group(), pid()}]) -> ok.
share(Members) ->
    case name() of
        none ->
            ok;
        Scope ->
            Known = members_here(Scope),
            lists:foreach(fun({Group, Pid}) -> leave(Group, Pid) end, Known -- Members),
            lists:foreach(fun({Group, Pid}) -> join(Group, Pid) end, Members -- Known)
    end.

members_here(Scope) ->
    try
        [
            {Group, Pid}
         || Group <- pg:which_local_groups(Scope), Pid <- pg:get_local_members(Scope, Group)
        ]
    catch
        %% It is down.
        error:badarg -> []
    end.

-spec join(group(), pid()) -> ok.
join(Group, Pid) -> change(fun pg:join/3, Group, Pid).

-spec leave(group(), pid()) -> ok.
leave(Group, Pid) -> change(fun pg:leave/3, Group, Pid).

%% A scope knows processes of its own node. One that is down is told when it is back.
change(Fun, Group, Pid) when node(Pid) =:= node() ->
    case name() of
        none ->
            ok;
        Scope ->
            try
                _ = Fun(Scope, Group, Pid),
                ok
            catch
                exit:_ -> ok
            end
    end;
change(_, _, _) ->
    ok.

%% @doc One that is registered on another node; all nodes that ask choose the same.
-spec find(group()) -> {ok, pid()} | {error, not_found}.
find(Group) ->
    case lists:sort([{node(Pid), Pid} || Pid <- elsewhere(Group)]) of
        [{_, Pid} | _] -> {ok, Pid};
        [] -> {error, not_found}
    end.

-spec find(group(), node()) -> {ok, pid()} | {error, not_found}.
find(Group, Node) ->
    case [Pid || Pid <- elsewhere(Group), node(Pid) =:= Node] of
        [Pid | _] -> {ok, Pid};
        [] -> {error, not_found}
    end.

%% @doc Who is in the group on other nodes.
-spec elsewhere(group()) -> [pid()].
elsewhere(Group) ->
    case name() of
        none -> [];
        Scope -> [Pid || Pid <- pg:get_members(Scope, Group), node(Pid) =/= node()]
    end.
