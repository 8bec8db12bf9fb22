%% @doc The technique of erlmcp 0.5 over TCP, as the baseline of the analyses: on both sides
%% {@link bench_line_transport}'s way to receive, jsx, and a process that owns the transport and
%% does the rest. (Its registry, through which a message goes twice, is left out.)
-module(bench_line_tcp_subject).

-behaviour(erlmcp_native_analysis_subject).

-export([start/1, stop/1, endpoint/1, open/2, request/3, handle_info/2, close/1, max_clients/1]).

-define(BUFFER_BYTES, 65536).

-spec start(erlmcp_native_analysis_subject:spec()) -> {ok, map()}.
start(#{endpoint := own}) ->
    {ok, Listener} = gen_tcp:listen(0, [
        {recbuf, ?BUFFER_BYTES},
        {sndbuf, ?BUFFER_BYTES},
        binary,
        {ip, {127, 0, 0, 1}},
        {active, false},
        {packet, line},
        {reuseaddr, true},
        {backlog, 1024}
    ]),
    {ok, Port} = inet:port(Listener),
    Acceptor = spawn_link(fun() -> accept(Listener) end),
    ok = gen_tcp:controlling_process(Listener, Acceptor),
    {ok, #{port => Port, acceptor => Acceptor}};
start(#{endpoint := #{port := Port}}) ->
    {ok, #{port => Port, acceptor => none}}.

-spec stop(map()) -> ok.
stop(#{acceptor := none}) ->
    ok;
stop(#{acceptor := Acceptor}) ->
    true = unlink(Acceptor),
    true = exit(Acceptor, kill),
    ok.

-spec endpoint(map()) -> map().
endpoint(#{port := Port}) -> #{port => Port}.

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() ->
        receive
            go -> serve(Socket)
        end
    end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener).

%% A process for the transport, and one for the server.
serve(Socket) ->
    Transport = self(),
    Server = spawn_link(fun() -> answer(Transport) end),
    ok = inet:setopts(Socket, [{active, true}]),
    receive_lines(Socket, Server, <<>>).

receive_lines(Socket, Server, Buffer) ->
    receive
        {tcp, Socket, Data} ->
            {Messages, Rest} = split(<<Buffer/binary, Data/binary>>, []),
            lists:foreach(fun(Message) -> Server ! {transport_message, Message} end, Messages),
            receive_lines(Socket, Server, Rest);
        {send, From, Data} ->
            From ! {sent, gen_tcp:send(Socket, [Data, $\n])},
            receive_lines(Socket, Server, Buffer);
        {tcp_closed, Socket} ->
            exit(closed);
        {tcp_error, Socket, _} ->
            exit(closed)
    end.

split(Buffer, Messages) ->
    case binary:split(Buffer, <<"\n">>) of
        [_] -> {lists:reverse(Messages), Buffer};
        [Message, Rest] -> split(Rest, [Message | Messages])
    end.

answer(Transport) ->
    receive
        {transport_message, Message} ->
            case bench_stdio_server:by_jsx(Message) of
                none ->
                    ok;
                Json ->
                    Transport ! {send, self(), Json},
                    receive
                        {sent, _} -> ok
                    end
            end,
            answer(Transport)
    end.

-spec open(erlmcp_native_analysis_subject:spec(), map()) -> {ok, pid()} | {error, refused}.
open(_, #{port := Port}) ->
    bench_line_transport:start_link(Port).

-spec request(pid(), pos_integer(), iodata()) -> {ok | {error, term()}, pid()}.
request(Pid, _, Json) ->
    {bench_line_transport:send(Pid, Json), Pid}.

-spec handle_info(term(), pid()) -> {[erlmcp_native_analysis_subject:event()], pid()} | unknown.
handle_info({transport_message, Message}, Pid) ->
    #{<<"id">> := Id} = jsx:decode(Message, [return_maps]),
    {[{answer, Id, ok}], Pid};
handle_info({transport_disconnected, Pid, _}, Pid) ->
    {[{down, closed}], Pid};
handle_info(_, _) ->
    unknown.

-spec close(pid()) -> ok.
close(Pid) ->
    bench_line_transport:close(Pid).

-spec max_clients(erlmcp_native_analysis_subject:spec()) -> infinity.
max_clients(_) -> infinity.
