%% @private Transports for callers that hold nothing but the options, as erlmcp's client does:
%% the first send of a process connects, with that process as owner, and the transport is
%% remembered in its process dictionary, which is all that lives exactly as long.
-module(erlmcp_native_on_demand).

-export([send/2, close/1]).

%% @doc Sends; a transport that has ended is replaced by a new one.
-spec send(map(), iodata()) -> ok | {error, term()}.
send(Options, Data) ->
    case get({?MODULE, Options}) of
        undefined ->
            open_and_send(Options, Data);
        Transport ->
            case erlmcp_native_transport:send(Transport, Data) of
                {error, not_connected} = Error ->
                    case is_process_alive(Transport) of
                        true -> Error;
                        false -> open_and_send(Options, Data)
                    end;
                Result ->
                    Result
            end
    end.

-spec close(map()) -> ok.
close(Options) ->
    case erase({?MODULE, Options}) of
        undefined -> ok;
        Transport -> erlmcp_native_transport:close(Transport)
    end.

%% The option `owner' names the process that started the client, which is not the one that waits
%% for messages.
open_and_send(Options, Data) ->
    case erlmcp_native_takeover:open(Options#{owner => self()}) of
        {ok, Transport} ->
            _ = put({?MODULE, Options}, Transport),
            erlmcp_native_transport:send(Transport, Data);
        {error, _} = Error ->
            _ = erase({?MODULE, Options}),
            Error
    end.
