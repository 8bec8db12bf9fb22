#!/usr/bin/env escript
%% Checks every exported prop_*/0 of every *_props module that `rebar3 ct' has compiled, with
%% the application running. Argument: the application's folder in _build.
-mode(compile).

main([Dir]) ->
    true = code:add_patha(filename:join(Dir, "ebin")),
    TestDir = filename:join(Dir, "test"),
    true = code:add_patha(TestDir),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Beams = lists:sort(filelib:wildcard(filename:join(TestDir, "*_props.beam"))),
    Modules = [list_to_atom(filename:basename(Beam, ".beam")) || Beam <- Beams],
    Results = [check(Module, Property) || Module <- Modules, Property <- properties(Module)],
    {Passed, Failed} = lists:partition(fun(Result) -> Result end, Results),
    io:format("~b passed, ~b failed~n", [length(Passed), length(Failed)]),
    halt(
        case Failed of
            [] -> 0;
            _ -> 1
        end
    ).

properties(Module) ->
    [Name || {"prop_" ++ _, Name} <- names(Module)].

names(Module) ->
    [{atom_to_list(Name), Name} || {Name, 0} <- Module:module_info(exports)].

check(Module, Property) ->
    io:format("~s:~s ", [Module, Property]),
    Options = [{numtests, 500}, {on_output, fun output/2}],
    try proper:quickcheck(Module:Property(), Options) of
        true ->
            io:format("ok~n"),
            true;
        Other ->
            io:format("~nFAILED: ~p~n", [Other]),
            false
    catch
        Class:Reason:Stack ->
            io:format("~nFAILED: ~p~n", [{Class, Reason, Stack}]),
            false
    end.

%% PropEr's progress is of no interest, its counterexamples are.
output(".", _) -> ok;
output("OK: " ++ _, _) -> ok;
output(Format, Args) -> io:format(Format, Args).
