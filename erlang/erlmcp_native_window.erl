%% @doc How much may be sent to a process that is pushed messages and knows no flow control,
%% judged by the length of its message queue. Pure: no clock, no process.
%%
%% After a look at the queue a number of messages and of bytes may be sent without another. The
%% queue tells no sizes; since messages are mostly received in the order in which they came, what
%% is unread is at most the latest of what was sent, whose sizes are remembered.
-module(erlmcp_native_window).

-export([new/2, room/1, sent/3, look/2, look/3]).

-export_type([window/0]).

-record(window, {
    max_messages :: pos_integer(),
    max_bytes :: pos_integer(),
    messages = 0 :: integer(),
    bytes = 0 :: integer(),
    %% What was sent, oldest first, as {Messages, Bytes}, and its sum.
    unread = queue:new() :: queue:queue({pos_integer(), non_neg_integer()}),
    unread_messages = 0 :: non_neg_integer(),
    unread_bytes = 0 :: non_neg_integer(),
    %% Looks in a row that found no room.
    shut = 0 :: non_neg_integer()
}).

-opaque window() :: #window{}.

-define(MAX_WAIT_MS, 20).

%% A fifth of a second.
-define(STUCK_LOOKS, 12).

%% @doc A window that wants a look before anything is sent.
-spec new(MaxMessages :: pos_integer(), MaxBytes :: pos_integer()) -> window().
new(MaxMessages, MaxBytes) ->
    #window{max_messages = MaxMessages, max_bytes = MaxBytes}.

%% @doc What may be sent without a look at the queue.
-spec room(window()) -> {Messages :: pos_integer(), Bytes :: pos_integer()} | none.
room(#window{messages = Messages, bytes = Bytes}) when Messages > 0, Bytes > 0 ->
    {Messages, Bytes};
room(_) ->
    none.

-spec sent(Messages :: non_neg_integer(), Bytes :: non_neg_integer(), window()) -> window().
sent(0, _, Window) ->
    Window;
sent(Messages, Bytes, Window) ->
    Window#window{
        messages = Window#window.messages - Messages,
        bytes = Window#window.bytes - Bytes,
        unread = queue:in({Messages, Bytes}, Window#window.unread),
        unread_messages = Window#window.unread_messages + Messages,
        unread_bytes = Window#window.unread_bytes + Bytes
    }.

%% @doc Makes room after a look at the queue, or says how long to wait for the next one.
-spec look(QueueLength :: non_neg_integer(), window()) ->
    {open, window()} | {shut, WaitMs :: pos_integer(), window()}.
look(Length, Window) ->
    look(Length, false, Window).

%% @doc As {@link look/2}, of a receiver that may leave messages of others in its queue. While it
%% waits it has looked at all of them: if what was sent last counts as unread for that long, it is
%% what others sent that is unread, and one more message has to show it.
-spec look(QueueLength :: non_neg_integer(), Waits :: boolean(), window()) ->
    {open, window()} | {shut, WaitMs :: pos_integer(), window()}.
look(Length, Waits, Window) ->
    #window{max_messages = MaxMessages, max_bytes = MaxBytes, shut = Shut} = Window,
    #window{unread_bytes = Unread} = Rest = forget_read(Length, Window),
    %% Once shut it opens at half: a receiver that is just too slow is not looked at before
    %% every message.
    case Shut of
        0 when Length < MaxMessages, Unread < MaxBytes -> open(Length, Rest);
        _ when Length =< MaxMessages div 2, Unread =< MaxBytes div 2 -> open(Length, Rest);
        _ when Waits, Length < MaxMessages, Shut >= ?STUCK_LOOKS ->
            {open, Rest#window{messages = 1, bytes = 1, shut = 0}};
        _ -> {shut, min(1 bsl min(Shut, 5), ?MAX_WAIT_MS), Rest#window{shut = Shut + 1}}
    end.

open(Length, #window{max_messages = Messages, max_bytes = Bytes} = Window) ->
    {open, Window#window{
        messages = Messages - Length,
        bytes = Bytes - Window#window.unread_bytes,
        shut = 0
    }}.

forget_read(Length, #window{unread_messages = Sum, unread_bytes = Total} = Window) ->
    case queue:out(Window#window.unread) of
        {{value, {Messages, Bytes}}, Rest} when Sum - Messages >= Length ->
            forget_read(Length, Window#window{
                unread = Rest,
                unread_messages = Sum - Messages,
                unread_bytes = Total - Bytes
            });
        _ ->
            Window
    end.
