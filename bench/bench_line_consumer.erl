%% @doc How messages wait in erlmcp 0.5, as the baseline: all in the owner's mailbox.
-module(bench_line_consumer).

-behaviour(erlmcp_native_buffering_consumer).

-export([open/2, take/2, waiting/1, close/1]).

-spec open(map(), erlmcp_native_report:path()) -> {ok, pid()}.
open(#{port := Port}, _) ->
    bench_line_transport:start_link(Port).

-spec take(pid(), pos_integer()) -> [binary()].
take(_, 0) ->
    [];
take(Pid, Count) ->
    receive
        {transport_message, Message} -> [Message | take(Pid, Count - 1)]
    after 0 -> []
    end.

%% Each message waits with its binary, of the size of all that wait.
-spec waiting(pid()) -> non_neg_integer().
waiting(_) ->
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    256 * Length.

-spec close(pid()) -> ok.
close(Pid) ->
    bench_line_transport:close(Pid).
