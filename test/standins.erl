%% Compiles the modules that stand in for erlmcp's and puts them on the code path for a while.
-module(standins).

-export([load/2, unload/1]).

%% Compiled files, not just loaded modules: what takes their place looks for them on the path.
load(Files, Out) ->
    ok = filelib:ensure_path(Out),
    Modules = [compile(File, Out) || File <- Files],
    true = code:add_patha(Out),
    _ = [forget(Module) || Module <- Modules],
    {Out, Modules}.

unload({Out, Modules}) ->
    true = code:del_path(Out),
    _ = [forget(Module) || Module <- Modules],
    ok.

compile(File, Out) ->
    {ok, Module} = compile:file(File, [debug_info, return_errors, {outdir, Out}]),
    Module.

forget(Module) ->
    _ = code:purge(Module),
    _ = code:delete(Module),
    code:purge(Module).
