%% @doc Events for the library `telemetry', where it is on the code path and its application runs;
%% nothing otherwise. docs/metrics.md lists the events. `telemetry' calls its handlers in the
%% process where something happens: what they take is added to it.
-module(erlmcp_native_telemetry).

-export([start/0, is_on/0, execute/3]).

-type event() :: [atom(), ...].

%% The table that telemetry's application makes: without it each event would be a warning.
-define(HANDLERS, telemetry_handler_table).

%% @private Looks for the library when the application starts.
-spec start() -> ok.
start() ->
    Wanted = application:get_env(erlmcp_native, telemetry, true) =/= false,
    Found = Wanted andalso code:ensure_loaded(telemetry) =:= {module, telemetry},
    persistent_term:put(?MODULE, Found).

%% @doc Whether there are events.
-spec is_on() -> boolean().
is_on() ->
    persistent_term:get(?MODULE, false) andalso whereis(?HANDLERS) =/= undefined.

%% @doc Makes an event; its name begins with `erlmcp_native'.
-spec execute(event(), Measurements :: #{atom() => number()}, Metadata :: map()) -> ok.
execute(Event, Measurements, Metadata) ->
    case is_on() of
        true -> dispatch(telemetry, [erlmcp_native | Event], Measurements, Metadata);
        false -> ok
    end.

%% Not known when this is compiled.
dispatch(Library, Event, Measurements, Metadata) ->
    Library:execute(Event, Measurements, Metadata).
