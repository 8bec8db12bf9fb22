%% @doc A connection as a value inside the process that owns it: one socket of one path at a
%% time, dialled again as the backoff decides.
%%
%% This is what the transports are built on, and what a process of your own uses that wants
%% its messages without another process between:
%%
%% ```
%% handle_info(Msg, #state{link = Link0} = S) ->
%%     case erlmcp_native_link:handle_info(Msg, Link0) of
%%         {Events, Link} -> handle_events(Events, S#state{link = Link});
%%         unknown -> ...
%%     end.
%% '''
%%
%% On `readable' call {@link take/3} until it says `empty'; the next `readable' comes only
%% then. Between two takes other messages may be served: after `more', and after `again', which
%% says that nothing is left for the moment, nothing is sent, so the process reminds itself.
-module(erlmcp_native_link).

-export([dial/2, adopt/2, handle_info/2, take/3, send/2, send/3, sender/1, close/1, info/1]).

-export_type([link/0, event/0, next/0, options/0]).

-type options() :: #{
    path := erlmcp_native_path:path() | default,
    reconnect := false | erlmcp_native_backoff:options(),
    connection := erlmcp_native_options:connection()
}.

-type next() :: {retry_in, Ms :: non_neg_integer()} | final.

-type event() ::
    connected
    | readable
    | writable
    | {stderr, [binary() | {dropped, pos_integer()}, ...]}
    | {down, erlmcp_native:reason(), next()}.
%% `{down, Reason, Next}': the connection is lost, or a try to connect has failed.

-record(link, {
    path :: module(),
    endpoint = none :: erlmcp_native:endpoint() | none,
    options = none :: erlmcp_native_options:connection() | none,
    backoff = none :: erlmcp_native_backoff:backoff() | none,
    phase :: connecting | open | waiting | closed,
    socket = none :: erlmcp_native_path:socket() | none,
    timer = none :: reference() | none
}).

-opaque link() :: #link{}.

%% @doc Starts to connect; `connected' or `{down, _, _}' follows as an event.
-spec dial(erlmcp_native:endpoint(), options()) -> {ok, link()} | {error, erlmcp_native:reason()}.
dial(Endpoint, #{path := Path, reconnect := Reconnect, connection := Options}) ->
    case erlmcp_native_path:use(Path, Endpoint) of
        {ok, Module} ->
            dialled(#link{
                path = Module,
                endpoint = Endpoint,
                options = Options,
                backoff = backoff(Reconnect),
                phase = connecting
            });
        {error, _} = Error ->
            Error
    end.

