%% @private Replaces loaded modules by others of the same name, and puts the originals back.
%%
%% Nothing here kills a process: where one still runs in code that would have to go, the change is
%% refused, or waits a little.
-module(erlmcp_native_takeover_code).

-export([examine/1, replace/1, undone/1, restore/1]).

-export_type([reason/0, replaced/0]).

-type reason() ::
    {not_found, module()}
    | {no_replacement, file:filename_all(), file:posix()}
    | {not_offered, module(), [{atom(), arity()}]}
    | {unknown_shape, module()}
    | {in_use, module(), [pid()]}
    | {old_code_in_use, module()}
    | {not_loaded, module(), term()}.

-record(replaced, {
    module :: module(),
    original :: {file:filename_all(), binary()},
    replacement :: {file:filename_all(), binary()},
    md5 :: binary()
}).

-opaque replaced() :: #replaced{}.

-define(SHAPES, #{
    erlmcp_transport_tcp => [
        [{start_link, 1}, {connect, 2}, {send, 2}, {close, 1}],
        [{start_link, 2}, {send, 2}, {close, 1}, {get_info, 1}]
    ],
    erlmcp_transport_http => [
        [{start_link, 1}, {send, 2}, {close, 1}],
        [{start_link, 2}, {send, 2}, {close, 1}, {get_info, 1}]
    ],
    erlmcp_stdio => [
        [{start, 0}, {start, 1}, {stop, 0}, {add_tool, 3}, {add_tool, 4}, {is_running, 0}]
    ],
    erlmcp_transport_stdio => [
        [{start_link, 1}, {send, 2}, {close, 1}]
    ],
    erlmcp_transport_stdio_new => [
        [{start_link, 2}, {send, 2}, {close, 1}]
    ],
    erlmcp_json_rpc => [
        [
            {encode_request, 3},
            {encode_response, 2},
            {encode_error_response, 3},
            {encode_notification, 2},
            {decode_message, 1},
            {create_error, 3}
        ]
    ],
    erlmcp_registry => [
        [
            {start_link, 0},
            {register_server, 3},
            {unregister_server, 1},
            {find_server, 1},
            {list_servers, 0},
            {register_transport, 3},
            {unregister_transport, 1},
            {find_transport, 1},
            {list_transports, 0},
            {bind_transport_to_server, 2},
            {unbind_transport, 1},
            {get_server_for_transport, 1},
            {route_to_server, 3},
            {route_to_transport, 3}
        ]
    ]
}).

%% The process of the original goes on with the code that replaces it.
-define(GOES_ON, [erlmcp_registry]).

%% The other replacements are no gen_servers themselves.
-define(NOT_CALLED, [
    {module_info, 0},
    {module_info, 1},
    {init, 1},
    {handle_call, 3},
    {handle_cast, 2},
    {handle_info, 2},
    {terminate, 2},
    {code_change, 3}
]).

-define(PURGE_TRIES, 20).
-define(PURGE_WAIT_MS, 50).

%% @doc Replaces all of the modules, or none.
-spec replace([module()]) -> {ok, [replaced()]} | {error, reason()}.
replace(Modules) ->
    case examine(Modules) of
        {ok, Examined} -> load_all(Examined, []);
        {error, _} = Error -> Error
    end.

%% @doc Whether all of the modules can be replaced, and by what.
-spec examine([module()]) -> {ok, [replaced()]} | {error, reason()}.
examine(Modules) ->
    each(fun examine_one/1, Modules).

