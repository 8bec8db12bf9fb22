%% @doc What the analyses measure: a transport on a path, a server of it and clients.
%%
%% ```
%% {ok, Subject} = erlmcp_native_analysis_subject:start(#{transport => tcp, path => nif}),
%% {ok, Client} = erlmcp_native_analysis_subject:open(Subject),
%% {ok, Sent} = erlmcp_native_analysis_subject:request(Client, 1, Json),
%% receive Msg ->
%%     {[{answer, 1, ok}], Next} = erlmcp_native_analysis_subject:handle_info(Msg, Sent)
%% end.
%% '''
%%
%% A server of ours echoes, at a free port of the loopback interface or in a child process; where
%% `endpoint' says so it is a server of the user's, which is not started and not stopped. A server
%% of ours belongs to the process that called {@link start/1} and ends with it; a client is a value
%% in the process that opened it, and closed when that ends. So nothing stays behind that
%% is killed.
-module(erlmcp_native_analysis_subject).

-export([start/1, check/1, open/1, request/3, handle_info/2, close/1, stop/1]).
-export([describe/1, endpoint/1, max_clients/1]).

-export_type([transport/0, path/0, given/0, spec/0, target/0, subject/0, client/0, event/0]).
-export_type([reason/0]).

-type transport() :: stdio | tcp | http.
-type path() :: erlmcp_native_path:path() | erlmcp05.

-type given() :: transport() | #{
    transport := transport(),
    path => path() | default,
    endpoint => map() | binary() | string(),
    tls => false | true | map(),
    options => map(),
    server_options => map(),
    call => erlmcp_native_analysis_call:call(),
    batch => pos_integer(),
    timeout_ms => pos_integer(),
    subject => module()
}.
%% What a user names. `path': the node's. `endpoint': a server of the user's: what
%% {@link erlmcp_native:connect/2} takes for `tcp' and `stdio', a URL for `http'. `tls': what the
%% option of that name takes; a server of ours needs `certfile' and `keyfile', and a client of it
%% `cacertfile' or `verify => none'. `options' are of the client, `server_options' of a server of
%% ours. `call': what is called, a tool `echo' with an argument `text'. `batch': calls that are sent
%% at the same time go as one batch of so many at most, 1 to 100, in revision 2025-03-26; over HTTP
%% by a client that can do nothing else and no TLS. `timeout_ms': to connect and to initialize,
%% 10,000. `subject': a module with this behaviour, in place of the one that belongs
%% to the transport.

-type spec() :: #{
    transport := transport(),
    path := path(),
    endpoint := own | map() | binary(),
    tls := false | true | map(),
    options := map(),
    server_options := map(),
    call := erlmcp_native_analysis_call:call(),
    batch := pos_integer(),
    timeout_ms := pos_integer(),
    subject := module()
}.

-type target() :: term().
%% Where the clients of an implementation connect to, and what it has to stop.

-record(subject, {spec :: spec(), target :: target()}).
-record(client, {module :: module(), state :: term()}).

-opaque subject() :: #subject{}.
-opaque client() :: #client{}.

-type event() ::
    {answer, Id :: non_neg_integer(), ok | {error, term()}}
    | writable
    | {down, erlmcp_native:reason()}.
%% `answer': of a request, once. `writable': a request was refused with `busy', and there is room
%% again. `down': there will be no further answer.

-type reason() :: erlmcp_native:reason() | {initialize, term()}.

-callback start(spec()) -> {ok, target()} | {error, reason()}.
%% Starts the server; with an endpoint of the user's it only looks at what was given.

-callback stop(target()) -> ok.

-callback endpoint(target()) -> map() | binary().
%% Where the server is, as a user would name it.

-callback open(spec(), target()) -> {ok, State :: term()} | {error, reason()}.
%% Connects and initializes, in the calling process, and returns when requests may be sent.

-callback request(State, Id :: pos_integer(), iodata()) ->
    {ok | {error, busy | reason()}, State}.
%% Sends a request; never waits. Where the result is an error there will be no answer.

-callback handle_info(term(), State) -> {[event()], State} | unknown.
%% Gives meaning to a message that has reached the process; `unknown' if it is not this client's.

-callback close(State :: term()) -> ok.

-callback max_clients(spec()) -> pos_integer() | infinity.
%% How many clients there should be at a time. More users than that share them.

-define(TRANSPORTS, [stdio, tcp, http]).

