%% @doc Several endpoints seen as one: requests go to the one that is active, and to another when
%% that one fails, is slow, dies, or is to be taken out of service.
%%
%% ```
%% {ok, Pid} = erlmcp_native_failover:start_link(
%%     [
%%         #{name => primary, to => #{host => "10.0.0.1", port => 5000}},
%%         #{name => second, to => <<"https://mcp.example.org/mcp">>},
%%         #{name => local, to => #{command => "my-server"}}
%%     ],
%%     #{initialize => #{capabilities => #{}}}
%% ),
%% {ok, Id} = erlmcp_native_failover:request(Pid, #{method => <<"tools/list">>}, #{safe => true}),
%% receive
%%     {erlmcp_native, Pid, {outcome, Id, {ok, Result}}} -> Result;
%%     {erlmcp_native, Pid, {outcome, Id, {error, Reason}}} -> Reason
%% end.
%% '''
%%
%% All endpoints are connected, initialized and kept warm with pings. Each request has exactly one
%% outcome. What has not been sent moves to another endpoint without a word; what was sent and not
%% answered when its endpoint was lost is sent again only if it was marked `safe', and otherwise
%% ends with `{error, {switched, From, To, Reason}}'. docs/resilience.md has the whole.
%% {@link erlmcp_native_failover_plan} decides.
-module(erlmcp_native_failover).

-export([start/1, start/2, start_link/1, start_link/2, stop/1]).
-export([request/2, request/3, call/2, call/3, cancel/2, notify/2, send/3, switch/2, info/1]).

-export_type([endpoint/0, options/0, name/0, event/0, outcome/0, request_options/0]).

-type name() :: term().

-type endpoint() :: #{to := map() | string() | binary(), name => name(), options => map()}.
%% `to' is an endpoint as for {@link erlmcp_native:connect/2}, a child process included, or the URL
%% of an MCP server; `options' are those of `connect/2' or {@link erlmcp_native_http_client}. The
%% name is `to' if not given.

-type options() :: #{
    owner => pid(),
    initialize => none | map() | fun((name()) -> map()),
    timeout_ms => pos_integer() | infinity,
    max_in_flight => pos_integer(),
    max_queue => pos_integer(),
    retries => non_neg_integer(),
    failback => boolean(),
    ping_ms => pos_integer(),
    ping_timeout_ms => pos_integer(),
    initialize_timeout_ms => pos_integer(),
    max_owner_queue => pos_integer(),
    breaker => boolean() | map()
}.

-type request_options() :: #{safe => boolean(), timeout_ms => pos_integer() | infinity}.

-type outcome() :: {ok, Result :: term()} | {error, reason()}.

-type reason() ::
    {rpc, Error :: map()}
    | {switched, From :: name(), To :: name() | none, Reason :: term()}
    | timeout
    | cancelled
    | term().
%% `rpc': the server has answered with an error of JSON-RPC.

-type event() ::
    {outcome, Id :: pos_integer(), outcome()}
    | {switched, From :: name() | none, To :: name() | none, Reason :: term()}
    | {initialized, name(), Result :: map()}
    | {message, name(), Message :: map()}.
%% `switched': another endpoint is active; `none' is when there is none. `message': a request or a
%% notification of a server; {@link send/3} answers.

-define(CALL_TIMEOUT_MS, 30000).

