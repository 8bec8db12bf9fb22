%% @doc What the requests of a conformance server share: who listens for changes, what runs long,
%% and the key that signs the states it hands out.
-module(conformance_hub).

-behaviour(gen_server).

-export([start_link/0, stop/1, key/1, listen/2, change/2, running/1, watch/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

start_link() -> gen_server:start_link(?MODULE, [], []).

stop(Hub) -> gen_server:stop(Hub).

key(Hub) -> gen_server:call(Hub, key).

%% @doc The calling process is sent `{changed, What}' for those of the list.
listen(Hub, Whats) -> gen_server:call(Hub, {listen, self(), Whats}).

change(Hub, What) -> gen_server:call(Hub, {change, What}).

%% @doc The calling process is a request that runs long.
running(Hub) -> gen_server:call(Hub, {running, self()}).

%% @doc The calling process is sent `{request_running, Hub}' and `{request_ended, Hub, Reason}' of
%% each request that runs long.
watch(Hub) -> gen_server:call(Hub, {watch, self()}).

init([]) ->
    {ok, #{key => crypto:strong_rand_bytes(32), listening => #{}, running => #{}, watching => []}}.

handle_call(key, _, #{key := Key} = S) ->
    {reply, Key, S};
handle_call({listen, Pid, Whats}, _, #{listening := Listening} = S) ->
    {reply, ok, S#{listening := Listening#{monitor(process, Pid) => {Pid, Whats}}}};
handle_call({change, What}, _, #{listening := Listening} = S) ->
    _ = [Pid ! {changed, What} || {Pid, Whats} <- maps:values(Listening),
        lists:member(What, Whats)],
    {reply, ok, S};
handle_call({running, Pid}, _, #{running := Running} = S) ->
    tell({request_running, self()}, S),
    {reply, ok, S#{running := Running#{monitor(process, Pid) => Pid}}};
handle_call({watch, Pid}, _, #{watching := Watching} = S) ->
    {reply, ok, S#{watching := [Pid | Watching]}}.

handle_cast(_, S) ->
    {noreply, S}.

handle_info({'DOWN', Ref, process, _, Reason}, #{running := Running} = S) ->
    #{listening := Listening} = S,
    _ = [tell({request_ended, self(), Reason}, S) || is_map_key(Ref, Running)],
    {noreply, S#{running := maps:remove(Ref, Running), listening := maps:remove(Ref, Listening)}}.

tell(Msg, #{watching := Watching}) ->
    _ = [Pid ! Msg || Pid <- Watching],
    ok.
