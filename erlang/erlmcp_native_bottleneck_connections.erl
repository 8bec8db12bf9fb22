%% @doc Many connections: what goes through as they become more, up to 10,000, each of which has to
%% be answered. Server and clients are in VMs of their own, so that each side has its descriptors.
%%
%% Nothing raises the limit of descriptors: where it does not allow for as many, the rest counts as
%% not connected, and the row says so.
-module(erlmcp_native_bottleneck_connections).

-export([run/1]).

%% Called in the other VM.
-export([limit/0]).

-define(PATHS, [nif, port, beam]).
-define(COUNTS, [1, 10, 100, 1000, 10000]).
%% What the row is called by.
-define(ROW, 10000).
-define(DURATION_MS, 500).
-define(BYTES, 1024).

%% Descriptors that a VM needs beside its connections.
-define(SPARE, 200).

%% @doc Options: `paths', `baseline', `counts' of connections, the last of which is the row's,
%% `duration_ms' of each load (500), `transports' (`[tcp]';
%% over stdio each would be a process of the operating system).
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Cases = [
        #{transport => Transport, path => Path, call => ping}
     || Transport <- transports(Options), Path <- maps:get(paths, Options, ?PATHS)
    ] ++ baseline(Options),
    Measured = [measured(Case, Options) || Case <- Cases],
    #{
        name => connections,
        rows => lists:append([rows(M) || M <- Measured]),
        metrics => maps:from_list([
            {name(M), maps:with([limit, ok_percent, knee], M)}
         || M <- Measured
        ]),
        evidence => [maps:without([call, subject], M) || M <- Measured],
        curves => [plot(Measured)]
    }.

