%% @doc What `make analyze' runs: all analyses, beside the techniques of erlmcp 0.5.
-module(bench_analyze).

-export([main/0]).

%% @doc Never returns. Ends with 0 where every analysis has run, whatever it found.
-spec main() -> no_return().
main() ->
    [Dir] = init:get_plain_arguments(),
    ok = io:setopts([{encoding, unicode}]),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    case performance_bottleneck_report:generate_full_report(options()) of
        {ok, Report} ->
            finish(compared(Report, os:getenv("BEFORE")), Dir);
        {error, Reason} ->
            io:format(standard_error, "analyze: ~0tp~n", [Reason]),
            halt(2)
    end.

options() ->
    Begin = erlang:monotonic_time(second),
    Options = #{
        baseline => bench_baseline,
        command => <<"make analyze">>,
        commit => list_to_binary(os:getenv("ANALYSIS_COMMIT", "unknown")),
        memory_s => list_to_integer(os:getenv("MEMORY_S", "60")),
        progress => fun(Line) ->
            io:format("~4b s  ~ts~n", [erlang:monotonic_time(second) - Begin, Line])
        end
    },
    quick(os:getenv("QUICK"), only(os:getenv("ONLY"), Options)).

quick("1", Options) -> maps:remove(memory_s, Options#{quick => true});
quick(_, Options) -> Options.

only(Names, Options) when Names =:= false; Names =:= "" -> Options;
only(Names, Options) ->
    Options#{only => [list_to_atom(Name) || Name <- string:lexemes(Names, " ,")]}.

compared(Report, File) when File =:= false; File =:= "" ->
    Report;
compared(Report, File) ->
    case erlmcp_native_report_file:read(File) of
        {ok, Before} ->
            Report#{comparison => erlmcp_native_report:compare(Before, Report)};
        {error, Reason} ->
            io:format(standard_error, "analyze: ~ts: ~0tp~n", [File, Reason]),
            halt(2)
    end.

finish(#{analyses := Analyses} = Report, Dir) ->
    io:format("~ts", [erlmcp_native_report_table:text(Report)]),
    {ok, #{json := Json, html := Html}} = erlmcp_native_report_file:write(Report, Dir),
    io:format("~nwritten to ~ts and ~ts~n", [Html, Json]),
    halt(
        case [Name || #{name := Name, failed := _} <- Analyses] of
            [] -> 0;
            _ -> 1
        end
    ).
