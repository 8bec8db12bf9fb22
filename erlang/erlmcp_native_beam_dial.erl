%% @doc Connecting to a name: all of its addresses, raced (RFC 8305, "Happy Eyeballs").
%%
%% The names of both families are looked up at once. Attempts start `attempt_delay_ms' apart, or
%% at once when one fails, families in turn and IPv6 first; the first that connects wins.
-module(erlmcp_native_beam_dial).

-export([connect/2, next_address/1]).

-export_type([addresses/0]).

%% The wait for IPv6 addresses when those of IPv4 are there first (RFC 8305, section 3).
-define(RESOLUTION_DELAY_MS, 50).

%% A Unix-domain listener whose backlog is full answers at once instead of when it has room.
-define(BACKLOG_RETRY_MS, 10).

-type addresses() :: #{
    inet6 := [inet:ip_address()], inet := [inet:ip_address()], next := inet6 | inet
}.

-record(race, {
    endpoint :: erlmcp_native:endpoint(),
    options :: erlmcp_native_options:connection(),
    socket_options :: [gen_tcp:connect_option()],
    ref :: reference(),
    deadline :: integer(),
    addresses = #{inet6 => [], inet => [], next => inet6} :: addresses(),
    resolving = [] :: [inet6 | inet],
    attempts = [] :: [pid()],
    %% When the next attempt may start although others are under way.
    next_at :: integer(),
    error = nxdomain :: erlmcp_native:reason()
}).

%% @doc Connects, within `connect_timeout_ms'. The calling process becomes the owner of the
%% socket. It must have nothing else to do: processes are linked to it, and they end with it.
-spec connect(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    {ok, gen_tcp:socket()} | {error, erlmcp_native:reason()}.
connect(Endpoint, #{connect_timeout_ms := Timeout} = Options) ->
    Now = now_ms(),
    Race = #race{
        endpoint = Endpoint,
        options = Options,
        socket_options = erlmcp_native_beam_inet:connect_options(Endpoint, Options),
        ref = make_ref(),
        deadline = Now + Timeout,
        next_at = Now
    },
    case Endpoint of
        #{host := Name} when is_binary(Name) -> race(resolve(Name, Race));
        #{host := Ip} -> race(found(family(Ip), [Ip], Race));
        #{path := Path} -> local(Path, Race);
        #{abstract := Name} -> local(<<0, Name/binary>>, Race)
    end.

%% @doc The next address to try: families in turn, as far as there are addresses of both.
-spec next_address(addresses()) -> {inet:ip_address(), addresses()} | none.
next_address(#{inet6 := [], inet := []}) ->
    none;
next_address(#{next := Family} = Addresses) ->
    Other = other(Family),
    case Addresses of
        #{Family := [Ip | Ips]} -> {Ip, Addresses#{Family := Ips, next := Other}};
        #{Other := [Ip | Ips]} -> {Ip, Addresses#{Other := Ips, next := Family}}
    end.

resolve(Name, #race{ref = Ref, options = Options} = Race) ->
    Self = self(),
    Families = families(Options),
    Host = unicode:characters_to_list(Name),
    Resolve = fun(Family) ->
        spawn_link(fun() -> Self ! {Ref, resolved, Family, inet:getaddrs(Host, Family)} end)
    end,
    lists:foreach(Resolve, Families),
    Race#race{resolving = Families}.

%% An address to bind to decides the family.
families(#{bind := any}) -> [inet6, inet];
families(#{bind := Ip}) -> [family(Ip)].

race(Race0) ->
    case start_attempts(Race0, now_ms()) of
        #race{attempts = [], resolving = [], error = Error} ->
            {error, Error};
        #race{ref = Ref} = Race ->
            receive
                {Ref, resolved, Family, Result} -> race(resolved(Family, Result, Race));
                {Ref, attempt, Pid, Result} -> attempted(Pid, Result, Race)
            after wait(Race, now_ms()) -> timeout(Race, now_ms())
            end
    end.

start_attempts(#race{resolving = [inet6], attempts = [], next_at = At} = Race, Now) when At > Now ->
    Race;
start_attempts(#race{attempts = [_ | _], next_at = At} = Race, Now) when At > Now ->
    Race;
start_attempts(#race{addresses = Addresses, options = Options} = Race, Now) ->
    case next_address(Addresses) of
        {Ip, Rest} ->
            Pid = attempt(Ip, Race),
            Race#race{
                addresses = Rest,
                attempts = [Pid | Race#race.attempts],
                next_at = Now + maps:get(attempt_delay_ms, Options)
            };
        none ->
            Race
    end.

attempt(Ip, #race{ref = Ref, endpoint = #{port := Port}, deadline = Deadline} = Race) ->
    Self = self(),
    Options = Race#race.socket_options,
    spawn_link(fun() ->
        Left = max(1, Deadline - now_ms()),
        Self ! {Ref, attempt, self(), hand_over(tcp_connect(Ip, Port, Options, Left), Self)}
    end).

%% A dial to a free port of the ephemeral range on this machine can meet its own socket
%% (simultaneous open). Nobody listens there.
tcp_connect(Ip, Port, Options, Timeout) ->
    case gen_tcp:connect(Ip, Port, [{inet_backend, inet}, family(Ip) | Options], Timeout) of
        {ok, Socket} = Connected ->
            case {inet:sockname(Socket), inet:peername(Socket)} of
                {{ok, Same}, {ok, Same}} ->
                    ok = gen_tcp:close(Socket),
                    {error, econnrefused};
                _ ->
                    Connected
            end;
        {error, _} = Error ->
            Error
    end.

hand_over({ok, Socket}, Pid) ->
    case gen_tcp:controlling_process(Socket, Pid) of
        ok -> {ok, Socket};
        {error, _} -> {error, closed}
    end;
hand_over(Error, _) ->
    Error.

resolved(Family, {ok, Ips}, Race) ->
    found(Family, Ips, forget(Family, Race));
resolved(Family, {error, timeout}, Race) ->
    failed(timeout, forget(Family, Race));
%% A name that cannot be looked up at all has no address either.
resolved(Family, {error, _}, Race) ->
    failed(nxdomain, forget(Family, Race)).

forget(Family, #race{resolving = Resolving} = Race) ->
    Race#race{resolving = lists:delete(Family, Resolving)}.

found(Family, Ips, #race{addresses = Addresses, options = Options} = Race) ->
    case lists:member(Family, families(Options)) of
        true -> wait_for_inet6(Race#race{addresses = Addresses#{Family := Ips}});
        false -> failed(unreachable, Race)
    end.

wait_for_inet6(#race{resolving = [inet6], attempts = []} = Race) ->
    Race#race{next_at = now_ms() + ?RESOLUTION_DELAY_MS};
wait_for_inet6(Race) ->
    Race.

attempted(Pid, {ok, Socket}, #race{attempts = Attempts, ref = Ref}) ->
    lists:foreach(fun stop/1, lists:delete(Pid, Attempts)),
    close_late(Ref),
    {ok, Socket};
attempted(Pid, {error, Reason}, #race{attempts = Attempts} = Race) ->
    Failed = failed(erlmcp_native_beam_inet:reason(Reason), Race),
    race(Failed#race{attempts = lists:delete(Pid, Attempts), next_at = now_ms()}).

stop(Pid) ->
    unlink(Pid),
    exit(Pid, kill).

close_late(Ref) ->
    receive
        {Ref, attempt, _, {ok, Socket}} ->
            ok = gen_tcp:close(Socket),
            close_late(Ref);
        {Ref, _, _, _} ->
            close_late(Ref)
    after 0 -> ok
    end.

%% The first error counts, but that one family has no route or no address says nothing about the
%% other.
failed(Reason, #race{error = Error} = Race) when
    Error =:= nxdomain; Error =:= unreachable, Reason =/= nxdomain
->
    Race#race{error = Reason};
failed(_, Race) ->
    Race.

wait(#race{addresses = Addresses, deadline = Deadline, next_at = At}, Now) ->
    case next_address(Addresses) of
        none -> max(0, Deadline - Now);
        _ -> max(0, min(Deadline, At) - Now)
    end.

timeout(#race{deadline = Deadline}, Now) when Now >= Deadline -> {error, timeout};
timeout(Race, _) -> race(Race).

local(Address, #race{socket_options = Options, deadline = Deadline} = Race) ->
    Left = max(0, Deadline - now_ms()),
    case local_connect({local, Address}, [{inet_backend, inet}, local | Options], Left) of
        {error, eagain} when Left > 0 ->
            receive
            after min(Left, ?BACKLOG_RETRY_MS) -> local(Address, Race)
            end;
        {error, eagain} ->
            {error, timeout};
        {error, Reason} ->
            {error, erlmcp_native_beam_inet:reason(Reason)};
        Connected ->
            Connected
    end.

%% `inet' takes EAGAIN for a connect that is under way and then for one that is done.
local_connect(Address, Options, Timeout) ->
    case gen_tcp:connect(Address, 0, Options, Timeout) of
        {ok, Socket} = Connected ->
            case inet:peername(Socket) of
                {error, enotconn} ->
                    ok = gen_tcp:close(Socket),
                    {error, eagain};
                _ ->
                    Connected
            end;
        {error, _} = Error ->
            Error
    end.

family(Ip) when tuple_size(Ip) =:= 4 -> inet;
family(Ip) when tuple_size(Ip) =:= 8 -> inet6.

other(inet6) -> inet;
other(inet) -> inet6.

now_ms() -> erlang:monotonic_time(millisecond).
