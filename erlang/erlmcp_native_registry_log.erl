%% @private What a registry writes to the log: the lines of erlmcp's, which people look for.
-module(erlmcp_native_registry_log).

-include_lib("kernel/include/logger.hrl").

-export([started/0, ended/0, registered/3, taken/3, unregistered/2, bound/2, died/4]).
-export([unknown_died/2, not_found/2]).

-type kind() :: erlmcp_native_registry_table:kind().
-type id() :: erlmcp_native_registry_table:id().

-spec started() -> ok.
started() -> ?LOG_INFO("Starting MCP registry").

-spec ended() -> ok.
ended() -> ?LOG_INFO("MCP registry terminating").

-spec registered(kind(), id(), pid()) -> ok.
registered(Kind, Id, Pid) -> ?LOG_INFO("Registered ~s ~p with pid ~p", [Kind, Id, Pid]).

-spec taken(kind(), id(), pid()) -> ok.
taken(Kind, Id, Pid) ->
    ?LOG_WARNING("~s ~p already registered with pid ~p", [capital(Kind), Id, Pid]).

-spec unregistered(kind(), id()) -> ok.
unregistered(Kind, Id) -> ?LOG_INFO("Unregistered ~s ~p", [Kind, Id]).

-spec bound(Transport :: id(), Server :: id()) -> ok.
bound(Transport, Server) -> ?LOG_INFO("Bound transport ~p to server ~p", [Transport, Server]).

-spec died(kind(), id(), pid(), Reason :: term()) -> ok.
died(Kind, Id, Pid, Reason) ->
    ?LOG_WARNING("~s ~p (pid ~p) died: ~p", [capital(Kind), Id, Pid, Reason]).

-spec unknown_died(pid(), Reason :: term()) -> ok.
unknown_died(Pid, Reason) ->
    ?LOG_WARNING("Unknown monitored process ~p died: ~p", [Pid, Reason]).

-spec not_found(kind(), id()) -> ok.
not_found(Kind, Id) -> ?LOG_WARNING("Cannot route to ~s ~p: not found", [Kind, Id]).

capital(server) -> "Server";
capital(transport) -> "Transport".