%% @equiv start(Endpoints, #{})
-spec start([endpoint(), ...]) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start(Endpoints) -> start(Endpoints, #{}).

%% @doc Starts one under this application's supervisor; it ends with its owner.
-spec start([endpoint(), ...], options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start(Endpoints, Options) ->
    checked(fun erlmcp_native_failover_sup:start_failover/1, Endpoints, Options).

%% @equiv start_link(Endpoints, #{})
-spec start_link([endpoint(), ...]) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Endpoints) -> start_link(Endpoints, #{}).

%% @doc The same, linked to the caller.
-spec start_link([endpoint(), ...], options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Endpoints, Options) ->
    checked(fun erlmcp_native_failover_proc:start_link/1, Endpoints, Options).

checked(Start, Endpoints, Options) ->
    case erlmcp_native_failover_options:check(Endpoints, Options) of
        {ok, Checked, Settings} -> Start({Checked, Settings});
        {error, _} = Error -> Error
    end.

%% @doc Ends it; requests that wait end with `{error, closed}'.
-spec stop(pid()) -> ok.
stop(Pid) ->
    try
        gen_server:stop(Pid)
    catch
        exit:noproc -> ok
    end.

%% @equiv request(Pid, Message, #{})
-spec request(pid(), map()) -> {ok, pos_integer()} | {error, term()}.
request(Pid, Message) -> request(Pid, Message, #{}).

%% @doc Makes a request, a map with `method' and `params'; an id that it has is replaced. The
%% outcome reaches the owner as an event. `safe': it may be made twice. `{error, busy}': too many
%% wait.
-spec request(pid(), map(), request_options()) -> {ok, pos_integer()} | {error, term()}.
request(Pid, Message, Options) ->
    with_request(Message, Options, fun(Request) ->
        ask(Pid, {request, Request, Options}, ?CALL_TIMEOUT_MS)
    end).

%% @equiv call(Pid, Message, #{})
-spec call(pid(), map()) -> outcome().
call(Pid, Message) -> call(Pid, Message, #{}).

%% @doc The same, by any process, which waits for the outcome.
-spec call(pid(), map(), request_options()) -> outcome().
call(Pid, Message, Options) ->
    with_request(Message, Options, fun(Request) ->
        ask(Pid, {call, Request, Options}, infinity)
    end).

%% @doc Gives a request up: its outcome is `{error, cancelled}'.
-spec cancel(pid(), pos_integer()) -> ok | {error, unknown | closed}.
cancel(Pid, Id) -> ask(Pid, {cancel, Id}, ?CALL_TIMEOUT_MS).

%% @doc Sends a notification to the endpoint that is active.
-spec notify(pid(), map()) -> ok | {error, term()}.
notify(Pid, Message) -> ask(Pid, {notify, active, Message}, ?CALL_TIMEOUT_MS).

%% @doc Sends a message to an endpoint, most often the response to a request that came from there.
-spec send(pid(), name(), map()) -> ok | {error, term()}.
send(Pid, Name, Message) -> ask(Pid, {notify, {name, Name}, Message}, ?CALL_TIMEOUT_MS).

%% @doc A planned switch: new requests go to the endpoint named, or to the `next' that is ready; the
%% former finishes what it was sent, and stays connected.
-spec switch(pid(), name() | next) -> ok | {error, not_ready | closed}.
switch(Pid, To) -> ask(Pid, {switch, To}, ?CALL_TIMEOUT_MS).

%% @doc What is active, how all endpoints are, and counts.
-spec info(pid()) -> {ok, map()} | {error, closed}.
info(Pid) -> ask(Pid, info, ?CALL_TIMEOUT_MS).

with_request(Message, Options, Then) ->
    Wrong = [KV || {Key, Value} = KV <- maps:to_list(Options), not valid(Key, Value)],
    case {normal(Message), Wrong} of
        {{ok, Request}, []} -> Then(Request);
        {error, _} -> {error, invalid_message};
        {_, [{Key, Value} | _]} -> {error, {option, Key, Value}}
    end.

normal(#{method := Method} = Message) when is_binary(Method) ->
    {ok, (maps:remove(id, Message))#{jsonrpc => <<"2.0">>}};
normal(#{<<"method">> := Method} = Message) when is_binary(Method) ->
    {ok, (maps:without([<<"id">>, <<"jsonrpc">>], Message))#{jsonrpc => <<"2.0">>}};
normal(_) ->
    error.

valid(safe, V) -> is_boolean(V);
valid(timeout_ms, V) -> erlmcp_native_failover_options:timeout_ms(V);
valid(_, _) -> false.

ask(Pid, Request, Timeout) ->
    try
        gen_server:call(Pid, Request, Timeout)
    catch
        exit:{Reason, _} when Reason =:= noproc; Reason =:= normal; Reason =:= shutdown ->
            {error, closed}
    end.
