%% @private What the path `beam' counts of all its connections, under the names of the native core.
-module(erlmcp_native_beam_count).

-behaviour(erlmcp_native_metrics).

-export([metrics/0, new/1, opened/1, failed/1, ended/1, busy/1, oversized/2]).
-export([frames_in/2, bytes_in/2, sent/2]).

-export_type([counts/0]).

-record(counts, {
    transport :: tcp | stdio,
    frames_in :: erlmcp_native_metric:cell() | none,
    bytes_in :: erlmcp_native_metric:cell() | none,
    frames_out :: erlmcp_native_metric:cell() | none,
    bytes_out :: erlmcp_native_metric:cell() | none
}).

-opaque counts() :: #counts{}.
%% Of one transport: what is counted for each message is at hand.

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        counter(connections_opened, none, <<"Connections established, dialled and accepted">>),
        counter(connections_failed, none, <<"Connections that could not be established">>),
        counter(connections_ended, none, <<"Established connections that have ended">>),
        counter(frames_in, none, <<"Frames received">>),
        counter(frames_out, none, <<"Messages accepted for sending">>),
        counter(frames_oversized, none, <<"Frames received over the limit">>),
        counter(bytes_in, bytes, <<"Bytes read from sockets, after TLS">>),
        counter(bytes_out, bytes, <<"Bytes written to sockets, before TLS">>),
        counter(sends_refused_busy, none, <<"Sends refused because the outbound queue was full">>)
    ].

counter(Name, Unit, Help) ->
    #{
        name => Name,
        kind => counter,
        group => transport,
        unit => Unit,
        help => Help,
        labels => [{path, [beam]}, {transport, [tcp, stdio]}]
    }.

-spec new(tcp | stdio) -> counts().
new(Transport) ->
    Cell = fun(Name) -> erlmcp_native_metrics:cell(Name, [beam, Transport]) end,
    #counts{
        transport = Transport,
        frames_in = Cell(frames_in),
        bytes_in = Cell(bytes_in),
        frames_out = Cell(frames_out),
        bytes_out = Cell(bytes_out)
    }.

-spec opened(counts()) -> ok.
opened(Counts) -> add(connections_opened, 1, Counts).

-spec failed(counts()) -> ok.
failed(Counts) -> add(connections_failed, 1, Counts).

-spec ended(counts()) -> ok.
ended(Counts) -> add(connections_ended, 1, Counts).

-spec busy(counts()) -> ok.
busy(Counts) -> add(sends_refused_busy, 1, Counts).

-spec oversized(non_neg_integer(), counts()) -> ok.
oversized(0, _) -> ok;
oversized(N, Counts) -> add(frames_oversized, N, Counts).

-spec frames_in(non_neg_integer(), counts()) -> ok.
frames_in(N, #counts{frames_in = Cell}) -> erlmcp_native_metrics:add_to(Cell, N).

-spec bytes_in(non_neg_integer(), counts()) -> ok.
bytes_in(N, #counts{bytes_in = Cell}) -> erlmcp_native_metrics:add_to(Cell, N).

%% @doc A message was accepted that is so many bytes with its delimiter.
-spec sent(pos_integer(), counts()) -> ok.
sent(Bytes, #counts{frames_out = Frames, bytes_out = Cell}) ->
    ok = erlmcp_native_metrics:add_to(Frames, 1),
    erlmcp_native_metrics:add_to(Cell, Bytes).

add(Name, N, #counts{transport = Transport}) ->
    erlmcp_native_metrics:add(Name, [beam, Transport], N).
