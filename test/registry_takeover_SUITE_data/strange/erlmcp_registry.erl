%% Of a version whose state is another.
-module(erlmcp_registry).

-define(STATE, {registry_state, #{}, #{}, #{}, #{}, #{}, #{}, []}).

-include("../standin.hrl").