%% @doc The modules that are no longer the replacements.
-spec undone([replaced()]) -> [module()].
undone(Replaced) ->
    [Module || #replaced{module = Module} = One <- Replaced, not is_ours(One)].

%% @doc Puts the originals back, but where something else has been loaded since.
-spec restore([replaced()]) -> [reason()].
restore(Replaced) ->
    [Reason || #replaced{} = One <- Replaced, is_ours(One), {error, Reason} <- [put_back(One)]].

examine_one(Module) ->
    case code:get_object_code(Module) of
        {Module, Original, File} ->
            Replacement = replacement(Module),
            case file:read_file(Replacement) of
                {ok, Binary} ->
                    Found = #replaced{
                        module = Module,
                        original = {File, Original},
                        replacement = {Replacement, Binary},
                        md5 = code:module_md5(Binary)
                    },
                    check(Found);
                {error, Posix} ->
                    {error, {no_replacement, Replacement, Posix}}
            end;
        error ->
            {error, {not_found, Module}}
    end.

replacement(Module) ->
    filename:join([code:priv_dir(erlmcp_native), "takeover", atom_to_list(Module) ++ ".beam"]).

check(#replaced{module = Module, original = {_, Original}, replacement = {_, Binary}} = Found) ->
    Exports = exports(Original),
    Shapes = maps:get(Module, ?SHAPES),
    case {Exports -- exports(Binary), [Shape || Shape <- Shapes, Shape -- Exports =:= []]} of
        {[_ | _] = Missing, _} -> {error, {not_offered, Module, lists:sort(Missing)}};
        {[], []} -> {error, {unknown_shape, Module}};
        {[], _} ->
            case lists:member(Module, ?GOES_ON) of
                true -> {ok, Found};
                false -> check_unused(Found)
            end
    end.

exports(Binary) ->
    {ok, {_, [{exports, Exports}]}} = beam_lib:chunks(Binary, [exports]),
    Exports -- ?NOT_CALLED.

%% A gen_server of the original would find none of its callbacks any more.
check_unused(#replaced{module = Module} = Found) ->
    case [Pid || Pid <- processes(), proc_lib:translate_initial_call(Pid) =:= {Module, init, 1}] of
        [] -> {ok, Found};
        Pids -> {error, {in_use, Module, Pids}}
    end.

load_all([], Loaded) ->
    {ok, lists:reverse(Loaded)};
load_all([#replaced{module = Module, replacement = {File, Binary}} = Next | Rest], Loaded) ->
    case is_ours(Next) orelse load(Module, File, Binary) of
        Ok when Ok =:= true; Ok =:= ok ->
            load_all(Rest, [Next | Loaded]);
        {error, _} = Error ->
            _ = restore(Loaded),
            Error
    end.

load(Module, File, Binary) ->
    case purge(Module) of
        ok ->
            case code:load_binary(Module, filename(File), Binary) of
                {module, Module} -> loaded(Module);
                {error, Reason} -> {error, {not_loaded, Module, Reason}}
            end;
        {error, _} = Error ->
            Error
    end.

%% Another load, such as an upgrade's, finds no old code in its way.
loaded(Module) ->
    _ = code:soft_purge(Module),
    ok.

%% The original as it is on disk now: a release upgrade may have brought another. In embedded mode
%% nothing else would load it.
put_back(#replaced{module = Module, original = {File, Binary}}) ->
    case purge(Module) of
        ok ->
            case code:load_file(Module) of
                {module, Module} -> loaded(Module);
                {error, _} -> load(Module, File, Binary)
            end;
        {error, _} = Error ->
            Error
    end.

purge(Module) -> purge(Module, ?PURGE_TRIES).

purge(Module, 0) ->
    {error, {old_code_in_use, Module}};
purge(Module, Tries) ->
    case code:soft_purge(Module) of
        true ->
            ok;
        false ->
            receive
            after ?PURGE_WAIT_MS -> purge(Module, Tries - 1)
            end
    end.

is_ours(#replaced{module = Module, md5 = Md5}) ->
    erlang:module_loaded(Module) andalso Module:module_info(md5) =:= Md5.

filename(File) when is_binary(File) -> unicode:characters_to_list(File);
filename(File) -> File.

each(Fun, List) -> each(Fun, List, []).

each(_, [], Acc) ->
    {ok, lists:reverse(Acc)};
each(Fun, [First | Rest], Acc) ->
    case Fun(First) of
        {ok, Value} -> each(Fun, Rest, [Value | Acc]);
        {error, _} = Error -> Error
    end.
