%% @doc Trees to build, the commands that build them and the nodes that run what was built, for
%% `build_SUITE'.
-module(build_trees).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([commit_tree/2, clone/2, substitute/3, probe/2]).
-export([library/1, library_in/1, release/1, required_rust/1]).
-export([status/1, start_interactive/1, start_release/1]).
-export([rebar3/3, rebar3/4, said/1, run/2, sharing_target/1, prebuilt_env/1]).
-export([counting_cargo/1, cargo_calls/1, forget_cargo_calls/1, shims/2, path/1, without_rust/1]).

%% A build from nothing, with optimization at link time, on a slow machine.
-define(COMMAND_TIMEOUT_MS, 1200000).

%% The files that a commit of the present state would hold.
commit_tree(Root, Origin) ->
    ok = filelib:ensure_dir(filename:join(Origin, "x")),
    "" = run(Root, [
        "git ls-files -z --cached --others --exclude-standard |",
        " tar --null --ignore-failed-read -T - -cf - 2>/dev/null | tar -xf - -C ", Origin
    ]),
    _ = run(Origin, [
        "git init -q . && git checkout -q -b main && git add -A &&",
        " git -c user.name=t -c user.email=t@localhost commit -q -m state"
    ]),
    ok.

clone(Name, Config) ->
    Dir = filename:join([?config(priv_dir, Config), "clones", Name]),
    ok = filelib:ensure_dir(Dir),
    "" = run(?config(priv_dir, Config), ["git clone -q ", ?config(origin, Config), " ", Dir]),
    Dir.

substitute(File, Old, New) ->
    {ok, Text} = file:read_file(File),
    Changed = string:replace(Text, Old, New),
    true = length(Changed) > 1,
    ok = file:write_file(File, Changed).

probe(Dir, Text) ->
    Source = filename:join(Dir, "erlang/takeover/erlmcp_probe.erl"),
    ok = filelib:ensure_dir(Source),
    ok = file:write_file(Source, ["-module(erlmcp_probe).\n", Text]),
    Source.

library(Dir) ->
    filename:join(Dir, "priv/erlmcp_native.so").

release(Config) ->
    filename:join(?config(priv_dir, Config), "elsewhere").

library_in(Release) ->
    [Library] = filelib:wildcard(
        filename:join(Release, "lib/erlmcp_native-*/priv/erlmcp_native.so")
    ),
    Library.

required_rust(Dir) ->
    {ok, Cargo} = file:read_file(filename:join(Dir, "Cargo.toml")),
    {match, [Version]} =
        re:run(Cargo, "^rust-version = \"(.*)\"", [multiline, {capture, [1], binary}]),
    Version.

%% What a node says of the library that lies in a checkout.
status(Dir) ->
    Eval =
        "io:format(\"report ~s~n\", [base64:encode(term_to_binary(erlmcp_native_nif:status()))]),"
        "halt().",
    report(run(Dir, ["ERL_LIBS=_build/default/lib erl -noshell -eval '", Eval, "'"])).

start_interactive(Adopter) ->
    Eval = "{ok, _} = application:ensure_all_started(adopter).",
    check_report(
        run(Adopter, ["ERL_LIBS=_build/default/lib erl -noshell -eval '", Eval, "'"])
    ).

start_release(Release) ->
    check_report(run("/", [filename:join(Release, "bin/adopter"), " foreground"])).

check_report(Output) ->
    Report = report(Output),
    ?assertMatch(#{echo := <<"{\"jsonrpc\":\"2.0\"}">>, takeover := []}, Report),
    Report.

report(Output) ->
    {match, [Encoded]} = re:run(Output, "^report (.*)$", [multiline, {capture, [1], binary}]),
    binary_to_term(base64:decode(Encoded)).

%% Commands

sharing_target(Config) ->
    [{env, [{"CARGO_TARGET_DIR", ?config(target, Config)}]} | Config].

%% The library that the dependency made.
prebuilt_env(Config) ->
    Dir = ?config(adopter, Config),
    [{"ERLMCP_NATIVE_PREBUILT", library(filename:join(Dir, "_build/default/lib/erlmcp_native"))}].

rebar3(Dir, Arguments, Config) ->
    rebar3(Dir, Arguments, proplists:get_value(env, Config, []), Config).

rebar3(Dir, Arguments, Env, Config) ->
    Counting = [
        {"PATH", path([?config(shims, Config)])}, {"CARGO_CALLS", ?config(cargo_calls, Config)}
    ],
    Full = maps:to_list(maps:merge(maps:from_list(Counting), maps:from_list(Env))),
    {Status, Output} = command(Dir, "rebar3 " ++ Arguments, Full),
    ct:log("~ts~nrebar3 ~ts: ~b~n~ts", [Dir, Arguments, Status, Output]),
    {Status, Output}.

%% The lines of the hook itself.
said(Output) ->
    [Line || <<"erlmcp_native: ", _/binary>> = Line <- binary:split(Output, <<"\n">>, [global])].

run(Dir, Command) ->
    {0, Output} = command(Dir, Command, []),
    binary_to_list(Output).

command(Dir, Command, Env) ->
    Port = open_port({spawn_executable, "/bin/sh"}, [
        {args, ["-c", lists:flatten(["exec 2>&1 </dev/null; " | Command])]},
        {cd, Dir},
        {env, maps:to_list(maps:merge(clean_env(), maps:from_list(Env)))},
        exit_status,
        binary,
        stream
    ]),
    collect(Port, Command, []).

collect(Port, Command, Acc) ->
    receive
        {Port, {data, Data}} -> collect(Port, Command, [Acc, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(uncoloured(Acc))}
    after ?COMMAND_TIMEOUT_MS ->
        port_close(Port),
        ct:fail({timeout, Command, iolist_to_binary(Acc)})
    end.

uncoloured(Text) ->
    re:replace(Text, "\\x1b\\[[0-9;]*m", "", [global]).

%% Without what the rebar3 that runs this suite, its VM and its user have set for themselves.
clean_env() ->
    Names = [hd(string:split(Setting, "=")) || Setting <- os:getenv()],
    Ours = ["BINDIR", "EMU", "PROGNAME", "ROOTDIR", "ERL_LIBS", "ERL_FLAGS", "CARGO_TARGET_DIR"],
    maps:from_list([
        {Name, false}
     || Name <- Names,
        lists:member(Name, Ours) orelse lists:prefix("REBAR_", Name) orelse
            lists:prefix("ERLMCP_NATIVE_", Name)
    ]).

path(Dirs) ->
    lists:flatten(lists:join(":", Dirs ++ [os:getenv("PATH")])).

%% A cargo that notes each call and hands it on to the real one.
counting_cargo(Parent) ->
    Real = os:find_executable("cargo"),
    shims(Parent, [{"cargo", "echo \"$*\" >> \"$CARGO_CALLS\"\nexec " ++ Real ++ " \"$@\""}]).

shims(Parent, Scripts) ->
    Dir = filename:join(Parent, "shims"),
    lists:foreach(
        fun({Name, Script}) ->
            File = filename:join(Dir, Name),
            ok = filelib:ensure_dir(File),
            ok = file:write_file(File, ["#!/bin/sh\n", Script, "\n"]),
            ok = file:change_mode(File, 8#755)
        end,
        Scripts
    ),
    Dir.

%% A folder with every command of PATH but Rust's, whatever folder that lies in.
without_rust(Dir) ->
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Rust = ["cargo", "rustc", "rustup"],
    Commands = maps:from_list([
        {filename:basename(File), File}
     || Folder <- lists:reverse(string:lexemes(os:getenv("PATH"), ":")),
        File <- filelib:wildcard(filename:join(Folder, "*")),
        not lists:member(filename:basename(File), Rust)
    ]),
    maps:foreach(
        fun(Name, File) -> ok = file:make_symlink(File, filename:join(Dir, Name)) end, Commands
    ),
    Dir.

cargo_calls(Config) ->
    case file:read_file(?config(cargo_calls, Config)) of
        {ok, Calls} -> string:lexemes(binary_to_list(Calls), "\n");
        {error, enoent} -> []
    end.

forget_cargo_calls(Config) ->
    case file:delete(?config(cargo_calls, Config)) of
        ok -> ok;
        {error, enoent} -> ok
    end.
