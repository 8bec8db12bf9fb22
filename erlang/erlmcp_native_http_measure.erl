%% @private What is measured of a request to an HTTP server, in the process that serves it, the
%% same on all paths.
-module(erlmcp_native_http_measure).

-behaviour(erlmcp_native_metrics).

-export([metrics/0, begun/1, received/1, replied/3, streams/2, finished/1, answered/2]).

-type outcome() :: erlmcp_native_http_handler:answer().

%% In the process dictionary, as the answer is: the handler is in between.
-define(KEY, ?MODULE).
-define(PATHS, [nif, port, beam]).

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
            labels => [{path, ?PATHS}, {status, ['1xx', '2xx', '3xx', '4xx', '5xx']}],
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
            labels => [{outcome, [result, client_error, server_error]}],
            help => <<"JSON-RPC requests answered by servers; -32603 and -32000 on are theirs">>
        }
    ].

%% @doc The request has come. Only a POST has an answer that is to come soon.
-spec begun(erlmcp_native_http_path:request()) -> ok.
begun(#{method := <<"POST">>}) ->
    case erlmcp_native_metrics:is_recording() orelse erlmcp_native_telemetry:is_on() of
        true ->
            _ = put(?KEY, erlang:monotonic_time()),
            ok;
        false ->
            ok
    end;
begun(_) ->
    ok.

%% @doc Its body has.
-spec received(binary()) -> ok.
received(Body) ->
    erlmcp_native_metrics:observe(http_server_request_bytes, byte_size(Body)).

%% @doc It was answered whole.
-spec replied(module(), erlmcp_native_http_path:status(), iodata()) -> ok.
replied(Module, Status, Body) ->
    Path = path(Module),
    Size = iolist_size(Body),
    ok = erlmcp_native_metrics:add(http_server_responses, [Path, class(Status)], 1),
    ok = erlmcp_native_metrics:observe(http_server_response_bytes, Size),
    ended(Path, #{status => Status, streamed => false}, #{response_bytes => Size}).

%% @doc The answer is a stream, which has begun.
-spec streams(module(), erlmcp_native_http_path:status()) -> ok.
streams(Module, Status) ->
    erlmcp_native_metrics:add(http_server_responses, [path(Module), class(Status)], 1).

%% @doc The stream has ended.
-spec finished(module()) -> ok.
finished(Module) ->
    ended(path(Module), #{status => 200, streamed => true}, #{}).

ended(Path, Metadata, Measurements) ->
    case erase(?KEY) of
        undefined -> ok;
        Started -> ended(Path, Started, Metadata, Measurements)
    end.

ended(Path, Started, Metadata, Measurements) ->
    ok = erlmcp_native_metrics:observe_since(http_server_request_us, [Path], Started),
    case erlmcp_native_telemetry:is_on() of
        true ->
            erlmcp_native_telemetry:execute(
                [http_server, request],
                Measurements#{duration => erlang:monotonic_time() - Started},
                Metadata#{path => Path}
            );
        false ->
            ok
    end.

%% @doc A JSON-RPC request was answered.
-spec answered(Method :: binary(), outcome()) -> ok.
answered(Method, Answer) ->
    Outcome = outcome(Answer),
    ok = erlmcp_native_metrics:add(http_server_rpc_answers, [Outcome], 1),
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

path(erlmcp_native_nif_http) -> nif;
path(erlmcp_native_port_http) -> port;
path(erlmcp_native_beam_http) -> beam.

class(Status) when Status < 200 -> '1xx';
class(Status) when Status < 300 -> '2xx';
class(Status) when Status < 400 -> '3xx';
class(Status) when Status < 500 -> '4xx';
class(_) -> '5xx'.