%% A port program that is just being replaced is no reason to give up what is to be tried again.
dialled(#link{backoff = Backoff} = Link) ->
    case open(Link) of
        {error, port_program} when Backoff =/= none -> {ok, again_in(0, Link)};
        Result -> Result
    end.

%% @doc Takes over a socket that a listener accepted and gave to this process.
-spec adopt(module(), erlmcp_native_path:socket()) -> {[event()], link()}.
adopt(Module, Socket) ->
    settle(#link{path = Module, phase = connecting, socket = Socket}).

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), link()) -> {[event()], link()} | unknown.
handle_info({?MODULE, Timer, dial}, #link{timer = Timer} = Link) ->
    case open(Link#link{timer = none, phase = connecting}) of
        {ok, Dialling} -> {[], Dialling};
        {error, Reason} -> lost(Reason, Link#link{timer = none})
    end;
handle_info({?MODULE, _, dial}, Link) ->
    {[], Link};
handle_info(Msg, #link{path = Path, socket = Socket} = Link) when Socket =/= none ->
    case Path:handle_info(Msg, Socket) of
        {Notice, Next} -> notice(Notice, Link#link{socket = Next});
        unknown -> unknown
    end;
handle_info(_, _) ->
    unknown.

%% @doc Takes at most `MaxItems' items and, beyond the first, at most `MaxBytes' bytes. With none
%% to take it looks: it says `empty' where nothing is left, never `again'.
-spec take(link(), MaxItems :: non_neg_integer(), MaxBytes :: non_neg_integer()) ->
    {
        [erlmcp_native_path:item()],
        more | again | empty | eof | {down, erlmcp_native:reason(), next()},
        link()
    }.
take(#link{phase = open, path = Path, socket = Socket} = Link, MaxItems, MaxBytes) ->
    {Items, Status, Next} = Path:take(Socket, MaxItems, MaxBytes),
    Taken = Link#link{socket = Next},
    case Status of
        _ when Status =:= more; Status =:= again ->
            {Items, Status, Taken};
        {eof, armed} ->
            {Items, eof, Taken};
        {down, Reason} ->
            {[Down], Lost} = lost(Reason, Taken),
            {Items, Down, Lost};
        _ ->
            {Items, empty, Taken}
    end;
take(Link, _, _) ->
    {[], empty, Link}.

%% @equiv send(Data, auto, Link)
-spec send(iodata(), link()) -> {ok | {error, erlmcp_native:reason()}, link()}.
send(Data, Link) ->
    send(Data, auto, Link).

%% @doc Sends one message; never waits.
-spec send(iodata(), erlmcp_native_path:priority(), link()) ->
    {ok | {error, erlmcp_native:reason()}, link()}.
send(Data, Priority, #link{phase = open, path = Path, socket = Socket} = Link) ->
    {Result, Next} = Path:send(Socket, Data, Priority),
    {Result, Link#link{socket = Next}};
send(_, _, Link) ->
    {{error, not_connected}, Link}.

%% @doc What other processes may send with, while this connection stands.
-spec sender(link()) -> erlmcp_native_path:sender() | none.
sender(#link{phase = open, path = Path, socket = Socket}) ->
    Path:sender(Socket);
sender(_) ->
    none.

%% @doc Closes for good; what is queued is still sent.
-spec close(link()) -> link().
close(Link) ->
    (drop_socket(Link))#link{phase = closed, timer = none}.

%% @doc The state of the connection and its counters.
-spec info(link()) ->
    #{
        phase := connecting | open | waiting | closed,
        attempts := non_neg_integer(),
        socket => erlmcp_native:socket_info()
    }.
info(#link{phase = Phase, backoff = Backoff, path = Path, socket = Socket}) ->
    Info = #{phase => Phase, attempts => attempts(Backoff)},
    case Socket of
        none -> Info;
        _ -> Info#{socket => Path:info(Socket)}
    end.

open(#link{path = Path, endpoint = Endpoint, options = Options, backoff = Backoff} = Link) ->
    case Path:open(Endpoint, Options) of
        {ok, Socket} -> {ok, Link#link{socket = Socket, backoff = trying(Backoff)}};
        {error, _} = Error -> Error
    end.

notice(none, Link) -> {[], Link};
notice(writable, Link) -> {[writable], Link};
notice({stderr, _} = Lines, Link) -> {[Lines], Link};
notice(ready, #link{phase = connecting} = Link) -> settle(Link);
notice(ready, Link) -> {[readable], Link}.

settle(#link{path = Path, socket = Socket} = Link) ->
    case Path:take(Socket, 0, 0) of
        {[], connecting, Next} -> {[], Link#link{socket = Next}};
        {[], {down, Reason}, Next} -> lost(Reason, Link#link{socket = Next});
        {[], armed, Next} -> {[connected], stands(Link#link{socket = Next})};
        {[], _, Next} -> {[connected, readable], stands(Link#link{socket = Next})}
    end.

stands(#link{backoff = none} = Link) ->
    Link#link{phase = open};
stands(#link{backoff = Backoff} = Link) ->
    Link#link{phase = open, backoff = erlmcp_native_backoff:connected(now_ms(), Backoff)}.

lost(Reason, Link) ->
    wait(Reason, drop_socket(Link)).

wait(Reason, #link{backoff = none} = Link) ->
    {[{down, Reason, final}], Link#link{phase = closed}};
wait(Reason, #link{backoff = Backoff} = Link) ->
    case erlmcp_native_backoff:next(now_ms(), erlmcp_native_failure:kind(Reason), Backoff) of
        exhausted ->
            {[{down, Reason, final}], Link#link{phase = closed}};
        {Delay, Next} ->
            Waiting = again_in(Delay, Link#link{backoff = Next}),
            {[{down, Reason, {retry_in, Delay}}], Waiting}
    end.

%% A message of a timer that is no longer awaited is told apart by its reference.
again_in(Delay, Link) ->
    Timer = make_ref(),
    _ = erlang:send_after(Delay, self(), {?MODULE, Timer, dial}),
    Link#link{phase = waiting, timer = Timer}.

drop_socket(#link{socket = none} = Link) ->
    Link;
drop_socket(#link{path = Path, socket = Socket, endpoint = Endpoint} = Link) ->
    ok = Path:close(Socket),
    _ = Endpoint =:= stdio andalso erlmcp_native_stdio:closed(),
    Link#link{socket = none}.

backoff(false) -> none;
backoff(Options) -> erlmcp_native_backoff:new(Options).

trying(none) -> none;
trying(Backoff) -> erlmcp_native_backoff:trying(now_ms(), Backoff).

attempts(none) -> 0;
attempts(Backoff) -> erlmcp_native_backoff:attempts(Backoff).

now_ms() -> erlang:monotonic_time(millisecond).
