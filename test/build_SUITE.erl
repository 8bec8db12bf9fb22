%% @doc The build as those who adopt this project meet it: rebar3 runs in a fresh checkout, with
%% this project as a git dependency, and in a release that is moved and started elsewhere.
-module(build_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-import(build_trees, [
    cargo_calls/1,
    clone/2,
    forget_cargo_calls/1,
    library/1,
    library_in/1,
    path/1,
    prebuilt_env/1,
    probe/2,
    rebar3/3,
    rebar3/4,
    release/1,
    required_rust/1,
    run/2,
    said/1,
    sharing_target/1,
    shims/2,
    start_interactive/1,
    start_release/1,
    status/1,
    substitute/3
]).

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_group/2, end_per_group/2]).
-export([
    dependency/1,
    dependency_again/1,
    release_elsewhere/1,
    release_with_a_broken_library/1,
    release_without_library/1,
    checkout/1,
    fresh_times_build_nothing/1,
    changed_source_builds/1,
    removed_library_builds/1,
    checkout_stays_clean/1,
    no_cargo/1,
    no_cargo_and_a_stale_library/1,
    no_toolchain/1,
    skip/1,
    prebuilt/1,
    prebuilt_missing/1,
    old_rust/1,
    old_otp/1,
    failing_build/1,
    takeover_apart/1,
    takeover_follows_its_sources/1,
    takeover_that_does_not_compile/1
]).

suite() ->
    [{timetrap, {minutes, 30}}].

all() ->
    [{group, adoption}, {group, checkout}, {group, conditions}].

%% Builds are dear: within a sequence each case goes on with what the former left.
groups() ->
    [
        {adoption, [sequence], [
            dependency,
            dependency_again,
            release_elsewhere,
            release_with_a_broken_library,
            release_without_library
        ]},
        {checkout, [sequence], [
            checkout,
            fresh_times_build_nothing,
            changed_source_builds,
            removed_library_builds,
            checkout_stays_clean
        ]},
        {conditions, [], [
            no_cargo,
            no_cargo_and_a_stale_library,
            no_toolchain,
            skip,
            prebuilt,
            prebuilt_missing,
            old_rust,
            old_otp,
            failing_build,
            takeover_apart,
            takeover_follows_its_sources,
            takeover_that_does_not_compile
        ]}
    ].

init_per_suite(Config) ->
    case [Tool || Tool <- ["cargo", "git", "rebar3"], os:find_executable(Tool) =:= false] of
        [] ->
            Dir = ?config(priv_dir, Config),
            Root = string:trim(run(code:priv_dir(erlmcp_native), "git rev-parse --show-toplevel")),
            Origin = filename:join(Dir, "origin"),
            build_trees:commit_tree(Root, Origin),
            [
                {origin, "file://" ++ Origin},
                {shims, build_trees:counting_cargo(filename:join(Dir, "shims"))},
                {cargo_calls, filename:join(Dir, "cargo_calls")},
                {without_rust, build_trees:without_rust(filename:join(Dir, "without_rust"))},
                {adopter, filename:join(Dir, "adopter")},
                {target, filename:join(Dir, "adopter/_build/default/lib/erlmcp_native/target")}
                | Config
            ];
        Missing ->
            {skip, {not_in_path, Missing}}
    end.

end_per_suite(Config) ->
    %% Hundreds of megabytes of build products.
    lists:foreach(fun file:del_dir_r/1, [?config(adopter, Config), release(Config)]).

init_per_group(checkout, Config) ->
    [{checkout, clone("checkout", Config)} | Config];
init_per_group(_, Config) ->
    Config.

end_per_group(_, _) ->
    ok.

%% In a dependency, a release

