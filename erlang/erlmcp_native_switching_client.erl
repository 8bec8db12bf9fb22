%% @doc What the analysis of switching drives: {@link erlmcp_native_failover}. What it is compared
%% with brings a module of the same callbacks.
-module(erlmcp_native_switching_client).

-export([start/2, ready/1, request/2, switch/2, active/1, event/1, stop/1]).

-type event() ::
    {outcome, Id :: pos_integer(), ok | {error, term()}} | {switched, To :: term()} | other.

-callback start([{Name :: term(), Endpoint :: term()}], erlmcp_native_report:path()) ->
    {ok, Pid :: pid()}.
%% The caller owns it.

-callback ready(pid()) -> ok.
%% Returns when all endpoints can be used.

-callback request(pid(), Safe :: boolean()) -> {ok, Id :: pos_integer()} | {error, term()}.

-callback switch(pid(), Name :: term()) -> ok | {error, term()}.

-callback active(pid()) -> Name :: term().

-callback event(Message :: term()) -> event().
%% What a message to the owner means.

-callback stop(pid()) -> ok.

-define(WAIT_MS, 60000).

%% @private
-spec start([{term(), term()}], erlmcp_native_report:path()) -> {ok, pid()}.
start(Endpoints, Path) ->
    erlmcp_native_failover:start_link(
        [#{name => Name, to => To, options => #{path => Path}} || {Name, To} <- Endpoints],
        #{initialize => #{capabilities => #{}}}
    ).

%% @private
-spec ready(pid()) -> ok.
ready(Pid) ->
    ready(Pid, erlang:monotonic_time(millisecond) + ?WAIT_MS).

ready(Pid, Deadline) ->
    {ok, #{endpoints := Endpoints, ready := Ready}} = erlmcp_native_failover:info(Pid),
    case maps:keys(Endpoints) -- Ready of
        [] ->
            ok;
        Waiting ->
            receive
            after 20 -> ok
            end,
            case erlang:monotonic_time(millisecond) > Deadline of
                true -> exit({not_ready, Waiting});
                false -> ready(Pid, Deadline)
            end
    end.

%% @private
-spec request(pid(), boolean()) -> {ok, pos_integer()} | {error, term()}.
request(Pid, Safe) ->
    Message = #{
        method => <<"tools/call">>,
        params => #{name => <<"echo">>, arguments => #{text => <<"a text that is echoed">>}}
    },
    erlmcp_native_failover:request(Pid, Message, #{safe => Safe}).

%% @private
-spec switch(pid(), term()) -> ok | {error, term()}.
switch(Pid, Name) -> erlmcp_native_failover:switch(Pid, Name).

%% @private
-spec active(pid()) -> term().
active(Pid) ->
    {ok, #{active := Name}} = erlmcp_native_failover:info(Pid),
    Name.

%% @private
-spec event(term()) -> event().
event({erlmcp_native, _, {outcome, Id, {ok, _}}}) -> {outcome, Id, ok};
event({erlmcp_native, _, {outcome, Id, {error, _} = Error}}) -> {outcome, Id, Error};
event({erlmcp_native, _, {switched, _, To, _}}) -> {switched, To};
event(_) -> other.

%% @private
-spec stop(pid()) -> ok.
stop(Pid) -> erlmcp_native_failover:stop(Pid).
