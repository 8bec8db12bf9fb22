%% @doc Listening and accepting, as many connections as the owner asks for.
%%
%% `gen_tcp:accept/1' blocks, so a process does it, and only on demand: one batch is under way or
%% waits for the owner, the kernel's backlog holds the others.
-module(erlmcp_native_beam_listener).

-include_lib("kernel/include/file.hrl").
-include_lib("kernel/include/logger.hrl").

-export([listen/2, listen/3, accept/2, accept_ports/2, handle_info/2, info/1, close/1]).

-export_type([listener/0, accepted/0]).

%% Connections accepted at a time.
-define(BATCH, 64).

%% Accepting that failed for want of descriptors is tried again at intervals that double.
-define(FIRST_RETRY_MS, 10).
-define(LAST_RETRY_MS, 1000).

%% Warnings about it are this far apart.
-define(QUIET_MS, 60000).

%% A Unix-domain socket that answers a connection is in use.
-define(PROBE_MS, 1000).

-define(IFMT, 8#170000).
-define(IFSOCK, 8#140000).

-record(listener, {
    port :: gen_tcp:socket(),
    options :: erlmcp_native_beam_inet:listen_options(),
    tls :: none | erlmcp_native_beam_tls:config(),
    sockname :: erlmcp_native:address(),
    file :: none | file(),
    acceptor :: pid(),
    monitor :: reference(),
    tag :: reference(),
    %% Whether a batch is under way.
    asked = false :: boolean(),
    waiting = [] :: [accepted()],
    down = none :: erlmcp_native:reason() | none
}).

%% The process that accepts.
-record(acceptor, {
    owner :: pid(),
    monitor :: reference(),
    tag :: reference(),
    port :: gen_tcp:socket(),
    file :: none | file(),
    quiet_until = none :: integer() | none
}).

-opaque listener() :: #listener{}.

%% The file of a Unix-domain socket, to be told apart from one that has replaced it.
-type file() :: {file:name_all(), Inode :: non_neg_integer()}.
-type accepted() :: {gen_tcp:socket(), Ends :: map()}.

%% @doc Binds and listens, and makes the calling process the owner.
-spec listen(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, listener()} | {error, erlmcp_native:reason()}.
listen(Endpoint, #{tls := false} = Options) ->
    listen(Endpoint, Options, none);
listen(Endpoint, #{tls := Tls} = Options) ->
    case erlmcp_native_beam_tls:server(Tls) of
        {ok, Config} -> listen(Endpoint, Options, Config);
        {error, _} = Error -> Error
    end.

%% @doc The same with the server's side of TLS at hand, whoever does the handshakes.
-spec listen(
    erlmcp_native:endpoint(),
    erlmcp_native_beam_inet:listen_options(),
    none | erlmcp_native_beam_tls:config()
) -> {ok, listener()} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options, Tls) ->
    case bind(Endpoint, erlmcp_native_beam_inet:listen_options(Endpoint, Options)) of
        {ok, Port} -> {ok, start(Endpoint, Port, Options, Tls)};
        {error, Reason} -> {error, erlmcp_native_beam_inet:reason(Reason)}
    end.

start(Endpoint, Port, Options, Tls) ->
    Owner = self(),
    Tag = make_ref(),
    File = file(Endpoint),
    {Acceptor, Monitor} = spawn_monitor(fun() -> acceptor(Owner, Tag, Port, File) end),
    ask(#listener{
        port = Port,
        options = Options,
        tls = Tls,
        sockname = erlmcp_native_beam_inet:sockname(Port),
        file = File,
        acceptor = Acceptor,
        monitor = Monitor,
        tag = Tag
    }).

bind(#{host := Ip, port := Port}, Options) when tuple_size(Ip) =:= 4 ->
    gen_tcp:listen(Port, [{inet_backend, inet}, inet, {ip, Ip} | Options]);
bind(#{host := Ip, port := Port}, Options) when tuple_size(Ip) =:= 8 ->
    gen_tcp:listen(Port, [{inet_backend, inet}, inet6, {ip, Ip} | Options]);
bind(#{host := Name} = Endpoint, Options) ->
    case resolve(unicode:characters_to_list(Name)) of
        {ok, Ip} -> bind(Endpoint#{host := Ip}, Options);
        {error, _} -> {error, nxdomain}
    end;
bind(#{path := Path}, Options) ->
    case local(Path, Options) of
        {error, eaddrinuse} -> replace_stale(Path, Options);
        Result -> Result
    end;
bind(#{abstract := Name}, Options) ->
    local(<<0, Name/binary>>, Options).

local(Address, Options) ->
    gen_tcp:listen(0, [{inet_backend, inet}, {ifaddr, {local, Address}} | Options]).

resolve(Name) ->
    case inet:getaddr(Name, inet) of
        {ok, _} = Found -> Found;
        {error, _} -> inet:getaddr(Name, inet6)
    end.

%% The file of a listener that was killed stays behind. Only a socket to which nobody answers is
%% removed.
replace_stale(Path, Options) ->
    case is_socket(Path) andalso gen_tcp:connect({local, Path}, 0, [local], ?PROBE_MS) of
        {error, econnrefused} ->
            _ = file:delete(Path),
            local(Path, Options);
        {ok, Probe} ->
            ok = gen_tcp:close(Probe),
            {error, eaddrinuse};
        _ ->
            {error, eaddrinuse}
    end.

is_socket(Path) ->
    case file:read_file_info(Path) of
        {ok, #file_info{mode = Mode}} -> Mode band ?IFMT =:= ?IFSOCK;
        {error, _} -> false
    end.

file(#{path := Path}) ->
    case file:read_file_info(Path) of
        {ok, #file_info{inode = Inode}} -> {Path, Inode};
        {error, _} -> none
    end;
file(_) ->
    none.

remove({Path, Inode}) ->
    case file:read_file_info(Path) of
        {ok, #file_info{inode = Inode}} -> file:delete(Path);
        _ -> ok
    end;
remove(none) ->
    ok.

%% @doc Connections that have arrived, at most `Max'.
-spec accept(listener(), Max :: pos_integer()) ->
    {[erlmcp_native_path:socket()], armed | more | {down, erlmcp_native:reason()}, listener()}.
