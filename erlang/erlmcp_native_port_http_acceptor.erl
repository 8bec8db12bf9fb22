%% @doc The process beside the owner of an HTTP listener on the path `port': it starts a process
%% for each request, passes on to it what the program has to tell, and tells the program when it
%% has ended. It lives until all connections are closed, longer than the owner if need be.
-module(erlmcp_native_port_http_acceptor).

-include("erlmcp_native_port.hrl").
-include("erlmcp_native_port_http.hrl").

-export([start/2]).
-export([init/4]).

%% What a small request needs from its beginning to its end, so that it ends before its first
%% garbage collection.
-define(HEAP_WORDS, 1600).

%% Ends of processes that the program is told of at once.
-define(BATCH, 64).

-type id() :: erlmcp_native_port:id().

-record(state, {
    handle :: erlmcp_native_port:handle(),
    id :: id(),
    serve :: erlmcp_native_http_path:serve(),
    streams :: erlmcp_native_port_http_answer:streams(),
    serving = #{} :: #{id() => {pid(), erlmcp_native_port_http_answer:answer()}},
    %% Those that have ended since the program was last told.
    ended = [] :: [binary()],
    ends = 0 :: non_neg_integer()
}).

%% @doc Starts the acceptor of a listener that the caller is about to open.
-spec start(erlmcp_native_http_options:listener(), erlmcp_native_http_path:serve()) ->
    {ok, pid(), id()} | {error, erlmcp_native:reason()}.
start(Options, Serve) ->
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(?MODULE, init, [self(), Tag, Options, Serve]),
    receive
        {Tag, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Pid, _} ->
            {error, port_program}
    end.

%% @private
-spec init(pid(), reference(), erlmcp_native_http_options:listener(),
    erlmcp_native_http_path:serve()) -> ok.
init(Owner, Tag, #{max_streams := Max, max_stream_bytes := MaxBytes}, Serve) ->
    case erlmcp_native_port:open(none) of
        {ok, Id, Handle} ->
            %% Should that process be killed, the program is gone with it.
            _ = monitor(process, erlmcp_native_port),
            Owner ! {Tag, {ok, self(), Id}},
            Streams = erlmcp_native_port_http_answer:streams(Max, MaxBytes),
            loop(#state{handle = Handle, id = Id, serve = Serve, streams = Streams});
        {error, _} = Error ->
            Owner ! {Tag, Error},
            ok
    end.

loop(#state{ends = 0} = S) ->
    receive
        Msg -> handle(Msg, S)
    end;
loop(#state{ends = Ends} = S) when Ends < ?BATCH ->
    receive
        Msg -> handle(Msg, S)
    after 0 -> loop(flush(S))
    end;
loop(S) ->
    loop(flush(S)).

flush(#state{handle = Handle, id = Id, ended = Ended} = S) ->
    _ = erlmcp_native_port:command(Handle, ?TO_HTTP_DONE, Id, Ended),
    S#state{ended = [], ends = 0}.

handle({erlmcp_native_io, Id, <<Op, _:64, Rest/binary>>}, #state{id = Id} = S) ->
    packet(Op, Rest, S);
handle({{ended, Id}, _, process, _, _}, S) ->
    loop(ended(Id, S));
handle({erlmcp_native_io, Id, {down, _}}, #state{id = Id} = S) ->
    down(S);
handle({'DOWN', _, process, _, _}, S) ->
    down(S);
handle(_, S) ->
    loop(S).

packet(?FROM_HTTP_REQUEST, <<Id:64, Request/binary>>, S) ->
    loop(start_serving(Id, Request, S));
packet(?FROM_HTTP_CLOSED, <<>>, _) ->
    ok;
packet(Op, <<Id:64, Rest/binary>>, #state{serving = Serving} = S) ->
    case Serving of
        #{Id := {Pid, Answer}} -> told(Op, Rest, Id, Pid, Answer);
        #{} -> ok
    end,
    loop(S).

start_serving(Id, Request, #state{handle = Handle, id = AcceptorId} = S) ->
    #state{serve = Serve, streams = Streams, serving = Serving} = S,
    Answer = erlmcp_native_port_http_answer:new(Streams),
    Served = erlmcp_native_port_http:served(Handle, AcceptorId, self(), Id, Answer),
    {Pid, _} = spawn_opt(erlmcp_native_port_http, serve, [Request, Served, Serve], [
        {min_heap_size, ?HEAP_WORDS}, {monitor, [{tag, {ended, Id}}]}
    ]),
    S#state{serving = Serving#{Id => {Pid, Answer}}}.

told(?FROM_HTTP_GONE, <<>>, Id, Pid, Answer) ->
    gone(Id, Pid, Answer);
told(?FROM_HTTP_TAKEN, <<Total:64>>, _, _, Answer) ->
    erlmcp_native_port_http_answer:taken(Total, Answer);
told(?FROM_HTTP_ROOM, <<Total:64>>, Id, Pid, Answer) ->
    ok = erlmcp_native_port_http_answer:room(Total, Answer),
    pass_on(Pid, Id, writable);
told(?FROM_HTTP_BODY, <<Kind, Piece/binary>>, Id, Pid, _) ->
    pass_on(Pid, Id, {body, Kind, Piece}).

gone(Id, Pid, Answer) ->
    ok = erlmcp_native_port_http_answer:gone(Answer),
    case erlmcp_native_port_http_answer:exits(Answer) of
        true ->
            true = exit(Pid, {shutdown, gone}),
            ok;
        false ->
            pass_on(Pid, Id, gone)
    end.

pass_on(Pid, Id, What) ->
    Pid ! {erlmcp_native_io, Id, What},
    ok.

ended(Id, #state{serving = Serving0, ended = Ended, ends = Ends} = S) ->
    {{_, Answer}, Serving} = maps:take(Id, Serving0),
    ok = erlmcp_native_port_http_answer:over(Answer),
    Status = erlmcp_native_port_http_answer:status(Answer),
    S#state{serving = Serving, ended = [<<Id:64, Status:16>> | Ended], ends = Ends + 1}.

%% The program is gone, and so are all clients.
down(#state{serving = Serving}) ->
    maps:foreach(fun(Id, {Pid, Answer}) -> gone(Id, Pid, Answer) end, Serving).
