%% Programs that stand in for the port program and do what it never should, as shell scripts in a
%% copy of the application.
-module(port_programs).

-export([application_with/3]).

%% @doc The `ebin' of a copy of the application with that program: `hello' says what it answers to
%% the hello, `rest' is shell that follows.
application_with(Dir, Name, Rest) ->
    App = filename:join([Dir, Name, "erlmcp_native"]),
    ok = filelib:ensure_path(filename:join(App, "priv")),
    Ebin = filename:join(App, "ebin"),
    ok = filelib:ensure_path(Ebin),
    Whole = filename:join(code:lib_dir(erlmcp_native), "ebin"),
    {ok, Files} = file:list_dir(Whole),
    [{ok, _} = file:copy(filename:join(Whole, F), filename:join(Ebin, F)) || F <- Files],
    Program = filename:join([App, "priv", "erlmcp_native_port"]),
    ok = file:write_file(Program, ["#!/bin/sh\necho $$ >>", App, "/starts\n", Rest]),
    ok = file:change_mode(Program, 8#755),
    Ebin.
