%% In the shape of erlmcp 0.5.0.
-module(erlmcp_registry).

-define(STATE, {registry_state, #{}, #{}, #{}, #{}, #{}, #{}}).

-include("../standin.hrl").