baseline(#{baseline := Baseline} = Options) when Baseline =/= none ->
    [
        #{transport => Transport, path => erlmcp05, call => ping, subject => Subject}
     || Transport <- transports(Options),
        Subject <- [Baseline:subject(Transport)],
        Subject =/= none
    ];
baseline(_) ->
    [].

transports(Options) ->
    maps:get(transports, Options, [tcp]) -- [stdio].

name(#{transport := Transport, path := Path}) ->
    iolist_to_binary(io_lib:format("~s ~s", [Transport, Path])).

measured(#{transport := Transport, path := Path} = Case, Options) ->
    erlmcp_native_progress:say(Options, "connections: ~s on ~s", [Transport, Path]),
    Flags = ["+Q", "65536", "+P", "262144"],
    erlmcp_native_analysis_vm:with(Path, Flags, fun(Server) ->
        erlmcp_native_analysis_vm:with(Path, Flags, fun(Clients) ->
            Serve = [Case#{server_options => server_options(Case)}],
            {ok, Endpoint} =
                erlmcp_native_analysis_vm:call(
                    Server, erlmcp_native_analysis_host, serve, Serve
                ),
            between(Case#{endpoint => Endpoint}, Clients, Options)
        end)
    end).

server_options(#{path := erlmcp05}) -> #{};
server_options(_) -> #{backlog => 4096}.

between(Case, Clients, Options) ->
    Room = erlmcp_native_analysis_vm:call(Clients, ?MODULE, limit, []),
    %% Code is loaded, and there are buffers, after this.
    {ok, _} = load(Clients, Case, #{workers => 10, count => 1000}),
    Steps = [
        step(Case, Clients, Count, Room, Options) || Count <- maps:get(counts, Options, ?COUNTS)
    ],
    #{count := Count, ok := Ok} = lists:last(Steps),
    (maps:remove(endpoint, Case))#{
        limit => Room,
        steps => Steps,
        ok_percent => Ok * 100 / Count,
        knee => knee(Steps)
    }.

%% @private How many connections the descriptors of this VM, or of its port program, which has the
%% same limit, are enough for.
-spec limit() -> pos_integer() | null.
limit() ->
    case erlmcp_native_analysis_system:descriptor_limit() of
        Limit when is_integer(Limit) -> max(1, Limit - ?SPARE);
        _ -> null
    end.

load(Clients, Case, Load) ->
    Args = [maps:remove(server_options, Case), Load],
    erlmcp_native_analysis_vm:call(Clients, erlmcp_native_analysis_host, load, Args).

%% As many calls as are answered while it lasts; with the most connections one on each, which has to
%% be answered.
step(Case, Clients, Count, Room, Options) ->
    Possible = min(Count, Room),
    Most = lists:max(maps:get(counts, Options, ?COUNTS)),
    Load =
        case Count of
            Most -> #{count => Possible, drain_ms => 30000};
            _ -> #{duration_ms => maps:get(duration_ms, Options, ?DURATION_MS)}
        end,
    Begin = erlang:monotonic_time(millisecond),
    Result = load(Clients, Case, Load#{workers => Possible, bytes => ?BYTES}),
    outcome(Result, Count, Possible, Load, erlang:monotonic_time(millisecond) - Begin).

outcome({ok, Result}, Count, Possible, Load, Ms) ->
    #{connections := Connections, ok := Ok, connect_errors := Errors} = Result,
    #{operations_per_second := Rate, latency_us := #{p95 := P95}, total_errors := Failed} =
        erlmcp_native_analysis_load:summary(Result),
    #{
        count => Count,
        tried => Possible,
        connected => Connections,
        %% That a connection works is that it was answered.
        ok =>
            case Load of
                #{count := _} -> min(Ok, Connections);
                #{} -> Connections
            end,
        failed_calls => Failed,
        connect_errors => said(Errors),
        operations_per_second => Rate,
        p95_us => P95,
        total_ms => Ms
    };
outcome({error, Reason}, Count, Possible, _, Ms) ->
    #{
        count => Count,
        tried => Possible,
        connected => 0,
        ok => 0,
        failed_calls => 0,
        connect_errors => said(Reason),
        operations_per_second => 0.0,
        p95_us => 0.0,
        total_ms => Ms
    }.

said(Term) -> iolist_to_binary(io_lib:format("~0p", [Term])).

%% The one with a call on each says nothing of what goes through.
knee(Steps) ->
    Points = [
        {Count, Rate}
     || #{count := Count, operations_per_second := Rate} <- lists:droplast(Steps)
    ],
    case erlmcp_native_analysis_knee:of_gain(Points, #{scale => log}) of
        {knee, {X, Y}} -> [X, Y];
        none -> null
    end.

rows(#{transport := Transport, path := Path, steps := Steps} = M) ->
    #{ok_percent := Percent, limit := Room} = M,
    #{count := Count, tried := Tried} = lists:last(Steps),
    [
        erlmcp_native_report:row(connections_ok, #{
            transport => Transport,
            path => Path,
            value => Percent,
            samples => Count,
            note => bound(Count, Tried, Room)
        })
    ].

bound(?ROW, ?ROW, _) ->
    null;
bound(Count, Count, _) ->
    iolist_to_binary(io_lib:format("~b connections", [Count]));
bound(Count, Tried, Room) ->
    iolist_to_binary(
        io_lib:format("~b of ~b tried: with this limit of descriptors (ulimit -n) a VM has ~b", [
            Tried, Count, Room
        ])
    ).

plot(Measured) ->
    #{
        id => <<"throughput_by_connections">>,
        kind => scaling,
        title => <<"Throughput against connections, one call at a time on each">>,
        x => #{label => <<"connections">>, unit => <<"">>, scale => log},
        y => #{label => <<"answered">>, unit => <<"calls/s">>},
        lines => [
            #{
                label => name(M),
                transport => Transport,
                path => Path,
                points => [
                    [X, Y]
                 || #{count := X, operations_per_second := Y} <- lists:droplast(Steps)
                ],
                knee => Knee
            }
         || #{transport := Transport, path := Path, steps := Steps, knee := Knee} = M <- Measured
        ]
    }.
