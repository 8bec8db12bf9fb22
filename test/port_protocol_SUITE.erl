%% The wire format of the port program, by the golden vectors that Rust's tests read, too, and the
%% JSON that becomes terms there.
-module(port_protocol_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").
-include("props.hrl").
-include("../erlang/erlmcp_native_port.hrl").

-import(proper_types, [binary/0, list/1, oneof/1]).

-define(WAIT, 10000).

all() ->
    [
        to_the_program,
        from_the_program,
        frames,
        json_frames,
        json_vectors,
        json_of_any_kind,
        json_test_suite,
        atoms_of_the_program
    ].

init_per_suite(Config) ->
    Root = filename:join(code:lib_dir(erlmcp_native), "../../../.."),
    test_config:start([erlmcp_native], [{root, Root} | Config]).

end_per_suite(Config) -> test_config:stop(Config).

%% What is written is what the vectors say; terms may be written in other ways.
to_the_program(Config) ->
    Cat = open_port({spawn, "cat"}, [{packet, 4}, binary]),
    Sent = fun(Op, Id, Body) ->
        ok = erlmcp_native_port:command(Cat, Op, Id, Body),
        receive {Cat, {data, Packet}} -> Packet after ?WAIT -> ct:fail(nothing) end
    end,
    Same = fun(Name, Op, Id, Body) ->
        ?assertEqual({Name, vector(Name, Config)}, {Name, Sent(Op, Id, Body)})
    end,
    Same("vm_hello", ?TO_HELLO, 0, <<?PORT_VERSION:16, 7:32, 2:16, 2>>),
    Same("vm_ping", ?TO_PING, 0, []),
    Same("vm_processed", ?TO_PROCESSED, 0, <<1048640:64>>),
    Same("vm_close", ?TO_CLOSE, 12, []),
    Same("vm_log_level", ?TO_LOG_LEVEL, 0, <<4>>),
    Same("vm_metrics", ?TO_METRICS, 12, []),
    Same("vm_send", ?TO_SEND, 12, ["{\"id\"", <<":1}">>]),
    Same("vm_send_urgent", ?TO_SEND_URGENT, 12, <<"{}">>),
    Same("vm_send_normal", ?TO_SEND_NORMAL, 12, <<"{}">>),
    Same("vm_grant", ?TO_GRANT, 12, <<524300:32>>),
    Same("vm_want_room", ?TO_WANT_ROOM, 12, []),
    Same("vm_info", ?TO_INFO, 12, <<5:64>>),
    Same("vm_accept", ?TO_ACCEPT, 14, <<16:32>>),
    {ok, Endpoint} = erlmcp_native_options:endpoint(#{host => "localhost", port => 4000}),
    {ok, Options} = erlmcp_native_options:connection(#{tls => true}),
    <<?TO_CONNECT, 12:64, 1048576:32, Connect/binary>> = vector("vm_connect", Config),
    ?assertEqual({Endpoint, Options}, binary_to_term(Connect)),
    Same("vm_stderr_next", ?TO_STDERR_NEXT, 12, []),
    {ok, Given} = erlmcp_native_options:target(child()),
    {ok, Child} = erlmcp_native_port_child:new(Given),
    {ok, Plain} = erlmcp_native_options:connection(#{}),
    <<?TO_CHILD, 12:64, 1048576:32, Start/binary>> = vector("vm_child", Config),
    ?assertEqual({erlmcp_native_port_child:wire(Child), Plain}, binary_to_term(Start)),
    {ok, Here} = erlmcp_native_options:endpoint(#{port => 0}),
    {ok, Listening} = erlmcp_native_options:listener(#{}),
    <<?TO_LISTEN, 14:64, Listen/binary>> = vector("vm_listen", Config),
    ?assertEqual({Here, Listening}, binary_to_term(Listen)),
    true = port_close(Cat).

from_the_program(Config) ->
    Is = fun(Name, Packet) -> ?assertEqual({Name, Packet}, {Name, vector(Name, Config)}) end,
    Is("program_hello", <<?FROM_HELLO, 0:64, ?PORT_VERSION:16, 4711:32>>),
    Is("program_pong", <<?FROM_PONG, 0:64>>),
    Is("program_garbage", <<?FROM_GARBAGE, 0:64>>),
    Is("program_born", <<?FROM_BORN, (1 bsl 40 + 1):64, 14:64>>),
    Is("program_opened", <<?FROM_OPENED, 12:64>>),
    Is("program_eof", <<?FROM_EOF, 12:64>>),
    Is("program_sent", <<?FROM_SENT, 12:64, 2097153:64>>),
    Is("program_room", <<?FROM_ROOM, 12:64, 1000:64>>),
    Is("program_oversized", <<?FROM_OVERSIZED, 12:64, 16777217:64>>),
    Term = fun(Name, Head) ->
        Size = byte_size(Head),
        <<Head:Size/binary, Term/binary>> = vector(Name, Config),
        erlmcp_native_port_term:read(Term)
    end,
    Down = <<?FROM_DOWN, 12:64>>,
    ?assertEqual(closed, Term("program_down", Down)),
    ?assertEqual({tls, unknown_ca}, Term("program_down_tls", Down)),
    ?assertEqual({posix, eacces}, Term("program_down_posix", Down)),
    ?assertEqual({exit_status, 3}, Term("program_down_exit_status", Down)),
    ?assertEqual({signal, 9}, Term("program_down_signal", Down)),
    ?assertEqual({command, enoent}, Term("program_down_command", Down)),
    ?assertEqual({cwd, enotdir}, Term("program_down_cwd", Down)),
    ?assertEqual([<<"line">>, 3, <<195, 169>>], Term("program_stderr", <<?FROM_STDERR, 12:64>>)),
    ?assertEqual({{127, 0, 0, 1}, 4000}, Term("program_listening", <<?FROM_LISTENING, 14:64>>)),
    ?assertEqual(
        #{
            state => open,
            peername => {{127, 0, 0, 1}, 4000},
            sockname => unnamed,
            peercert => undefined,
            os_pid => undefined,
            frames_in => 1,
            bytes_in => 300,
            frames_out => 70000,
            bytes_out => 1 bsl 33,
            inbound_bytes => 0,
            queue_bytes => 5,
            buffers => #{
                read_bytes => 4096,
                high_water_bytes => 131072,
                min => 65536,
                max => 1048576,
                reason => quick_owner
            }
        },
        Term("program_info", <<?FROM_INFO, 12:64, 5:64>>)
    ).

child() ->
    #{command => "cat", args => ["-u"], env => {only, [{"A", "b"}]}, cwd => "/", stderr => owner}.

frames(Config) ->
    {Cost, Inbound} = pushed(["program_frames", "program_oversized"], Config),
    Items = [<<"first">>, <<"second">>, {oversized, 16777217}],
    ?assertMatch({Items, Cost, _}, erlmcp_native_port_inbound:take(Inbound, 10, 1000)),
    %% By one, and each counts when all of its packet is taken.
    {[<<"first">>], 0, One} = erlmcp_native_port_inbound:take(Inbound, 1, 0),
    {[], 0, One} = erlmcp_native_port_inbound:take(One, 0, 1000),
    {[<<"second">>], _, Two} = erlmcp_native_port_inbound:take(One, 1, 1000),
    {[{oversized, 16777217}], 8, None} = erlmcp_native_port_inbound:take(Two, 5, 5),
    ?assert(erlmcp_native_port_inbound:is_empty(None)),
    ?assertEqual(0, erlmcp_native_port_inbound:waiting(None)).

json_frames(Config) ->
    {Cost, Inbound} = pushed(["program_json"], Config),
    Items = [
        {json, #{<<"id">> => 1}}, {oversized, 100}, {bad_json, {unexpected_end, 3}, <<"[1,">>}
    ],
    ?assertMatch({Items, Cost, _}, erlmcp_native_port_inbound:take(Inbound, 10, 1000)),
    %% What was discarded has no bytes.
    {[_, {oversized, 100}], 0, One} = erlmcp_native_port_inbound:take(Inbound, 10, 0),
    ?assertMatch({[{bad_json, _, _}], Cost, _}, erlmcp_native_port_inbound:take(One, 10, 3)).

pushed(Names, Config) ->
    lists:foldl(
        fun(Name, {Sum, Inbound}) ->
            {Cost, Next} = erlmcp_native_port_inbound:push(vector(Name, Config), Inbound),
            {Sum + Cost, Next}
        end,
        {0, erlmcp_native_port_inbound:new(false)},
        Names
    ).

json_vectors(Config) ->
    [
        ?assertEqual({Document, item(Document)}, {Document, erlmcp_native_port_term:read(Item)})
     || {Document, Item} <- documents(Config)
    ].

%% Whatever it is, it becomes what the native decoder makes of it.
json_of_any_kind(_) ->
    {Conn, Peer} = connection(),
    Property = ?FORALL(
        Documents,
        list(oneof([json_gen:document(), json_gen:broken(), json_gen:message(), binary()])),
        [item(D) || D <- Documents] =:= through(Documents, Conn, Peer)
    ),
    ?assert(proper:quickcheck(Property, [{numtests, 300}, {to_file, user}])).

json_test_suite(Config) ->
    Files = filename:join(?config(root, Config), "../shared/json-test-suite/*/*.json"),
    case filelib:wildcard(Files) of
        [] ->
            {skip, "no ../shared/json-test-suite beside the checkout"};
        Names ->
            {Conn, Peer} = connection(),
            Texts = [element(2, {ok, _} = file:read_file(Name)) || Name <- Names],
            Items = through(Texts, Conn, Peer),
            Differ = [N || {N, T, I} <- lists:zip3(Names, Texts, Items), I =/= item(T)],
            ?assertEqual([], Differ)
    end.

%% Every name in the program that can become an atom here is one already.
atoms_of_the_program(Config) ->
    Files = filelib:wildcard(filename:join(?config(root, Config), "native/port/src/*.rs")),
    Known = [atom_to_binary(Atom) || Atom <- erlmcp_native_port_term:atoms()],
    Unknown = [
        {filename:basename(File), Name}
     || File <- Files,
        {ok, Source} <- [file:read_file(File)],
        {match, Names} <- [
            re:run(Source, "atom\\(\"([a-z_0-9]+)\"\\)", [global, {capture, [1], binary}])
        ],
        [Name] <- Names,
        not lists:member(Name, Known)
    ],
    ?assertEqual([], Unknown).

%% What the native decoder, and so the option on the path `nif', makes of a document.
item(Document) ->
    case erlmcp_native_json:decode(Document, #{path => nif}) of
        {ok, Term} -> {json, Term};
        {error, Fault} -> {bad_json, Fault, Document}
    end.

%% Documents may have line breaks.
connection() ->
    Options = #{path => port, active => true, framing => length4, decode => json},
    test_socket:pair(Options, [{packet, 4}]).

through(Documents, Conn, Peer) ->
    [ok = gen_tcp:send(Peer, Document) || Document <- Documents],
    received(length(Documents), Conn).

received(0, _) ->
    [];
received(Count, Conn) ->
    receive
        {erlmcp_native, Conn, {frames, Items}} -> Items ++ received(Count - length(Items), Conn)
    after ?WAIT -> ct:fail(missing)
    end.

vector(Name, Config) ->
    Prefix = list_to_binary(Name ++ " "),
    [Line] = [L || L <- lines("packets.txt", Config), string:prefix(L, Prefix) =/= nomatch],
    <<Size:32, Packet:Size/binary>> = hex(string:prefix(Line, Prefix)),
    Packet.

documents(Config) ->
    [
        {Document, hex(Item)}
     || Line <- lines("json.txt", Config),
        [Document, Item] <- [binary:split(Line, <<"\t">>)]
    ].

lines(Name, Config) ->
    {ok, Text} = file:read_file(filename:join([?config(root, Config), "test/port_vectors", Name])),
    [L || <<C, _/binary>> = L <- binary:split(Text, <<"\n">>, [global, trim]), C =/= $#].

hex(Text) ->
    << <<(binary_to_integer(<<A, B>>, 16))>> || <<A, B>> <= Text >>.
