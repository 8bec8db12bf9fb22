%% @doc The load generator wrk (Debian's package of that name), one thread, as fast as it can.
-module(bench_wrk).

-export([run/1]).

-export_type([load/0]).

-type load() :: #{
    port := inet:port_number(),
    connections := pos_integer(),
    seconds := pos_integer(),
    body := binary(),
    headers := [{string(), string()}]
}.

-define(SCRIPT, "_build/bench/wrk.lua").

%% @doc Posts the body over and over. Every answer has to be of status 200, unless
%% {@link run/1}'s caller looks at `other', and no connection may fail.
-spec run(load()) ->
    #{
        requests := pos_integer(),
        rate := float(),
        p50_us := number(),
        p99_us := number(),
        other := non_neg_integer()
    }.
run(#{port := Port, connections := Connections, seconds := Seconds} = Load) ->
    ok = file:write_file(?SCRIPT, script(Load)),
    Command = io_lib:format("wrk -t1 -c~b -d~bs -s ~s http://127.0.0.1:~b/mcp 2>&1", [
        Connections, Seconds, ?SCRIPT, Port
    ]),
    Output = os:cmd(lists:flatten(Command)),
    case re:run(Output, "result ([0-9. ]+)", [{capture, all_but_first, list}]) of
        {match, [Figures]} -> result([number(F) || F <- string:lexemes(Figures, " ")], Output);
        nomatch -> exit({wrk, Output})
    end.

result([Requests, Us, P50, P99, Other, 0], _) when Requests > 0 ->
    #{
        requests => Requests,
        rate => Requests * 1.0e6 / Us,
        p50_us => P50,
        p99_us => P99,
        other => Other
    };
result(_, Output) ->
    exit({wrk, Output}).

number(Text) ->
    case string:to_float(Text) of
        {error, no_float} -> list_to_integer(Text);
        {Float, []} -> Float
    end.

script(#{body := Body, headers := Headers}) ->
    [
        "wrk.method = \"POST\"\n",
        ["wrk.headers[\"" ++ Name ++ "\"] = \"" ++ Value ++ "\"\n" || {Name, Value} <- Headers],
        "wrk.body = [==[", Body, "]==]\n",
        "done = function(summary, latency, requests)\n"
        "  local e = summary.errors\n"
        "  io.write(string.format(\"result %d %d %d %d %d %d\\n\", summary.requests,\n"
        "    summary.duration, latency:percentile(50), latency:percentile(99), e.status,\n"
        "    e.connect + e.read + e.write + e.timeout))\n"
        "end\n"
    ].