accept(L, Max) ->
    {Accepted, Status, Rest} = accept_ports(L, Max),
    {[adopt(A, L) || A <- Accepted], Status, Rest}.

%% @doc The same, as plain sockets and their addresses.
-spec accept_ports(listener(), Max :: pos_integer()) ->
    {[accepted()], armed | more | {down, erlmcp_native:reason()}, listener()}.
accept_ports(#listener{waiting = Waiting} = L, Max) ->
    {Now, Later} = lists:split(min(Max, length(Waiting)), Waiting),
    case L#listener{waiting = Later} of
        #listener{waiting = [_ | _]} = Rest -> {Now, more, Rest};
        #listener{down = none} = Rest -> {Now, armed, ask(Rest)};
        #listener{down = Reason} = Rest -> {Now, {down, Reason}, Rest}
    end.

ask(#listener{asked = false, acceptor = Acceptor, tag = Tag} = L) ->
    Acceptor ! {Tag, wanted},
    L#listener{asked = true};
ask(L) ->
    L.

adopt({Port, Ends}, #listener{tls = none, options = Options}) ->
    Stream = erlmcp_native_beam_stream:tcp(Port),
    erlmcp_native_beam_path:accepted({open, Stream}, Options, Ends);
adopt({Port, _}, #listener{tls = Tls, options = Options}) ->
    Opening = erlmcp_native_beam_opening:accepted(Port, Options, Tls),
    erlmcp_native_beam_path:accepted({connecting, Opening}, Options, #{}).

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), listener()) -> {ready | none, listener()} | unknown.
handle_info({Tag, accepted, Accepted}, #listener{tag = Tag} = L) ->
    {ready, L#listener{waiting = Accepted, asked = false}};
handle_info({Tag, down, Reason}, #listener{tag = Tag} = L) ->
    {ready, L#listener{down = Reason}};
handle_info({'DOWN', Monitor, process, _, _}, #listener{monitor = Monitor, down = none} = L) ->
    {ready, L#listener{down = panic}};
handle_info({'DOWN', Monitor, process, _, _}, #listener{monitor = Monitor} = L) ->
    {none, L};
handle_info(_, _) ->
    unknown.

%% @doc Where it listens, with the port that the system chose.
-spec info(listener()) -> #{sockname := erlmcp_native:address()}.
info(#listener{sockname = SockName}) ->
    #{sockname => SockName}.

%% @doc Stops listening. Connections that were accepted and not taken are closed.
-spec close(listener()) -> ok.
close(#listener{port = Port, acceptor = Acceptor, monitor = Monitor, tag = Tag} = L) ->
    true = demonitor(Monitor, [flush]),
    %% Once it has ended nothing more can come from it.
    Ended = monitor(process, Acceptor),
    exit(Acceptor, kill),
    receive
        {'DOWN', Ended, process, _, _} -> ok
    end,
    ok = gen_tcp:close(Port),
    _ = remove(L#listener.file),
    close_waiting(Tag, L#listener.waiting).

close_waiting(Tag, Waiting) ->
    lists:foreach(fun({Port, _}) -> gen_tcp:close(Port) end, Waiting),
    receive
        {Tag, accepted, More} -> close_waiting(Tag, More);
        {Tag, down, _} -> close_waiting(Tag, [])
    after 0 -> ok
    end.

acceptor(Owner, Tag, Port, File) ->
    serve(#acceptor{
        owner = Owner,
        monitor = monitor(process, Owner),
        tag = Tag,
        port = Port,
        file = File
    }).

serve(#acceptor{owner = Owner, monitor = Monitor, tag = Tag, port = Port, file = File} = A0) ->
    receive
        {Tag, wanted} ->
            case first(?FIRST_RETRY_MS, A0) of
                {{ok, Socket}, A} ->
                    ok = hand_over([Socket | others(Port, ?BATCH - 1)], Owner, Tag),
                    serve(A);
                {{error, Reason}, _} ->
                    _ = remove(File),
                    Owner ! {Tag, down, erlmcp_native_beam_inet:reason(Reason)}
            end;
        {'DOWN', Monitor, process, _, _} ->
            remove(File)
    end.

first(Wait, #acceptor{port = Port} = A) ->
    case gen_tcp:accept(Port) of
        {error, econnaborted} ->
            first(Wait, A);
        {error, Reason} = Error ->
            case is_passing(Reason) of
                true -> again(Wait, warn(Reason, A));
                false -> {Error, A}
            end;
        Accepted ->
            {Accepted, A}
    end.

again(Wait, #acceptor{monitor = Monitor} = A) ->
    receive
        {'DOWN', Monitor, process, _, _} -> {{error, closed}, A}
    after Wait -> first(min(2 * Wait, ?LAST_RETRY_MS), A)
    end.

%% At the limit each connection that closes lets one in, and the next fails again.
warn(Reason, #acceptor{quiet_until = Until} = A) ->
    case erlang:monotonic_time(millisecond) of
        Now when Until =:= none; Now > Until ->
            ?LOG_WARNING("erlmcp_native: accepting connections has to wait: ~p", [Reason]),
            A#acceptor{quiet_until = Now + ?QUIET_MS};
        _ ->
            A
    end.

%% What goes away when other connections close.
is_passing(emfile) -> true;
is_passing(enfile) -> true;
is_passing(enobufs) -> true;
is_passing(enomem) -> true;
is_passing(system_limit) -> true;
is_passing(_) -> false.

others(_, 0) ->
    [];
others(Port, Left) ->
    case gen_tcp:accept(Port, 0) of
        {ok, Socket} -> [Socket | others(Port, Left - 1)];
        {error, _} -> []
    end.

hand_over(Sockets, Owner, Tag) ->
    %% The names are asked for here: a peer that goes takes its name with it.
    Accepted = [
        {Socket, #{
            peername => erlmcp_native_beam_inet:peername(Socket),
            sockname => erlmcp_native_beam_inet:sockname(Socket)
        }}
     || Socket <- Sockets
    ],
    Given = [A || {S, _} = A <- Accepted, gen_tcp:controlling_process(S, Owner) =:= ok],
    Owner ! {Tag, accepted, Given},
    ok.
