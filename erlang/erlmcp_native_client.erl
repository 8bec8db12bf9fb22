%% @doc An erlmcp client and its transport under a supervisor of the user's.
%%
%% ```
%% erlmcp_native_client:child_spec(#{
%%     id => my_client,
%%     name => {local, my_client},
%%     transport => #{host => "127.0.0.1", port => 5000},
%%     client => #{strict_mode => true}
%% })
%% '''
%%
%% starts a supervisor with the two; {@link client/1} gives the pid of the client. When one of them
%% ends both are started again: a client without a transport answers nothing, and the session of
%% a client that is gone is of no use to another.
-module(erlmcp_native_client).

-behaviour(supervisor).

-export([child_spec/1, start_link/1, client/1, transport/1]).
-export([init/1, start_transport/1, start_client/1]).

-export_type([options/0]).

-type options() :: #{
    transport := map(),
    client => map(),
    name => {local, atom()},
    id => term(),
    intensity => non_neg_integer(),
    period => pos_integer()
}.
%% `transport' as for {@link erlmcp_native_transport_options}, `client' as erlmcp's client has it;
%% `intensity' and `period' of the supervisor are 3 and 60.

%% @doc A child of a supervisor. `id' is the module's name if none is given.
-spec child_spec(options()) -> supervisor:child_spec().
child_spec(Options) ->
    #{
        id => maps:get(id, Options, ?MODULE),
        start => {?MODULE, start_link, [Options]},
        type => supervisor
    }.

-spec start_link(options()) -> supervisor:startlink_ret().
start_link(#{name := Name} = Options) ->
    supervisor:start_link(Name, ?MODULE, Options);
start_link(Options) ->
    supervisor:start_link(?MODULE, Options).

%% @doc The client: what erlmcp's functions take.
-spec client(pid() | atom()) -> {ok, pid()} | {error, not_running}.
client(Supervisor) ->
    child(client, Supervisor).

-spec transport(pid() | atom()) -> {ok, pid()} | {error, not_running}.
transport(Supervisor) ->
    child(transport, Supervisor).

%% @private
-spec init(options()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(#{transport := Transport} = Options) ->
    Flags = #{
        strategy => one_for_all,
        intensity => maps:get(intensity, Options, 3),
        period => maps:get(period, Options, 60)
    },
    Children = [
        #{id => transport, start => {?MODULE, start_transport, [Transport]}},
        #{id => client, start => {?MODULE, start_client, [maps:get(client, Options, #{})]}}
    ],
    {ok, {Flags, Children}}.

%% Both run in the supervisor, which cannot be asked for its children then: what the client needs
%% is handed on in its process dictionary.
%% @private
-spec start_transport(map()) -> {ok, pid()} | {error, term()}.
start_transport(Given) ->
    %% The owner is the client, which sends first.
    Options = maps:merge(#{guard => client}, maps:remove(owner, Given)),
    case erlmcp_native_transport_owner:start_link(Options) of
        {ok, Transport} ->
            _ = put({?MODULE, transport}, Transport),
            {ok, Transport};
        {error, _} = Error ->
            Error
    end.

%% @private
-spec start_client(map()) -> {ok, pid()} | {error, term()}.
start_client(Options) ->
    (erlmcp_client()):start_link({tcp, get({?MODULE, transport})}, Options).

%% Not by name: erlmcp is no dependency of this application.
erlmcp_client() -> erlmcp_client.

child(Id, Supervisor) ->
    case lists:keyfind(Id, 1, supervisor:which_children(Supervisor)) of
        {Id, Pid, _, _} when is_pid(Pid) -> {ok, Pid};
        _ -> {error, not_running}
    end.
