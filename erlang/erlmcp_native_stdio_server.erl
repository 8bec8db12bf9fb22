%% @doc The `erlmcp_stdio_server' of erlmcp, unchanged, over standard input and output as this
%% application has them.
%%
%% That server reads with `io:get_line/1' and answers with `io:format/2', which go to its group
%% leader. Here the group leader is a process of ours, that speaks the I/O protocol:
%%
%% ```
%% {ok, _} = erlmcp_native_stdio_server:start_link(#{
%%     tools => [{<<"echo">>, <<"Says it again">>, fun(#{<<"text">> := Text}) -> Text end}]
%% }).
%% '''
%%
%% <ul>
%% <li>Lines are given and taken as the bytes that they are, UTF-8, whatever the encoding of the
%% device `user'.</li>
%% <li>What is printed in a tool and is no JSON-RPC message goes to standard error.</li>
%% <li>The first line is given when `ready/0' is called, or when `settle_ms' (200) have passed since
%% the start and the last call of {@link add/2}. `infinity' waits for the call.</li>
%% <li>When the input has ended and the server has answered, all ends.</li>
%% </ul>
%% The other options are `tools', `resources' and `prompts', lists of tuples of the arguments that
%% `erlmcp_stdio_server' has for each, `server', the options of the server itself, and those of
%% `erlmcp_native:connect(stdio, _)'.
-module(erlmcp_native_stdio_server).

-behaviour(gen_server).

-export([start_link/1, start/1, stop/0, ready/0, add/2, is_running/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([kind/0]).

-type kind() :: tool | resource | prompt.

-record(state, {
    server :: pid(),
    guarded :: erlmcp_native_guarded:guarded(),
    ready = false :: boolean(),
    settle_ms :: timeout(),
    settling = none :: none | reference(),
    %% With `again' a reminder to take is under way.
    readable = false :: boolean() | again,
    ended = false :: boolean(),
    lines = queue:new() :: queue:queue(binary()),
    readers = queue:new() :: queue:queue({pid(), term()}),
    %% Beginnings of lines, by who wrote them.
    begun = #{} :: #{pid() => binary()}
}).

-define(SETTLE_MS, 200).
-define(TAKE_ITEMS, 64).
-define(TAKE_BYTES, 1048576).
-define(MAX_ANSWER_BYTES, 67108864).
-define(STASH, stdio_components).

%% @doc Starts the server and its group leader, which is the process that is returned.
-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Options, []).

%% @doc The same, supervised by this application.
-spec start(map()) -> {ok, pid()} | {error, term()}.
start(Options) ->
    Child = #{id => ?MODULE, start => {?MODULE, start_link, [Options]}, restart => temporary},
    case supervisor:start_child(erlmcp_native_sup, Child) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    end.

-spec stop() -> ok.
stop() ->
    case is_running() of
        true -> gen_server:stop(?MODULE);
        false -> ok
    end.

%% @doc Has the server read its first line.
-spec ready() -> ok.
ready() ->
    gen_server:call(?MODULE, ready, infinity).

%% @doc Adds a tool, resource or prompt. One that is added before the start is there for the first
%% request.
-spec add(kind(), tuple()) -> ok | {error, term()}.
add(Kind, Component) ->
    case is_running() of
        true ->
            Result = add_now(Kind, Component),
            ok = gen_server:cast(?MODULE, settle),
            Result;
        false ->
            Stash = application:get_env(erlmcp_native, ?STASH, []),
            application:set_env(erlmcp_native, ?STASH, Stash ++ [{Kind, Component}])
    end.

-spec is_running() -> boolean().
is_running() ->
    whereis(?MODULE) =/= undefined.

add_now(Kind, Component) ->
    Function =
        case Kind of
            tool -> add_tool;
            resource -> add_resource;
            prompt -> add_prompt
        end,
    apply(server(), Function, tuple_to_list(Component)).

%% No module of ours: it is there or not.
server() -> erlmcp_stdio_server.

