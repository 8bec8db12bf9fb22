%% What suites put into their configuration before their cases.
-module(test_config).

-export([start/2, stop/1, use/3]).

%% Starts applications, which `stop/1' stops again with those that they needed.
start(Apps, Config) ->
    Started = [element(2, {ok, _} = application:ensure_all_started(App)) || App <- Apps],
    [{started, lists:append(Started)} | Config].

stop(Config) ->
    _ = [application:stop(App) || App <- lists:reverse(proplists:get_value(started, Config))],
    ok.

%% Makes a path the node's, as the behaviour of one kind of transport has it.
use(Behaviour, Path, Config) ->
    {ok, _} = Behaviour:use(Path),
    [{path, Path} | Config].
