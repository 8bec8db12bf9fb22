%% @doc Takes the place of erlmcp's module of this name, see {@link erlmcp_native_takeover}: its
%% server runs under {@link erlmcp_native_stdio_server}. What is added before the start is there for
%% the first request.
-module(erlmcp_stdio).

-export([start/0, start/1, stop/0, is_running/0]).
-export([add_tool/3, add_tool/4, add_resource/3, add_resource/4, add_prompt/3, add_prompt/4]).

-spec start() -> ok | {error, term()}.
start() ->
    start(#{}).

-spec start(map()) -> ok | {error, term()}.
start(Options) ->
    case erlmcp_native_stdio_server:start(#{server => Options}) of
        {ok, _} -> ok;
        {error, {already_started, _}} -> ok;
        {error, _} = Error -> Error
    end.

-spec stop() -> ok.
stop() ->
    erlmcp_native_stdio_server:stop().

-spec is_running() -> boolean().
is_running() ->
    erlmcp_native_stdio_server:is_running().

-spec add_tool(binary(), binary(), fun()) -> ok | {error, term()}.
add_tool(Name, Description, Handler) ->
    erlmcp_native_stdio_server:add(tool, {Name, Description, Handler}).

-spec add_tool(binary(), binary(), fun(), map() | undefined) -> ok | {error, term()}.
add_tool(Name, Description, Handler, Schema) ->
    erlmcp_native_stdio_server:add(tool, {Name, Description, Handler, Schema}).

-spec add_resource(binary(), binary(), fun()) -> ok | {error, term()}.
add_resource(Uri, Description, Handler) ->
    erlmcp_native_stdio_server:add(resource, {Uri, Description, Handler}).

-spec add_resource(binary(), binary(), fun(), binary()) -> ok | {error, term()}.
add_resource(Uri, Description, Handler, MimeType) ->
    erlmcp_native_stdio_server:add(resource, {Uri, Description, Handler, MimeType}).

-spec add_prompt(binary(), binary(), fun()) -> ok | {error, term()}.
add_prompt(Name, Description, Handler) ->
    erlmcp_native_stdio_server:add(prompt, {Name, Description, Handler}).

-spec add_prompt(binary(), binary(), fun(), [map()] | undefined) -> ok | {error, term()}.
add_prompt(Name, Description, Handler, Arguments) ->
    erlmcp_native_stdio_server:add(prompt, {Name, Description, Handler, Arguments}).
