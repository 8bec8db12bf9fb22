%% @doc The receiving technique of erlmcp 0.5, as the baseline: `gen_tcp' in line mode with
%% `active' true, each packet appended to a buffer that is split again from its start, each
%% message sent to the owner. Written for these benches.
-module(bench_line_transport).

-behaviour(gen_server).

-export([start_link/1, start_link/2, send/2, close/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Its default for both socket buffers.
-define(BUFFER_BYTES, 65536).

%% @doc Connects before it returns. The caller is the owner.
-spec start_link(inet:port_number()) -> {ok, pid()}.
start_link(Port) ->
    start_link(Port, self()).

%% @doc The same for another owner.
-spec start_link(inet:port_number(), pid()) -> {ok, pid()}.
start_link(Port, Owner) ->
    gen_server:start_link(?MODULE, {Port, Owner}, []).

-spec send(pid(), iodata()) -> ok.
send(Pid, Data) ->
    gen_server:call(Pid, {send, Data}).

-spec close(pid()) -> ok.
close(Pid) ->
    gen_server:stop(Pid).

%% @private
-spec init({inet:port_number(), pid()}) -> {ok, map()}.
init({Port, Owner}) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [
        {recbuf, ?BUFFER_BYTES},
        {sndbuf, ?BUFFER_BYTES},
        binary,
        {active, true},
        {packet, line},
        {reuseaddr, true},
        {send_timeout, 5000},
        {send_timeout_close, true}
    ]),
    {ok, #{socket => Socket, owner => Owner, buffer => <<>>}}.

%% @private
-spec handle_call(term(), gen_server:from(), map()) -> {reply, term(), map()}.
handle_call({send, Data}, _, #{socket := Socket} = State) ->
    {reply, gen_tcp:send(Socket, [Data, $\n]), State}.

%% @private
-spec handle_cast(term(), map()) -> {noreply, map()}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), map()) -> {noreply, map()} | {stop, normal, map()}.
handle_info({tcp, Socket, Data}, #{socket := Socket, owner := Owner, buffer := Buffer} = State) ->
    {Messages, Rest} = split(<<Buffer/binary, Data/binary>>, []),
    lists:foreach(fun(Message) -> Owner ! {transport_message, Message} end, Messages),
    {noreply, State#{buffer := Rest}};
handle_info({tcp_closed, Socket}, #{socket := Socket, owner := Owner} = State) ->
    Owner ! {transport_disconnected, self(), normal},
    {stop, normal, State}.

split(Buffer, Messages) ->
    case binary:split(Buffer, <<"\n">>) of
        [_] -> {lists:reverse(Messages), Buffer};
        [Message, Rest] -> split(Rest, [Message | Messages])
    end.
