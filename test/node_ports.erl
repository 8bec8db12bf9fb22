%% In place of epmd for nodes that a test starts: each writes its port into a file, in the folder
%% that NODE_PORTS names, and nothing goes on running.
-module(node_ports).

-export([start_link/0, register_node/2, register_node/3, port_please/2, port_please/3, names/1]).

start_link() -> ignore.

register_node(Name, Port) -> register_node(Name, Port, inet).

register_node(Name, Port, _) ->
    Written = file(Name) ++ ".written",
    %% A node is registered before it has a file server.
    ok = prim_file:write_file(Written, integer_to_binary(Port)),
    ok = prim_file:rename(Written, file(Name)),
    {ok, 1 + erlang:phash2(make_ref(), 1 bsl 20)}.

port_please(Name, Host) -> port_please(Name, Host, infinity).

port_please(Name, _, _) ->
    case prim_file:read_file(file(Name)) of
        {ok, Port} -> {port, binary_to_integer(Port), 6};
        {error, _} -> noport
    end.

names(_) -> {error, address}.

file(Name) when is_atom(Name) -> file(atom_to_list(Name));
file(Name) -> filename:join(os:getenv("NODE_PORTS"), Name).