%% @private
-spec init(map()) -> {ok, #state{}} | {stop, term()}.
init(Options) ->
    process_flag(trap_exit, true),
    Own = maps:with([tools, resources, prompts, server, settle_ms, path], Options),
    case erlmcp_native_stdio:options(maps:without(maps:keys(Own), Options)) of
        {ok, Connection} -> open(Own, Connection);
        {error, Reason} -> {stop, Reason}
    end.

open(Own, Connection) ->
    Guarded = erlmcp_native_guarded:guard(server, erlmcp_native_guarded:new(?MAX_ANSWER_BYTES)),
    Dial = #{path => maps:get(path, Own, default), reconnect => false, connection => Connection},
    case erlmcp_native_guarded:dial(stdio, Dial, Guarded) of
        {ok, Dialling} -> lead(Own, Dialling);
        {error, Reason} -> {stop, Reason}
    end.

%% What the server starts has the group leader that the server has been started with.
lead(Own, Guarded) ->
    Former = group_leader(),
    true = group_leader(self(), self()),
    Server = server(),
    Started = Server:start_link(maps:get(server, Own, #{})),
    true = group_leader(Former, self()),
    case Started of
        {ok, Pid} ->
            ok = components(Own),
            SettleMs = maps:get(settle_ms, Own, ?SETTLE_MS),
            {ok, settle(#state{server = Pid, guarded = Guarded, settle_ms = SettleMs})};
        {error, Reason} ->
            {stop, Reason}
    end.

components(Own) ->
    Stash = application:get_env(erlmcp_native, ?STASH, []),
    ok = application:unset_env(erlmcp_native, ?STASH),
    Given = [
        {Kind, Component}
     || {Key, Kind} <- [{tools, tool}, {resources, resource}, {prompts, prompt}],
        Component <- maps:get(Key, Own, [])
    ],
    lists:foreach(fun({Kind, Component}) -> ok = add_now(Kind, Component) end, Stash ++ Given).

settle(#state{settle_ms = infinity} = S) ->
    S;
settle(#state{settle_ms = Ms, settling = Settling} = S) ->
    _ = is_reference(Settling) andalso erlang:cancel_timer(Settling),
    S#state{settling = erlang:start_timer(Ms, self(), ready)}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(ready, _, S) ->
    {reply, ok, give(S#state{ready = true})};
handle_call(_, _, S) ->
    {reply, {error, unknown_request}, S}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(settle, #state{ready = false} = S) ->
    {noreply, settle(S)};
handle_cast(_, S) ->
    {noreply, S}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({io_request, From, ReplyAs, Request}, S) ->
    {noreply, give(request(Request, From, ReplyAs, S))};
handle_info({timeout, Timer, ready}, #state{settling = Timer} = S) ->
    {noreply, give(S#state{ready = true, settling = none})};
handle_info({?MODULE, take}, #state{readable = again} = S) ->
    {noreply, give(S#state{readable = true})};
handle_info({'EXIT', Server, Reason}, #state{server = Server} = S) ->
    {stop, Reason, S};
handle_info({'EXIT', _, Reason}, S) when Reason =/= normal ->
    {stop, Reason, S};
handle_info(Msg, #state{guarded = Guarded} = S) ->
    case erlmcp_native_guarded:handle_info(Msg, Guarded) of
        {Events, Next} ->
            {noreply, give(lists:foldl(fun event/2, S#state{guarded = Next}, Events))};
        unknown ->
            {noreply, S}
    end.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{guarded = Guarded}) ->
    _ = erlmcp_native_guarded:close(erlmcp_native_guarded:receiver_lost(Guarded)),
    ok.

event(readable, S) -> S#state{readable = true};
event({down, _, _}, S) -> S#state{ended = true};
event(_, S) -> S.

%% ---- lines for the readers

give(#state{ready = true, readers = Readers0, lines = Lines0} = S) ->
    case {queue:out(Readers0), queue:out(Lines0)} of
        {{empty, _}, _} ->
            S;
        {{{value, Reader}, Readers}, {{value, Line}, Lines}} ->
            reply(Reader, Line),
            give(S#state{readers = Readers, lines = Lines});
        {{{value, Reader}, Readers}, {empty, _}} when S#state.ended ->
            reply(Reader, eof),
            give(S#state{readers = Readers});
        {_, {empty, _}} ->
            take(S)
    end;
give(S) ->
    S.

take(#state{readable = true, guarded = Guarded} = S) ->
    case erlmcp_native_guarded:blocked(Guarded) of
        true -> S;
        false -> take_some(S)
    end;
take(S) ->
    S.

take_some(#state{guarded = Guarded} = S) ->
    {Lines, Status, Next} = erlmcp_native_guarded:take(?TAKE_ITEMS, ?TAKE_BYTES, Guarded),
    give(status(Status, S#state{guarded = Next, lines = queue:from_list(Lines)})).

status(more, S) -> S;
status(empty, S) -> S#state{readable = false};
status(again, S) -> later(S);
status(_, S) -> S#state{readable = false, ended = true}.

%% Nothing is sent before another take has found nothing.
later(S) ->
    self() ! {?MODULE, take},
    S#state{readable = again}.

%% ---- the I/O protocol

request({get_line, _, _}, From, ReplyAs, S) -> read(From, ReplyAs, S);
request({get_line, _}, From, ReplyAs, S) -> read(From, ReplyAs, S);
request({get_chars, _, _, 0}, From, ReplyAs, S) -> replied({From, ReplyAs}, <<>>, S);
request({setopts, _}, From, ReplyAs, S) -> replied({From, ReplyAs}, ok, S);
request(getopts, From, ReplyAs, S) ->
    replied({From, ReplyAs}, [{binary, true}, {encoding, unicode}], S);
request({requests, Requests}, From, ReplyAs, S) ->
    Text = [text(Request) || Request <- Requests],
    written(lists:member(error, Text), Text, From, ReplyAs, S);
request(Request, From, ReplyAs, S) ->
    Text = text(Request),
    written(Text =:= error, Text, From, ReplyAs, S).

read(From, ReplyAs, #state{readers = Readers} = S) ->
    S#state{readers = queue:in({From, ReplyAs}, Readers)}.

written(true, _, From, ReplyAs, S) ->
    replied({From, ReplyAs}, {error, enotsup}, S);
written(false, Text, From, ReplyAs, #state{begun = Begun} = S) ->
    Bytes = iolist_to_binary([maps:get(From, Begun, <<>>), Text]),
    Lines = binary:split(Bytes, <<"\n">>, [global]),
    Written = lists:foldl(fun line/2, S, lists:droplast(Lines)),
    replied({From, ReplyAs}, ok, Written#state{begun = begun(From, lists:last(Lines), Begun)}).

begun(From, <<>>, Begun) -> maps:remove(From, Begun);
begun(From, Rest, Begun) -> Begun#{From => Rest}.

%% The bytes of UTF-8 that a format makes of `~s' and a binary are one character each, and meant as
%% what they are.
text({put_chars, _, io_lib, _, ["~s~n", [Line]]}) when is_binary(Line) -> [Line, $\n];
text({put_chars, _, Module, Function, Args}) -> called(Module, Function, Args);
text({put_chars, _, Chars}) -> bytes(Chars);
text({put_chars, Chars}) -> bytes(Chars);
text(_) -> error.

called(Module, Function, Args) ->
    try
        bytes(apply(Module, Function, Args))
    catch
        _:_ -> error
    end.

bytes(Chars) ->
    try
        Bytes = iolist_to_binary(Chars),
        true = is_list(unicode:characters_to_list(Bytes)),
        Bytes
    catch
        error:_ -> utf8(unicode:characters_to_binary(Chars))
    end.

utf8(Bytes) when is_binary(Bytes) -> Bytes;
utf8(_) -> error.

line(Line, #state{guarded = Guarded} = S) ->
    case erlmcp_native_json:scan(Line) of
        {ok, _} ->
            S#state{guarded = erlmcp_native_guarded:answer(Line, Guarded)};
        {error, _} ->
            io:put_chars(standard_error, [unicode:characters_to_list(Line), $\n]),
            S
    end.

replied(Reader, Reply, S) ->
    reply(Reader, Reply),
    S.

reply(Reader, Line) when is_binary(Line), Line =/= <<>> ->
    answer(Reader, <<Line/binary, "\n">>);
reply(Reader, Reply) ->
    answer(Reader, Reply).

answer({From, ReplyAs}, Reply) ->
    From ! {io_reply, ReplyAs, Reply},
    ok.