%% @doc Starts what there is to start. The calling process is the owner.
-spec start(given()) -> {ok, subject()} | {error, reason()}.
start(Given) ->
    case check(Given) of
        {ok, #{subject := Module} = Spec} ->
            case Module:start(Spec) of
                {ok, Target} -> {ok, #subject{spec = Spec, target = Target}};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc Checks what was given and completes it.
-spec check(term()) -> {ok, spec()} | {error, {option, term(), term()}}.
check(Transport) when is_atom(Transport) ->
    check(#{transport => Transport});
check(#{transport := Transport} = Given) ->
    Defaults = #{
        transport => Transport,
        path => default,
        endpoint => own,
        tls => false,
        options => #{},
        server_options => #{},
        call => echo,
        batch => 1,
        timeout_ms => 10000,
        subject => module(Given)
    },
    All = maps:merge(Defaults, Given),
    Refused = [KV || {Key, Value} = KV <- maps:to_list(Given), not valid(Key, Value, All)],
    case Refused of
        [] -> {ok, complete(All)};
        _ -> {error, first(Refused)}
    end;
check(#{} = Given) ->
    {error, {option, transport, maps:get(transport, Given, undefined)}};
check(Other) ->
    {error, {option, transport, Other}}.

%% The transport first: with a wrong one nothing else means anything.
first(Refused) ->
    {Key, Value} =
        case lists:keyfind(transport, 1, Refused) of
            false -> hd(Refused);
            Transport -> Transport
        end,
    {option, Key, Value}.

complete(#{path := default} = Spec) -> complete(Spec#{path := erlmcp_native_path:default()});
complete(#{endpoint := Url} = Spec) when is_list(Url) -> Spec#{endpoint := list_to_binary(Url)};
complete(Spec) -> Spec.

module(#{transport := http, batch := Batch}) when Batch =/= 1 -> erlmcp_native_analysis_http_raw;
module(#{transport := http}) -> erlmcp_native_analysis_http;
module(#{transport := stdio}) -> erlmcp_native_analysis_stdio;
module(#{transport := tcp}) -> erlmcp_native_analysis_tcp;
module(#{}) -> undefined.

valid(transport, V, _) -> lists:member(V, ?TRANSPORTS);
valid(path, erlmcp05, #{subject := Subject} = All) -> Subject =/= module(All);
valid(path, V, _) -> lists:member(V, [default, nif, port, beam]);
valid(endpoint, own, _) -> true;
valid(endpoint, V, #{transport := http}) -> is_binary(V) orelse io_lib:latin1_char_list(V);
valid(endpoint, V, _) -> is_map(V);
valid(tls, V, #{transport := stdio}) -> V =:= false;
valid(tls, V, _) -> is_boolean(V) orelse is_map(V);
valid(options, V, _) -> is_map(V);
valid(server_options, V, _) -> is_map(V);
valid(call, V, _) -> erlmcp_native_analysis_call:is_call(V);
valid(batch, V, _) -> is_integer(V) andalso V >= 1 andalso V =< 100;
valid(timeout_ms, V, _) -> is_integer(V) andalso V > 0;
valid(subject, V, _) -> is_atom(V);
valid(_, _, _) -> false.

%% @doc A client in the calling process.
-spec open(subject()) -> {ok, client()} | {error, reason()}.
open(#subject{spec = #{subject := Module} = Spec, target = Target}) ->
    case Module:open(Spec, Target) of
        {ok, State} -> {ok, #client{module = Module, state = State}};
        {error, _} = Error -> Error
    end.

%% @doc Sends a request, whose id is in it and is given beside it.
-spec request(client(), pos_integer(), iodata()) ->
    {ok | {error, busy | reason()}, client()}.
request(#client{module = Module, state = State} = Client, Id, Json) ->
    {Result, Next} = Module:request(State, Id, Json),
    {Result, Client#client{state = Next}}.

%% @doc Gives meaning to a message in the mailbox.
-spec handle_info(term(), client()) -> {[event()], client()} | unknown.
handle_info(Msg, #client{module = Module, state = State} = Client) ->
    case Module:handle_info(Msg, State) of
        {Events, Next} -> {Events, Client#client{state = Next}};
        unknown -> unknown
    end.

-spec close(client()) -> ok.
close(#client{module = Module, state = State}) ->
    Module:close(State).

-spec stop(subject()) -> ok.
stop(#subject{spec = #{subject := Module}, target = Target}) ->
    Module:stop(Target).

%% @doc What it was started with.
-spec describe(subject()) -> spec().
describe(#subject{spec = Spec}) ->
    Spec.

%% @doc Where its server is, for clients elsewhere.
-spec endpoint(subject()) -> map() | binary().
endpoint(#subject{spec = #{subject := Module}, target = Target}) ->
    Module:endpoint(Target).

%% @doc How many clients there should be at a time.
-spec max_clients(subject()) -> pos_integer() | infinity.
max_clients(#subject{spec = #{subject := Module} = Spec}) ->
    Module:max_clients(Spec).