dependency(Config) ->
    Adopter = ?config(adopter, Config),
    Data = filename:join(?config(data_dir, Config), "adopter"),
    "" = run(?config(priv_dir, Config), "cp -R " ++ Data ++ " " ++ Adopter),
    RebarConfig = filename:join(Adopter, "rebar.config"),
    substitute(RebarConfig, "@ORIGIN@", ?config(origin, Config)),
    {0, _} = rebar3(Adopter, "compile", Config),
    ?assertMatch([_ | _], cargo_calls(Config)),
    ?assert([Call || "build " ++ _ = Call <- cargo_calls(Config), locked_release(Call)] =/= []),
    ?assert(filelib:is_file(filename:join(?config(target, Config), "release"))),
    ?assertMatch(#{status := loaded, path := nif, mode := interactive}, start_interactive(Adopter)).

dependency_again(Config) ->
    forget_cargo_calls(Config),
    {0, Output} = rebar3(?config(adopter, Config), "compile", Config),
    ?assertEqual([], cargo_calls(Config)),
    ?assertEqual([], said(Output)).

release_elsewhere(Config) ->
    Adopter = ?config(adopter, Config),
    {0, _} = rebar3(Adopter, "release", Config),
    Release = release(Config),
    ok = file:rename(filename:join(Adopter, "_build/default/rel/adopter"), Release),
    %% Nothing may lead back to where it was built.
    Hidden = Adopter ++ ".hidden",
    ok = file:rename(Adopter, Hidden),
    try start_release(Release) of
        Report ->
            ?assertMatch(#{mode := embedded, status := loaded, path := nif}, Report),
            #{code_path := CodePath, priv := Priv} = Report,
            ?assertEqual([], [Dir || Dir <- [Priv | CodePath], not lists:prefix(Release, Dir)])
    after
        ok = file:rename(Hidden, Adopter)
    end.

release_with_a_broken_library(Config) ->
    Release = release(Config),
    ok = file:write_file(library_in(Release), <<"not a library">>),
    ?assertMatch(
        #{mode := embedded, status := {failed, {load_failed, _}}, path := beam},
        start_release(Release)
    ).

release_without_library(Config) ->
    Release = release(Config),
    ok = file:delete(library_in(Release)),
    ?assertMatch(
        #{mode := embedded, status := {failed, _}, path := beam},
        start_release(Release)
    ).

%% In this checkout

checkout(Config) ->
    Dir = ?config(checkout, Config),
    {0, _} = rebar3(Dir, "compile", sharing_target(Config)),
    ?assert(filelib:is_regular(library(Dir))),
    %% The target directory was named: nothing else is made.
    ?assertNot(filelib:is_file(filename:join(Dir, "target"))),
    ?assertMatch(loaded, status(Dir)),
    forget_cargo_calls(Config),
    {0, Output} = rebar3(Dir, "compile", Config),
    ?assertEqual([], said(Output)),
    ?assertEqual([], cargo_calls(Config)).

fresh_times_build_nothing(Config) ->
    Dir = ?config(checkout, Config),
    "" = run(Dir, "find . -type f -not -path './.git/*' -exec touch {} +"),
    forget_cargo_calls(Config),
    {0, _} = rebar3(Dir, "compile", Config),
    ?assertEqual([], cargo_calls(Config)).

changed_source_builds(Config) ->
    Dir = ?config(checkout, Config),
    {ok, Before} = file:read_file_info(library(Dir)),
    "" = run(Dir, "echo '// A change.' >> native/core/src/lib.rs"),
    forget_cargo_calls(Config),
    {0, _} = rebar3(Dir, "compile", sharing_target(Config)),
    ?assertMatch([_ | _], cargo_calls(Config)),
    %% Another file, not the same one written over: a running node has that one mapped.
    {ok, After} = file:read_file_info(library(Dir)),
    ?assertNotEqual(Before#file_info.inode, After#file_info.inode),
    ?assertMatch(loaded, status(Dir)).

removed_library_builds(Config) ->
    Dir = ?config(checkout, Config),
    ok = file:delete(library(Dir)),
    {0, _} = rebar3(Dir, "compile", sharing_target(Config)),
    ?assert(filelib:is_regular(library(Dir))).

checkout_stays_clean(Config) ->
    Dir = ?config(checkout, Config),
    "" = run(Dir, "git checkout -q native/core/src/lib.rs"),
    ?assertEqual("", run(Dir, "git status --porcelain")).

%% Under conditions

no_cargo(Config) ->
    Dir = clone("no_cargo", Config),
    {0, Output} = rebar3(Dir, "compile", [{"PATH", ?config(without_rust, Config)}], Config),
    ?assertMatch([_], said(Output)),
    ?assert(mentions(hd(said(Output)), <<"no Rust in PATH">>)),
    ?assert(mentions(hd(said(Output)), <<"https://rustup.rs">>)),
    ?assert(mentions(hd(said(Output)), required_rust(Dir))),
    ?assertMatch({failed, _}, status(Dir)).

%% It may not fit the Erlang modules any more.
no_cargo_and_a_stale_library(Config) ->
    Dir = clone("stale", Config),
    {0, _} = rebar3(Dir, "compile", prebuilt_env(Config), Config),
    ?assert(filelib:is_regular(library(Dir))),
    {0, Output} = rebar3(Dir, "compile", [{"PATH", ?config(without_rust, Config)}], Config),
    ?assertMatch([_, _], said(Output)),
    ?assertNot(filelib:is_file(library(Dir))).

%% As rustup leaves it before a toolchain is installed: commands that fail.
no_toolchain(Config) ->
    Dir = clone("no_toolchain", Config),
    Shims = shims(Dir, [{"cargo", "exit 1"}, {"rustc", "exit 1"}]),
    {0, Output} = rebar3(Dir, "compile", [{"PATH", path([Shims])}], Config),
    ?assertMatch([_], said(Output)),
    ?assertNot(filelib:is_file(library(Dir))).

skip(Config) ->
    Dir = clone("skip", Config),
    {0, _} = rebar3(Dir, "compile", prebuilt_env(Config), Config),
    forget_cargo_calls(Config),
    Skip = [{"ERLMCP_NATIVE_SKIP", "1"}],
    {0, Removed} = rebar3(Dir, "compile", Skip, Config),
    ?assertMatch([_], said(Removed)),
    ?assertNot(filelib:is_file(library(Dir))),
    {0, Silent} = rebar3(Dir, "compile", Skip, Config),
    ?assertEqual([], said(Silent)),
    ?assertEqual([], cargo_calls(Config)),
    ?assertMatch({failed, _}, status(Dir)).

prebuilt(Config) ->
    Dir = clone("prebuilt", Config),
    forget_cargo_calls(Config),
    [{_, File}] = Env = prebuilt_env(Config),
    {0, _} = rebar3(Dir, "compile", Env, Config),
    ?assertEqual(file:read_file(File), file:read_file(library(Dir))),
    {ok, Before} = file:read_file_info(library(Dir)),
    {0, Again} = rebar3(Dir, "compile", Env, Config),
    ?assertEqual([], said(Again)),
    ?assertEqual({ok, Before}, file:read_file_info(library(Dir))),
    ?assertEqual([], cargo_calls(Config)),
    ?assertMatch(loaded, status(Dir)),
    %% A relative name is relative to the project that rebar3 was called for.
    {ok, _} = file:copy(File, filename:join(Dir, "ready.so")),
    ok = file:delete(library(Dir)),
    {0, _} = rebar3(Dir, "compile", [{"ERLMCP_NATIVE_PREBUILT", "ready.so"}], Config),
    ?assertMatch(loaded, status(Dir)).

prebuilt_missing(Config) ->
    Dir = clone("prebuilt_missing", Config),
    Env = [{"ERLMCP_NATIVE_PREBUILT", "/nonexistent/erlmcp_native.so"}],
    {Status, Output} = rebar3(Dir, "compile", Env, Config),
    ?assertNotEqual(0, Status),
    ?assertMatch([_], said(Output)),
    ?assert(mentions(hd(said(Output)), <<"/nonexistent/erlmcp_native.so">>)).

old_rust(Config) ->
    Dir = clone("old_rust", Config),
    Rustc = "echo 'rustc 1.60.0 (7737e0b5c 2022-04-04)'",
    Shims = shims(Dir, [{"rustc", Rustc}]),
    {Status, Output} = rebar3(Dir, "compile", [{"PATH", path([Shims])}], Config),
    ?assertNotEqual(0, Status),
    [Line] = said(Output),
    ?assert(mentions(Line, <<"Rust ", (required_rust(Dir))/binary, " or newer is needed">>)),
    ?assert(mentions(Line, <<"1.60.0">>)),
    ?assert(mentions(Line, <<"ERLMCP_NATIVE_SKIP=1">>)).

old_otp(Config) ->
    Dir = clone("old_otp", Config),
    RebarConfig = filename:join(Dir, "rebar.config"),
    substitute(RebarConfig, "{minimum_otp_vsn, \"25\"}", "{minimum_otp_vsn, \"99\"}"),
    {Status, Output} = rebar3(Dir, "compile", Config),
    ?assertNotEqual(0, Status),
    ?assert(mentions(Output, <<"OTP release 99 or later is required">>)).

failing_build(Config) ->
    Dir = clone("failing", Config),
    "" = run(Dir, "echo 'not Rust' >> native/core/src/lib.rs"),
    {Status, Output} = rebar3(Dir, "compile", sharing_target(Config)),
    ?assertNotEqual(0, Status),
    ?assert(mentions(lists:last(said(Output)), <<"ERLMCP_NATIVE_SKIP=1">>)),
    ?assertNot(filelib:is_file(library(Dir))).

takeover_apart(Config) ->
    Dir = clone("takeover", Config),
    probe(Dir, "-export([found/0]).\nfound() -> here.\n"),
    {0, _} = rebar3(Dir, "compile", [{"ERLMCP_NATIVE_SKIP", "1"}], Config),
    Sources = filelib:wildcard(filename:join(Dir, "erlang/takeover/*.erl")),
    Expected = lists:sort([filename:basename(Source, ".erl") ++ ".beam" || Source <- Sources]),
    Takeover = filename:join(Dir, "priv/takeover"),
    {ok, Beams} = file:list_dir(Takeover),
    ?assertEqual(Expected, lists:sort(Beams)),
    Ebin = filename:join(Dir, "_build/default/lib/erlmcp_native/ebin"),
    {ok, InEbin} = file:list_dir(Ebin),
    ?assertEqual([], [Beam || Beam <- Beams, lists:member(Beam, InEbin)]),
    {ok, {_, [{abstract_code, Code}]}} =
        beam_lib:chunks(filename:join(Takeover, "erlmcp_probe.beam"), [abstract_code]),
    ?assertMatch({raw_abstract_v1, _}, Code).

takeover_follows_its_sources(Config) ->
    Dir = clone("takeover_sources", Config),
    Skip = [{"ERLMCP_NATIVE_SKIP", "1"}],
    Beam = filename:join(Dir, "priv/takeover/erlmcp_probe.beam"),
    Source = probe(Dir, "-export([one/0]).\none() -> 1.\n"),
    {0, _} = rebar3(Dir, "compile", Skip, Config),
    {ok, First} = file:read_file_info(Beam),
    {0, _} = rebar3(Dir, "compile", Skip, Config),
    ?assertEqual({ok, First}, file:read_file_info(Beam)),
    Source = probe(Dir, "-export([two/0]).\ntwo() -> 2.\n"),
    {0, _} = rebar3(Dir, "compile", Skip, Config),
    {ok, {_, [{exports, Exports}]}} = beam_lib:chunks(Beam, [exports]),
    ?assert(lists:member({two, 0}, Exports)),
    ok = file:delete(Source),
    {0, _} = rebar3(Dir, "compile", Skip, Config),
    ?assertNot(filelib:is_file(Beam)).

takeover_that_does_not_compile(Config) ->
    Dir = clone("takeover_broken", Config),
    _ = probe(Dir, "one() -> \n"),
    {Status, Output} = rebar3(Dir, "compile", [{"ERLMCP_NATIVE_SKIP", "1"}], Config),
    ?assertNotEqual(0, Status),
    ?assert(mentions(lists:last(said(Output)), <<"erlmcp_probe.erl">>)).

mentions(Line, Part) ->
    binary:match(Line, Part) =/= nomatch.

locked_release(Call) ->
    Arguments = string:lexemes(Call, " "),
    lists:member("--locked", Arguments) andalso lists:member("--release", Arguments).
