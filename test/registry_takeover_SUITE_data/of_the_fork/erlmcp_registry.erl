%% In the shape of the fork.
-module(erlmcp_registry).

-define(STATE,
    {registry_state, #{}, #{}, #{}, #{}, #{}, #{}, #{}, 0, erlang:system_time(second)}
).

-include("../standin.hrl").
