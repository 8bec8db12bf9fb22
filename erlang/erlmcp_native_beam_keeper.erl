%% @private A process that stands between an owner and its connection, as the owner sees it: a TLS
%% session or the process of a child. It hands out what has come in when it is asked, and sees to
%% the rest of what is to be sent when it is closed.
-module(erlmcp_native_beam_keeper).

-export([new/3, watch/1, arm/1, give/2, transfer/2, close/2, keys/1, waiting/1, handle_info/2]).

-export_type([keeper/0]).

-record(keeper, {
    pid :: pid(),
    tag :: reference(),
    %% Of the owner on this process.
    monitor :: reference() | none
}).

-opaque keeper() :: #keeper{}.

%% @doc What it sends to its owner has the tag.
-spec new(pid(), Tag :: reference(), Monitor :: reference() | none) -> keeper().
new(Pid, Tag, Monitor) -> #keeper{pid = Pid, tag = Tag, monitor = Monitor}.

%% @doc Watches one whose owner the calling process has become.
-spec watch(keeper()) -> keeper().
watch(#keeper{pid = Pid, monitor = none} = Keeper) ->
    Keeper#keeper{monitor = monitor(process, Pid)};
watch(Keeper) ->
    Keeper.

%% @doc Asks for what has come in, or the end.
-spec arm(keeper()) -> ok.
arm(#keeper{pid = Pid}) ->
    Pid ! arm,
    ok.

%% @doc Makes another process the owner. Returns what has come for the old one.
-spec give(keeper(), pid()) -> [erlmcp_native_beam_stream:arrival()].
give(#keeper{pid = Pid, tag = Tag, monitor = Monitor}, NewOwner) ->
    unwatch(Monitor),
    Given = transfer(Pid, NewOwner),
    receive
        {Tag, Arrival} -> [Arrival]
    after 0 -> [{lost, panic} || Given =:= kept]
    end.

%% @doc The same for a process that may not have become a session yet. `kept': it has ended.
%% `badarg' if the caller does not own the connection.
-spec transfer(pid(), pid()) -> given | kept.
transfer(Pid, NewOwner) ->
    Ref = monitor(process, Pid),
    Pid ! {give, NewOwner, self(), Ref},
    receive
        {Ref, given} ->
            demonitor(Ref, [flush]),
            given;
        {Ref, not_owner} ->
            demonitor(Ref, [flush]),
            error(badarg);
        {'DOWN', Ref, process, _, _} ->
            kept
    end.

%% @doc Closes: what is queued is sent first, for `LingerMs' at most; then a child is ended.
-spec close(keeper(), LingerMs :: non_neg_integer()) -> ok.
close(#keeper{pid = Pid, tag = Tag, monitor = Monitor}, LingerMs) ->
    unwatch(Monitor),
    Pid ! {close, LingerMs},
    receive
        {Tag, _} -> ok
    after 0 -> ok
    end.

%% @doc What the messages that are meant for it can be told by: the first element of a pair, the
%% reference of a `DOWN'.
-spec keys(keeper()) -> [reference()].
keys(#keeper{tag = Tag, monitor = Monitor}) when Monitor =/= none -> [Tag, Monitor].

%% @doc What waits in the owner's mailbox.
-spec waiting(keeper()) -> erlmcp_native_beam_stream:arrival() | none.
waiting(#keeper{tag = Tag, monitor = Monitor}) ->
    receive
        {Tag, Arrival} -> Arrival;
        {'DOWN', Monitor, process, _, _} -> {lost, panic}
    after 0 -> none
    end.

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), keeper()) -> erlmcp_native_beam_stream:arrival() | unknown.
handle_info({Tag, Arrival}, #keeper{tag = Tag}) -> Arrival;
handle_info({'DOWN', Monitor, process, _, _}, #keeper{monitor = Monitor}) -> {lost, panic};
handle_info(_, _) -> unknown.

unwatch(none) -> true;
unwatch(Monitor) -> demonitor(Monitor, [flush]).
