%% @private What a transport of erlmcp counts, under the names that its `get_info' has. Pure.
-module(erlmcp_native_transport_stats).

-export([new/0, sent/2, received/2, error/1, attempt_failed/1, connected/2, report/1]).

-export_type([stats/0]).

-record(stats, {
    messages_sent = 0 :: non_neg_integer(),
    messages_received = 0 :: non_neg_integer(),
    bytes_sent = 0 :: non_neg_integer(),
    bytes_received = 0 :: non_neg_integer(),
    errors = 0 :: non_neg_integer(),
    connection_time :: integer() | undefined,
    last_message_time :: integer() | undefined,
    connects = 0 :: non_neg_integer(),
    failed_connects = 0 :: non_neg_integer()
}).

-opaque stats() :: #stats{}.

-spec new() -> stats().
new() ->
    #stats{}.

-spec sent(Bytes :: non_neg_integer(), stats()) -> stats().
sent(Bytes, #stats{messages_sent = Messages, bytes_sent = Sum} = Stats) ->
    Stats#stats{messages_sent = Messages + 1, bytes_sent = Sum + Bytes}.

-spec received(Bytes :: non_neg_integer(), stats()) -> stats().
received(Bytes, #stats{messages_received = Messages, bytes_received = Sum} = Stats) ->
    Stats#stats{
        messages_received = Messages + 1,
        bytes_received = Sum + Bytes,
        last_message_time = erlang:system_time(millisecond)
    }.

-spec error(stats()) -> stats().
error(#stats{errors = Errors} = Stats) ->
    Stats#stats{errors = Errors + 1}.

-spec attempt_failed(stats()) -> stats().
attempt_failed(#stats{failed_connects = Failed} = Stats) ->
    Stats#stats{failed_connects = Failed + 1}.

-spec connected(NowMs :: integer(), stats()) -> stats().
connected(NowMs, #stats{connects = Connects} = Stats) ->
    Stats#stats{connection_time = NowMs, connects = Connects + 1}.

-spec report(stats()) -> #{atom() => integer() | undefined}.
report(Stats) ->
    #{
        messages_sent => Stats#stats.messages_sent,
        messages_received => Stats#stats.messages_received,
        bytes_sent => Stats#stats.bytes_sent,
        bytes_received => Stats#stats.bytes_received,
        errors => Stats#stats.errors,
        connection_time => Stats#stats.connection_time,
        last_message_time => Stats#stats.last_message_time,
        reconnect_count => max(0, Stats#stats.connects - 1),
        failed_connects => Stats#stats.failed_connects
    }.
