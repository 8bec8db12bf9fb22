%% @doc Lines of a child's standard error for an owner that may not read them: nothing else would
%% bound its mailbox. What there is no room for is counted and told of with the next lines.
-module(erlmcp_native_stderr).

-export([new/0, pass/3]).

-export_type([stderr/0, line/0]).

-type line() :: binary() | {dropped, pos_integer()}.

-record(stderr, {
    window :: erlmcp_native_window:window(),
    dropped = 0 :: non_neg_integer()
}).

-opaque stderr() :: #stderr{}.

-define(MAX_MESSAGES, 1000).
-define(MAX_BYTES, 1048576).

-spec new() -> stderr().
new() ->
    #stderr{window = erlmcp_native_window:new(?MAX_MESSAGES, ?MAX_BYTES)}.

%% @doc What of the lines, in one message, is to be told now.
-spec pass([line(), ...], pid(), stderr()) -> {[line()], stderr()}.
pass(Lines, Owner, #stderr{window = Window, dropped = Dropped} = S) ->
    case open(erlmcp_native_window:room(Window), Owner, Window) of
        {open, Open} ->
            All = [{dropped, Dropped} || Dropped > 0] ++ Lines,
            Sent = erlmcp_native_window:sent(1, bytes(Lines), Open),
            {All, S#stderr{window = Sent, dropped = 0}};
        {shut, _, Shut} ->
            More = lists:sum([count(Line) || Line <- Lines]),
            {[], S#stderr{window = Shut, dropped = Dropped + More}}
    end.

open(none, Owner, Window) -> erlmcp_native_window:look(unread(Owner), Window);
open(_, _, Window) -> {open, Window}.

unread(Owner) when node(Owner) =:= node() ->
    case process_info(Owner, message_queue_len) of
        {message_queue_len, Length} -> Length;
        undefined -> 0
    end;
unread(_) ->
    0.

count({dropped, Count}) -> Count;
count(_) -> 1.

bytes(Lines) -> iolist_size([Line || Line <- Lines, is_binary(Line)]).
