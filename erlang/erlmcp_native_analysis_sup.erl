%% @private The runs of the analyses, apart from everything that serves: what is wrong with one is
%% nobody else's trouble, and when the application stops none is left.
-module(erlmcp_native_analysis_sup).

-behaviour(supervisor).

-export([start_link/0, start_run/1, stop_runs/0, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Runs a function for the calling process.
-spec start_run(fun(() -> term())) -> {ok, pid()}.
start_run(Fun) ->
    {ok, _} = supervisor:start_child(?MODULE, [Fun, self()]).

%% @doc Ends all that are under way.
-spec stop_runs() -> ok.
stop_runs() ->
    lists:foreach(
        fun({_, Pid, _, _}) -> supervisor:terminate_child(?MODULE, Pid) end,
        supervisor:which_children(?MODULE)
    ).

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Run = #{
        id => run,
        start => {erlmcp_native_analysis_run, start_link, []},
        restart => temporary,
        shutdown => 5000
    },
    {ok, {#{strategy => simple_one_for_one}, [Run]}}.
