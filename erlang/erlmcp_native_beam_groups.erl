%% @doc The process groups of children on the path `beam'. Erlang can send no signals; a shell
%% does, one for all, which ends the groups that are left when the node is gone, however it went.
-module(erlmcp_native_beam_groups).

-behaviour(gen_server).

-export([start_link/0, add/1, stop/1, continue/1, finish/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-record(state, {
    shell = none :: port() | none,
    live = #{} :: #{integer() => []}
}).

%% Reads a command a line. A process group is named by its leader, whose pid the kernel gives to
%% nobody while the group has members. Zombies are members: where nobody reaps them a group is
%% waited for in vain, and the last signal harms nobody.
-define(SCRIPT,
    "gone() { ! kill -s 0 -- \"-$1\"; }\n"
    "await() {\n"
    "    n=$2\n"
    "    while [ \"$n\" -gt 0 ]; do\n"
    "        gone \"$1\" && return 0\n"
    "        sleep 0.05\n"
    "        n=$((n - 1))\n"
    "    done\n"
    "    gone \"$1\"\n"
    "}\n"
    "term() { kill -s TERM -- \"-$1\"; kill -s CONT -- \"-$1\"; }\n"
    "finish() {\n"
    "    await \"$1\" \"$2\" && return\n"
    "    term \"$1\"\n"
    "    await \"$1\" \"$3\" || kill -s KILL -- \"-$1\"\n"
    "}\n"
    "exec 2>/dev/null\n"
    "live=' '\n"
    "while read -r what id first second; do\n"
    "    case $what in\n"
    "        add) live=\"$live$id \" ;;\n"
    "        stop) kill -s STOP -- \"-$id\" ;;\n"
    "        continue) kill -s CONT -- \"-$id\" ;;\n"
    "        finish)\n"
    "            case $live in *\" $id \"*) live=\"${live%% $id *} ${live#* $id }\" ;; esac\n"
    "            finish \"$id\" \"$first\" \"$second\" </dev/null &\n"
    "            ;;\n"
    "    esac\n"
    "done\n"
    "for id in $live; do term \"$id\"; done\n"
    "[ \"$live\" = ' ' ] || sleep 0.3\n"
    "for id in $live; do kill -s KILL -- \"-$id\"; done\n"
).

-define(LOOK_MS, 50).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc A group has come to be.
-spec add(integer() | undefined) -> ok.
add(Group) -> tell({add, Group}).

%% @doc Keeps a group from running.
-spec stop(integer() | undefined) -> ok.
stop(Group) -> tell({stop, Group}).

%% @doc Lets it run again.
-spec continue(integer() | undefined) -> ok.
continue(Group) -> tell({continue, Group}).

%% @doc Waits for the end of a group, then asks it to end, then ends it.
-spec finish(integer() | undefined, non_neg_integer(), non_neg_integer()) -> ok.
finish(Group, FirstMs, SecondMs) -> tell({finish, Group, FirstMs, SecondMs}).

%% A child that was gone before its port could say who it was has no group left to speak of.
tell(Command) when element(2, Command) =:= undefined -> ok;
tell(Command) -> gen_server:cast(?MODULE, Command).

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    _ = process_flag(trap_exit, true),
    {ok, #state{}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({add, Group}, #state{live = Live} = State) ->
    {noreply, say(["add ", id(Group)], State#state{live = Live#{Group => []}})};
handle_cast({stop, Group}, State) ->
    {noreply, say(["stop ", id(Group)], State)};
handle_cast({continue, Group}, State) ->
    {noreply, say(["continue ", id(Group)], State)};
handle_cast({finish, Group, FirstMs, SecondMs}, #state{live = Live} = State) ->
    Looks = [[" ", id((Ms + ?LOOK_MS - 1) div ?LOOK_MS)] || Ms <- [FirstMs, SecondMs]],
    {noreply, say(["finish ", id(Group) | Looks], State#state{live = maps:remove(Group, Live)})};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'EXIT', Shell, _}, #state{shell = Shell} = State) ->
    %% A shell that was ended by somebody leaves the groups to the next.
    {noreply, State#state{shell = none}};
handle_info(_, State) ->
    {noreply, State}.

say(Command, #state{shell = none, live = Live} = State) ->
    Shell = open_port({spawn_executable, "/bin/sh"}, [{args, ["-c", ?SCRIPT]}, out, hide]),
    Known = [["add ", id(Group), $\n] || Group <- maps:keys(Live)],
    true = port_command(Shell, Known),
    say(Command, State#state{shell = Shell});
say(Command, #state{shell = Shell} = State) ->
    try port_command(Shell, [Command, $\n]) of
        true -> State
    catch
        error:badarg -> say(Command, State#state{shell = none})
    end.

id(Number) -> integer_to_binary(Number).
