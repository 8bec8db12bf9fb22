%% @private What the processes of erlmcp are known to bear, of 0.5 and of the fork's state of
%% August 2025: found by reading them, confirmed by sending it.
-module(erlmcp_native_guard_rules).

-export([bears_request/3, bears_notification/3, bears_result/1]).

-type params() :: object | array | none | other.

%% @doc Whether an erlmcp server survives a request; of a message whose `params' are an object
%% more is read where the method needs it.
-spec bears_request(Method :: binary(), params(), Message :: binary()) -> boolean().
bears_request(_, Params, _) when Params =:= array; Params =:= other ->
    false;
bears_request(<<"tools/call">>, object, Message) ->
    case params(Message) of
        #{<<"arguments">> := Arguments} -> is_map(Arguments);
        Params -> is_map(Params)
    end;
bears_request(<<"resources/subscribe">>, object, Message) ->
    is_map_key(<<"uri">>, params(Message));
bears_request(<<"resources/unsubscribe">>, object, Message) ->
    is_map_key(<<"uri">>, params(Message));
bears_request(Method, Params, _) ->
    Params =:= object orelse not needs_object(Method).

-spec bears_notification(erlmcp_native_guard:receiver(), Method :: binary(), params()) -> boolean().
bears_notification(client, <<"resources/updated">>, Params) -> Params =:= object;
bears_notification(_, _, Params) -> Params =:= object orelse Params =:= none.

%% @doc Whether an erlmcp client survives a result of `initialize'.
-spec bears_result(term()) -> boolean().
bears_result(#{<<"capabilities">> := Capabilities}) -> is_map(Capabilities);
bears_result(Result) -> is_map(Result).

needs_object(<<"tools/call">>) -> true;
needs_object(<<"resources/read">>) -> true;
needs_object(<<"resources/subscribe">>) -> true;
needs_object(<<"resources/unsubscribe">>) -> true;
needs_object(<<"prompts/get">>) -> true;
needs_object(_) -> false.

params(Message) ->
    case erlmcp_native_json:decode(Message) of
        {ok, #{<<"params">> := #{} = Params}} -> Params;
        _ -> #{<<"arguments">> => none}
    end.
