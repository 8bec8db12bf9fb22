%% @doc One way of use for four HTTP clients: so many POSTs, so many of them at a time.
-module(bench_http_driver).

-export([open/4, certificates/0]).

-export_type([kind/0, scheme/0, driver/0]).

-type kind() :: nif | beam | httpc | gun.

-type scheme() :: http | {https, CaFile :: file:filename()}.

-type driver() :: {Run :: fun((Body :: binary(), Count :: pos_integer()) -> ok), fun(() -> term())}.

-define(TIMEOUT_MS, 30000).
-define(TAKE_BYTES, 1048576).

%% @doc A client for requests to that address, this many at a time. Where the client has one
%% process for all its requests there is one; httpc and gun are called by one process for each
%% that is under way, gun with a connection of its own, which is how gun is fastest.
-spec open(kind(), scheme(), Address, pos_integer()) -> driver() when
    Address :: {string(), inet:port_number()}.
open(httpc, Scheme, {Host, Port}, Concurrent) ->
    {ok, _} = application:ensure_all_started(inets),
    Profile = list_to_atom("bench_" ++ integer_to_list(erlang:unique_integer([positive]))),
    {ok, Pid} = inets:start(httpc, [{profile, Profile}]),
    ok = httpc:set_options([{max_sessions, Concurrent}, {max_keep_alive_length, 1000000}], Profile),
    Url = lists:concat([scheme(Scheme), "://", Host, ":", Port, "/mcp"]),
    Post = fun(Body, none) ->
        Request = {Url, [], "application/json", Body},
        {ok, {{_, 200, _}, _, Body}} =
            httpc:request(post, Request, [{ssl, ssl(Scheme)}], [{body_format, binary}], Profile),
        none
    end,
    Run = in_parallel(Post, lists:duplicate(Concurrent, none)),
    {Run, fun() -> inets:stop(httpc, Pid) end};
open(gun, Scheme, {Host, Port}, Concurrent) ->
    {ok, _} = application:ensure_all_started(gun),
    Conns = [gun_open(Scheme, Host, Port) || _ <- lists:seq(1, Concurrent)],
    Post = fun(Body, Conn) ->
        Headers = [{<<"content-type">>, <<"application/json">>}],
        Stream = gun:post(Conn, "/mcp", Headers, Body, #{reply_to => self()}),
        {response, nofin, 200, _} = gun:await(Conn, Stream, ?TIMEOUT_MS),
        {ok, Body} = gun:await_body(Conn, Stream, ?TIMEOUT_MS),
        Conn
    end,
    {in_parallel(Post, Conns), fun() -> lists:foreach(fun gun:close/1, Conns) end};
open(Path, Scheme, {Host, Port}, Concurrent) ->
    {ok, Module} = erlmcp_native_http_client_path:use(Path),
    {ok, Options} = erlmcp_native_http_options:client(
        (tls(Scheme))#{max_connections => Concurrent, protocols => [http1]}
    ),
    Origin = #{
        scheme => list_to_atom(scheme(Scheme)), host => list_to_binary(Host), port => Port
    },
    {ok, Client} = Module:open(Origin, Options),
    Key = {?MODULE, make_ref()},
    put(Key, Client),
    Run = fun(Body, Count) ->
        Next = run(Module, Body, Count, Concurrent, get(Key)),
        put(Key, Next),
        ok
    end,
    {Run, fun() -> Module:close(erase(Key)) end}.

scheme(http) -> "http";
scheme({https, _}) -> "https".

ssl(http) -> [];
ssl({https, CaFile}) -> [{verify, verify_peer}, {cacertfile, CaFile}].

tls(http) -> #{};
tls({https, CaFile}) -> #{tls => #{cacertfile => CaFile}}.

gun_open(Scheme, Host, Port) ->
    Options =
        case Scheme of
            http -> #{protocols => [http]};
            _ -> #{protocols => [http], transport => tls, tls_opts => ssl(Scheme)}
        end,
    {ok, Conn} = gun:open(Host, Port, Options),
    {ok, http} = gun:await_up(Conn, ?TIMEOUT_MS),
    Conn.

in_parallel(Post, [State]) ->
    fun(Body, Count) -> repeat(Post, Body, Count, State) end;
in_parallel(Post, States) ->
    fun(Body, Count) ->
        Each = Count div length(States),
        Workers = [
            spawn_monitor(fun() -> repeat(Post, Body, Each, State) end)
         || State <- States
        ],
        lists:foreach(
            fun({Pid, Monitor}) ->
                receive
                    {'DOWN', Monitor, process, Pid, Reason} -> normal = Reason
                end
            end,
            Workers
        )
    end.

repeat(_, _, 0, _) ->
    ok;
repeat(Post, Body, Count, State) ->
    repeat(Post, Body, Count - 1, Post(Body, State)).

run(Module, Body, Count, Concurrent, Client) ->
    First = min(Count, Concurrent),
    Started = start(Module, Body, First, Client),
    collect(Module, Body, Count - First, First, Started).

start(_, _, 0, Client) ->
    Client;
start(Module, Body, Count, Client) ->
    Request = #{
        method => <<"POST">>,
        target => <<"/mcp">>,
        headers => [{<<"content-type">>, <<"application/json">>}],
        body => Body,
        timeout_ms => ?TIMEOUT_MS,
        total_timeout_ms => infinity
    },
    {ok, _, Next} = Module:request(Request, Client),
    start(Module, Body, Count - 1, Next).

collect(_, _, 0, 0, Client) ->
    Client;
collect(Module, Body, Left, Open, Client) ->
    receive
        Msg ->
            {Events, Next} = Module:handle_info(Msg, Client),
            {Done, Taken} = lists:foldl(
                fun(Event, Acc) -> event(Module, Event, Acc) end, {0, Next}, Events
            ),
            More = min(Done, Left),
            Again = start(Module, Body, More, Taken),
            collect(Module, Body, Left - More, Open - Done + More, Again)
    after ?TIMEOUT_MS -> exit(timeout)
    end.

event(_, {head, _, 200, _}, Acc) ->
    Acc;
event(Module, {readable, Id}, {Done, Client}) ->
    case Module:take(Id, ?TAKE_BYTES, Client) of
        {_, done, Next} -> {Done + 1, Next};
        {_, more, Next} -> event(Module, {readable, Id}, {Done, Next});
        {_, armed, Next} -> {Done, Next}
    end.

%% @doc Files of a certificate for localhost and of the authority behind it.
-spec certificates() -> #{cert := string(), key := string(), ca := string()}.
certificates() ->
    Dir = filename:absname("_build/bench/certs"),
    ok = test_certs:make(Dir),
    File = fun(Name) -> filename:join(Dir, Name) end,
    #{cert => File("server.pem"), key => File("server.key"), ca => File("ca.pem")}.
