%% @doc What the option `decode' makes of frames where they come as they are: on the paths `nif'
%% and `beam'.
-module(erlmcp_native_decode).

-export([available/2, items/3]).

%% @doc Whether there is a codec where one is needed.
-spec available(erlmcp_native_path:path(), #{decode := none | json, _ => _}) ->
    ok | {error, erlmcp_native:reason()}.
available(beam, #{decode := json}) ->
    case erlmcp_native_json_beam:codec() of
        {ok, _} -> ok;
        {error, _} = Error -> Error
    end;
available(_, _) ->
    ok.

%% @doc Frames as terms, in the process that takes them.
-spec items(none | json, erlmcp_native_path:path(), [erlmcp_native_path:item()]) ->
    [erlmcp_native_path:item()].
items(none, _, Items) ->
    Items;
items(json, Path, Items) ->
    Decode = codec(Path, erlmcp_native_path:default()),
    [item(Decode, Item) || Item <- Items].

codec(Path, Path) -> fun erlmcp_native_json:decode/1;
codec(Path, _) -> fun(Frame) -> erlmcp_native_json:decode(Frame, #{path => Path}) end.

item(Decode, Frame) when is_binary(Frame) ->
    case Decode(Frame) of
        {ok, Term} -> {json, Term};
        {error, Fault} -> {bad_json, Fault, Frame}
    end;
item(_, Oversized) ->
    Oversized.
