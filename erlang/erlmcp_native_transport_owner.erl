%% @doc A transport in the shape of erlmcp 0.5: a process that sends its owner messages.
%%
%% <ul>
%% <li>`{transport_connected, Transport}': connected, again after each reconnect.</li>
%% <li>`{transport_message, Message}': one message, without its line ending.</li>
%% <li>`{transport_disconnected, Transport, Reason}': the connection is lost, `normal' if the peer
%% closed it; or `{gave_up, Reason}', no further try will be made, `Reason' being that of the
%% last. {@link connect/2} tries again.</li>
%% </ul>
%%
%% The owner is the option `owner', or else the first process that sends, which is what
%% `erlmcp_client:start_link({tcp, Transport}, Options)' makes of the client. When it ends the
%% transport stops with `{owner_died, Reason}'.
%%
%% The options are those of {@link erlmcp_native_transport_options}.
-module(erlmcp_native_transport_owner).

-behaviour(erlmcp_native_transport).

-export([start_link/1, connect/2, send/2, close/1, get_info/1]).
-export([init/1, claim/2, guard/1, unread/1, deliver/2, event/2, handle_info/2, info/1]).
-export([terminate/1]).

-record(shape, {
    owner :: pid() | undefined,
    guard :: auto | false | erlmcp_native_guard:receiver()
}).

-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Given) ->
    case erlmcp_native_transport_options:check(Given) of
        {ok, Options} -> erlmcp_native_transport:start_link(?MODULE, Options);
        {error, _} = Error -> Error
    end.

%% @doc Connects anew, to another address or with other options where they are given.
-spec connect(pid(), map()) -> ok | {error, term()}.
connect(Transport, Given) ->
    erlmcp_native_transport:call(Transport, {connect, Given}).

-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Transport, Data) ->
    erlmcp_native_transport:send(Transport, Data).

-spec close(pid()) -> ok.
close(Transport) ->
    erlmcp_native_transport:close(Transport).

-spec get_info(pid()) -> map() | {error, not_connected}.
get_info(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).

%% @private
-spec init(erlmcp_native_transport_options:options()) ->
    {ok, dial, erlmcp_native_transport_options:options(), #shape{}}.
init(#{owner := Owner, guard := Guard} = Options) ->
    {ok, dial, Options, owned(Owner, #shape{owner = undefined, guard = Guard})}.

%% @private
-spec claim(pid(), #shape{}) -> #shape{}.
claim(Caller, #shape{owner = undefined} = Shape) -> owned(Caller, Shape);
claim(_, Shape) -> Shape.

%% @private
-spec guard(#shape{}) -> erlmcp_native_guard:receiver() | false | undecided.
guard(#shape{guard = auto, owner = undefined}) -> undecided;
guard(#shape{guard = auto, owner = Owner}) -> receiver(Owner);
guard(#shape{guard = Guard}) -> Guard.

%% @private
-spec unread(#shape{}) -> {non_neg_integer() | nobody, #shape{}}.
unread(#shape{owner = undefined} = Shape) ->
    {nobody, Shape};
unread(#shape{owner = Owner} = Shape) when node(Owner) =:= node() ->
    case process_info(Owner, message_queue_len) of
        {_, Length} -> {Length, Shape};
        %% It is dead, and the monitor's message about to arrive.
        undefined -> {nobody, Shape}
    end;
unread(Shape) ->
    {0, Shape}.

%% @private
-spec deliver([binary()], #shape{}) -> [].
deliver(Messages, #shape{owner = Owner}) ->
    lists:foreach(fun(Message) -> Owner ! {transport_message, Message} end, Messages),
    [].

%% @private
-spec event(term(), #shape{}) -> ok.
event(connected, Shape) ->
    tell({transport_connected, self()}, Shape);
event({down, open, Reason, _}, Shape) ->
    tell({transport_disconnected, self(), reason(Reason)}, Shape);
event({down, _, Reason, final}, Shape) ->
    tell({transport_disconnected, self(), {gave_up, Reason}}, Shape);
event({down, _, _, {retry_in, _}}, _) ->
    ok.

%% @private
-spec handle_info(term(), #shape{}) -> {{stop, {owner_died, term()}}, #shape{}} | unknown.
handle_info({'DOWN', _, process, Owner, Reason}, #shape{owner = Owner} = Shape) ->
    {{stop, {owner_died, Reason}}, Shape};
handle_info(_, _) ->
    unknown.

%% @private
-spec info(#shape{}) -> #{transport_id := pid(), owner := pid() | undefined}.
info(#shape{owner = Owner}) ->
    #{transport_id => self(), owner => Owner}.

%% @private
-spec terminate(#shape{}) -> ok.
terminate(_) ->
    ok.

owned(undefined, Shape) ->
    Shape;
owned(Owner, Shape) ->
    _ = monitor(process, Owner),
    Shape#shape{owner = Owner}.

tell(_, #shape{owner = undefined}) ->
    ok;
tell(Message, #shape{owner = Owner}) ->
    Owner ! Message,
    ok.

reason(closed) -> normal;
reason(Reason) -> Reason.

receiver(Owner) when node(Owner) =/= node() ->
    false;
receiver(Owner) ->
    case proc_lib:translate_initial_call(Owner) of
        {erlmcp_client, init, 1} -> client;
        {erlmcp_server, init, 1} -> server;
        {erlmcp_server_new, init, 1} -> server;
        _ -> false
    end.
