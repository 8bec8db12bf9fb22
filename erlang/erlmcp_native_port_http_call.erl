%% @doc What the owner of an HTTP listener or client waits for the port program to answer.
-module(erlmcp_native_port_http_call).

-include("erlmcp_native_port.hrl").
-include("erlmcp_native_port_http.hrl").

-export([counts/3, close/2]).

%% What is asked is answered at once.
-define(CALL_MS, 10000).

%% @doc The three numbers that a listener or a client answers with; 0 where the program is gone.
-spec counts(erlmcp_native_port:handle(), byte(), erlmcp_native_port:id()) ->
    {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
counts(Handle, Op, Id) ->
    Question = erlang:unique_integer([positive]),
    _ = erlmcp_native_port:command(Handle, Op, Id, <<Question:64>>),
    receive
        {erlmcp_native_io, Id, <<?FROM_HTTP_INFO, _:64, Question:64, A:64, B:64, C:64>>} ->
            {A, B, C};
        {erlmcp_native_io, Id, {down, _}} = Down ->
            %% For whoever gives meaning to messages.
            self() ! Down,
            {0, 0, 0}
    after patience(Handle) -> {0, 0, 0}
    end.

%% @doc Closes what the id names, and has it closed when this returns.
-spec close(erlmcp_native_port:handle(), erlmcp_native_port:id()) -> ok.
close(Handle, Id) ->
    _ = erlmcp_native_port:command(Handle, ?TO_CLOSE, Id),
    _ = erlmcp_native_port:command(Handle, ?TO_PING, Id),
    receive
        {erlmcp_native_io, Id, <<?FROM_PONG, _:64>>} -> ok;
        {erlmcp_native_io, Id, {down, _}} -> ok
    after patience(Handle) -> ok
    end.

%% Nobody answers where the program is gone and has been told of before.
patience(Handle) ->
    case erlang:port_info(Handle, id) of
        undefined -> 0;
        _ -> ?CALL_MS
    end.
