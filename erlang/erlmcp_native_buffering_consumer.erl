%% @doc Who takes messages more slowly than they come: a connection of this application. What it is
%% compared with brings a module of the same callbacks.
-module(erlmcp_native_buffering_consumer).

-export([open/2, take/2, waiting/1, close/1]).

-callback open(Target :: map(), erlmcp_native_report:path()) -> {ok, Conn :: term()}.
%% Connects; the first messages may have come when it returns.

-callback take(Conn :: term(), Count :: pos_integer()) -> [binary()].
%% At most so many messages of those that have come.

-callback waiting(Conn :: term()) -> Bytes :: non_neg_integer().
%% How much has come and was not taken.

-callback close(Conn :: term()) -> ok.

%% @private
-spec open(map(), erlmcp_native_report:path()) -> {ok, pid()}.
open(Target, Path) ->
    {ok, Conn} = erlmcp_native:connect(Target, #{path => Path}),
    ok = erlmcp_native:await_connected(Conn, 30000),
    {ok, Conn}.

%% @private
-spec take(pid(), pos_integer()) -> [binary()].
take(Conn, Count) ->
    case erlmcp_native:take(Conn, Count) of
        {ok, Frames} -> Frames;
        %% A child has ended, and all that it had to say was taken.
        {error, _} -> []
    end.

%% @private
-spec waiting(pid()) -> non_neg_integer().
waiting(Conn) ->
    case erlmcp_native:info(Conn) of
        {ok, #{socket := #{inbound_bytes := Bytes}}} -> Bytes;
        _ -> 0
    end.

%% @private
-spec close(pid()) -> ok.
close(Conn) ->
    erlmcp_native:close(Conn).
