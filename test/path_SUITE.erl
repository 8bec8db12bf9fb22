%% What a node makes of the setting `path', with and without the library and a JSON codec.
-module(path_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-define(WAIT, 30000).

all() ->
    [
        the_library_by_default,
        without_the_library,
        without_the_library_and_json,
        nif_by_name_without_the_library,
        beam_by_name,
        beam_by_name_without_json,
        port_by_name,
        port_by_name_without_json,
        port_by_name_without_the_program,
        no_path_at_all,
        workers_by_schedulers,
        workers_by_name,
        workers_out_of_range
    ].

%% The application without its library.
init_per_suite(Config) ->
    Dir = filename:join(?config(priv_dir, Config), "erlmcp_native/ebin"),
    ok = filelib:ensure_path(Dir),
    {ok, Files} = file:list_dir(whole()),
    [{ok, _} = file:copy(filename:join(whole(), File), filename:join(Dir, File)) || File <- Files],
    [{bare, Dir} | Config].

end_per_suite(_) ->
    ok.

the_library_by_default(_) ->
    ?assertEqual({ok, nif, <<"[1]">>}, start(whole(), undefined, jsx())).

without_the_library(Config) ->
    ?assertEqual({ok, beam, <<"[1]">>}, start(bare(Config), undefined, jsx())).

without_the_library_and_json(Config) ->
    ?assertEqual({ok, beam, json(<<"[1]">>)}, start(bare(Config), undefined, [])).

nif_by_name_without_the_library(Config) ->
    ?assertMatch({error, {path_unavailable, nif, _}}, start(bare(Config), nif, jsx())).

beam_by_name(_) ->
    ?assertEqual({ok, beam, <<"[1]">>}, start(whole(), beam, jsx())).

beam_by_name_without_json(_) ->
    Expected =
        case json(available) of
            available -> {ok, beam, <<"[1]">>};
            no_json -> {error, no_json}
        end,
    ?assertEqual(Expected, start(whole(), beam, [])).

port_by_name(_) ->
    ?assertEqual({ok, port, <<"[1]">>}, start(whole(), port, jsx())).

port_by_name_without_json(_) ->
    ?assertEqual({ok, port, json(<<"[1]">>)}, start(whole(), port, [])).

port_by_name_without_the_program(Config) ->
    ?assertEqual(
        {error, {path_unavailable, port, no_program}}, start(bare(Config), port, jsx())
    ).

no_path_at_all(_) ->
    ?assertEqual({error, {option, path, rust}}, start(whole(), rust, jsx())).

workers_by_schedulers(_) ->
    [
        ?assertEqual({ok, [Workers]}, start(whole(), #{}, ["+S", Online], threads))
     || {Online, Workers} <- [{"1:1", 1}, {"3:3", 1}, {"4:4", 2}, {"8:8", 2}, {"8:2", 1}]
    ].

workers_by_name(_) ->
    ?assertEqual({ok, [3]}, start(whole(), #{workers => 3, path => nif}, [], threads)),
    ?assertEqual({ok, [3]}, start(whole(), #{workers => 3, path => port}, jsx(), threads)),
    ?assertEqual({ok, [1024]}, start(whole(), #{workers => 1024}, [], threads)).

workers_out_of_range(_) ->
    [
        ?assertEqual(
            {error, {option, workers, Workers}},
            start(whole(), #{workers => Workers, path => Path}, jsx(), threads)
        )
     || Workers <- [0, 1025, many], Path <- [nif, port]
    ].

%% Starts the application on a node of its own and tells which path it took and what JSON is
%% there.
start(Ebin, Path, Jsx) ->
    Settings = maps:from_list([{path, Path} || Path =/= undefined]),
    case start(Ebin, Settings, Jsx, encoded) of
        {ok, [Taken, Json]} -> {ok, Taken, Json};
        Error -> Error
    end.

start(Ebin, Settings, Args, Tell) ->
    {ok, Peer, _} = peer:start_link(#{
        connection => standard_io,
        %% The one thing that may lead to jsx is the argument.
        env => [{"ERL_LIBS", ""}],
        args => ["-pa", filename:dirname(code:which(?MODULE)), Ebin | Args]
    }),
    On = fun(M, F, A) -> peer:call(Peer, M, F, A, ?WAIT) end,
    ok = On(application, load, [erlmcp_native]),
    [
        ok = On(application, set_env, [erlmcp_native, Key, Value])
     || {Key, Value} <- maps:to_list(Settings)
    ],
    Result =
        case On(application, ensure_all_started, [erlmcp_native]) of
            {ok, _} -> {ok, On(?MODULE, Tell, [])};
            {error, {erlmcp_native, {Reason, _}}} -> {error, Reason}
        end,
    peer:stop(Peer),
    Result.

%% These run in the other node.

threads() ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}),
    #{tokio_workers := #{value := Count}} = erlmcp_native_metrics:overview(runtime),
    ok = erlmcp_native:close(Listener),
    [Count].

encoded() ->
    [erlmcp_native_path:default(), json()].

json() ->
    try
        erlmcp_native_json:encode([1])
    catch
        error:no_json -> no_json
    end.

whole() -> filename:join(code:lib_dir(erlmcp_native), "ebin").

bare(Config) -> ?config(bare, Config).

jsx() -> [filename:dirname(code:which(jsx))].

%% OTP has JSON from release 27 on.
json(Available) ->
    case code:which(json) of
        non_existing -> no_json;
        _ -> Available
    end.
