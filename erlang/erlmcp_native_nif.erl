%% @doc The functions of the native library. No logic: this module can never be reloaded.
%%
%% Loading is soft. A node whose library is missing or refuses to load boots and runs on the
%% `beam' path; {@link status/0} tells why. Replacing a loaded module is refused, the running
%% code stays.
-module(erlmcp_native_nif).

-on_load(init/0).

-export([status/0]).

-define(STATUS_KEY, {?MODULE, status}).

%% @doc Whether the library is loaded, or the reason why it is not.
-spec status() -> loaded | {failed, no_library | {atom(), string()}}.
status() ->
    persistent_term:get(?STATUS_KEY, {failed, no_library}).

init() ->
    case erlang:load_nif(library(), 0) of
        ok ->
            persistent_term:put(?STATUS_KEY, loaded);
        {error, {Kind, _}} when Kind =:= upgrade; Kind =:= reload ->
            {error, Kind};
        {error, Reason} ->
            persistent_term:put(?STATUS_KEY, {failed, Reason})
    end.

library() ->
    case code:priv_dir(erlmcp_native) of
        {error, bad_name} -> "erlmcp_native";
        Dir -> filename:join(Dir, "erlmcp_native")
    end.
