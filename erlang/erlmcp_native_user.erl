%% @doc A device `user' that writes to standard error, for nodes whose standard output carries
%% messages.
%%
%% On the paths `beam' and `port' nothing native is in the VM that could move descriptors, so what
%% Erlang code prints is kept away from standard output here. It is complete on a node that is
%% started with
%%
%% ```
%% erl -noinput -user erlmcp_native_user
%% '''
%%
%% since then there never is another device. Otherwise {@link take_over/0} takes the name `user'
%% and the place of the former device as group leader: of every process that had it, and of
%% all applications that are started from then on. What was started before and prints from
%% an application still reaches standard output, since an application keeps the device that it was
%% started with.
-module(erlmcp_native_user).

-export([start/0, take_over/0]).

%% @doc Called by the kernel application for the flag `-user erlmcp_native_user'.
-spec start() -> pid().
start() ->
    spawn(fun() ->
        true = register(user, self()),
        loop()
    end).

%% @doc Makes such a device the one of this node.
-spec take_over() -> ok.
take_over() ->
    case whereis(user) of
        undefined ->
            ok;
        Former ->
            case is_ours(Former) of
                true -> ok;
                false -> replace(Former)
            end
    end.

is_ours(Pid) ->
    process_info(Pid, dictionary) =:= {dictionary, [{?MODULE, true}]}.

replace(Former) ->
    Device = spawn(fun loop/0),
    true = unregister(user),
    true = register(user, Device),
    _ = [group_leader(Device, Pid) || Pid <- processes(), has_leader(Pid, Former), Pid =/= Device],
    ok.

has_leader(Pid, Leader) ->
    process_info(Pid, group_leader) =:= {group_leader, Leader}.

loop() ->
    _ = put(?MODULE, true),
    true = group_leader(whereis(init), self()),
    serve().

%% The requests are answered by the device that they are passed on to.
serve() ->
    receive
        Request when element(1, Request) =:= io_request -> pass_on(Request);
        _ -> ok
    end,
    serve().

pass_on({io_request, From, ReplyAs, _} = Request) ->
    case whereis(standard_error) of
        undefined -> From ! {io_reply, ReplyAs, {error, terminated}};
        Device -> Device ! Request
    end.
