%% @private What is measured of a request to an HTTP server, in the process that serves it, the
%% same on all paths.
-module(erlmcp_native_http_measure).

-behaviour(erlmcp_native_metrics).

-export([metrics/0, begun/1, received/1, replied/3, streams/2, finished/1, answered/2]).

-type outcome() :: erlmcp_native_http_handler:answer().

%% In the process dictionary, as the answer is: the handler is in between.
-define(KEY, ?MODULE).
-define(PATHS, [nif, port, beam]).
-define(CLASSES, ['1xx', '2xx', '3xx', '4xx', '5xx']).
-define(OUTCOMES, [result, client_error, server_error]).

-type cell() :: erlmcp_native_metric:cell() | none.

-record(cells, {
    request_us :: {cell(), cell(), cell()},
    %% By path, and within it by class.
    responses :: tuple(),
    request_bytes :: cell(),
    response_bytes :: cell(),
    rpc :: {cell(), cell(), cell()}
}).

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        #{
            name => http_server_request_us,
            kind => histogram,
            group => http,
            unit => us,
            labels => [{path, ?PATHS}],
            help => <<"From a POST to a server until its answer is complete">>
        },
        #{
            name => http_server_responses,
            kind => counter,
            group => http,
            labels => [{path, ?PATHS}, {status, ?CLASSES}],
            help => <<"Answers of servers, by the class of their status">>
        },
        #{
            name => http_server_request_bytes,
            kind => histogram,
            group => http,
            unit => bytes,
            help => <<"Sizes of the bodies of requests to servers">>
        },
        #{
            name => http_server_response_bytes,
            kind => histogram,
            group => http,
            unit => bytes,
            help => <<"Sizes of the bodies of answers of servers, streams apart">>
        },
        #{
            name => http_server_rpc_answers,
            kind => counter,
            group => http,
            labels => [{outcome, ?OUTCOMES}],
            help => <<"JSON-RPC requests answered by servers; -32603 and -32000 on are theirs">>
        }
    ].

%% @doc The request has come. Only a POST has an answer that is to come soon.
-spec begun(erlmcp_native_http_path:request()) -> ok.
begun(#{method := <<"POST">>}) ->
    case erlmcp_native_metrics:is_recording() orelse erlmcp_native_telemetry:is_on() of
        true ->
            _ = put(?KEY, erlang:monotonic_time(microsecond)),
            ok;
        false ->
            ok
    end;
begun(_) ->
    ok.

%% @doc Its body has.
-spec received(binary()) -> ok.
received(Body) ->
    erlmcp_native_metrics:observe_in((cells())#cells.request_bytes, byte_size(Body)).

%% @doc It was answered whole.
-spec replied(module(), erlmcp_native_http_path:status(), iodata()) -> ok.
replied(Module, Status, Body) ->
    Size = iolist_size(Body),
    ok = streams(Module, Status),
    ok = erlmcp_native_metrics:observe_in((cells())#cells.response_bytes, Size),
    ended(Module, #{status => Status, streamed => false, response_bytes => Size}).

%% @doc The answer is a stream, which has begun.
-spec streams(module(), erlmcp_native_http_path:status()) -> ok.
streams(Module, Status) ->
    #cells{responses = Responses} = cells(),
    Place = (path(Module) - 1) * length(?CLASSES) + Status div 100,
    erlmcp_native_metrics:add_to(element(Place, Responses), 1).

%% @doc The stream has ended.
-spec finished(module()) -> ok.
finished(Module) ->
    ended(Module, #{status => 200, streamed => true}).

ended(Module, Details) ->
    case erase(?KEY) of
        undefined -> ok;
        Started -> ended(path(Module), erlang:monotonic_time(microsecond) - Started, Details)
    end.

ended(Path, Us, Details) ->
    ok = erlmcp_native_metrics:observe_in(element(Path, (cells())#cells.request_us), Us),
    case erlmcp_native_telemetry:is_on() of
        true -> tell(lists:nth(Path, ?PATHS), Us, Details);
        false -> ok
    end.

tell(Path, Us, Details) ->
    Sizes = maps:with([response_bytes], Details),
    Duration = erlang:convert_time_unit(Us, microsecond, native),
    Metadata = (maps:with([status, streamed], Details))#{path => Path},
    erlmcp_native_telemetry:execute(
        [http_server, request], Sizes#{duration => Duration}, Metadata
    ).

%% @doc A JSON-RPC request was answered.
-spec answered(Method :: binary(), outcome()) -> ok.
answered(Method, Answer) ->
    Outcome = outcome(Answer),
    ok = erlmcp_native_metrics:add_to(rpc_cell(Outcome, cells()), 1),
    case erlmcp_native_telemetry:is_on() of
        true ->
            erlmcp_native_telemetry:execute([http_server, rpc], #{count => 1}, #{
                method => Method, outcome => Outcome
            });
        false ->
            ok
    end.

outcome({error, Code, _}) -> error_outcome(Code);
outcome({error, Code, _, _}) -> error_outcome(Code);
outcome(_) -> result.

error_outcome(Code) when Code =:= -32603; Code =< -32000, Code > -32100 -> server_error;
error_outcome(_) -> client_error.

rpc_cell(result, #cells{rpc = {Cell, _, _}}) -> Cell;
rpc_cell(client_error, #cells{rpc = {_, Cell, _}}) -> Cell;
rpc_cell(server_error, #cells{rpc = {_, _, Cell}}) -> Cell.

%% Its place among the paths. A path of somebody else's is in Erlang.
path(erlmcp_native_nif_http) -> 1;
path(erlmcp_native_port_http) -> 2;
path(_) -> 3.

%% Looked up once for all: to find each takes as long as to count.
cells() ->
    case persistent_term:get(?MODULE, none) of
        none -> find_cells();
        Cells -> Cells
    end.

find_cells() ->
    Cell = fun erlmcp_native_metrics:cell/2,
    Cells = #cells{
        request_us = list_to_tuple([Cell(http_server_request_us, [Path]) || Path <- ?PATHS]),
        responses = list_to_tuple([
            Cell(http_server_responses, [Path, Class])
         || Path <- ?PATHS, Class <- ?CLASSES
        ]),
        request_bytes = Cell(http_server_request_bytes, []),
        response_bytes = Cell(http_server_response_bytes, []),
        rpc = list_to_tuple([Cell(http_server_rpc_answers, [Outcome]) || Outcome <- ?OUTCOMES])
    },
    %% There are none before the application has started.
    _ = Cells#cells.request_bytes =/= none andalso persistent_term:put(?MODULE, Cells),
    Cells.
