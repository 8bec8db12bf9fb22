%% @doc Whether what a peer asked for is probably answered. A peer that closes its output, as
%% `echo Request | server' does, still reads the answers, and a server at work needs time for them.
%%
%% Nobody decodes here: a message with `"method"' and `"id"' near its beginning or its end is taken
%% for a request, and any message sent for an answer. A wrong guess costs a wait, or an answer that
%% comes later than {@link look/2} allows.
-module(erlmcp_native_answered).

-export([new/0, heard/2, look/2]).

-export_type([answered/0]).

-record(answered, {
    asked = 0 :: non_neg_integer(),
    sent = -1 :: integer(),
    looks = 0 :: non_neg_integer()
}).

-opaque answered() :: #answered{}.

%% Nothing was sent for this long.
-define(QUIET_MS, 50).
-define(MAX_LOOKS, 100).

%% Where the members of the envelope are, whatever lies between them.
-define(EDGE, 512).

-spec new() -> answered().
new() ->
    #answered{}.

%% @doc Counts what was taken.
-spec heard([term()], answered()) -> answered().
heard(Items, #answered{asked = Asked} = Answered) ->
    Answered#answered{asked = Asked + length([Item || Item <- Items, is_request(Item)])}.

%% @doc To be asked when the peer has said everything, with the number of messages sent so far.
-spec look(non_neg_integer(), answered()) -> done | {again, pos_integer(), answered()}.
look(_, #answered{looks = ?MAX_LOOKS}) ->
    done;
look(Sent, #answered{sent = Sent, asked = Asked}) when Sent >= Asked ->
    done;
look(Sent, #answered{looks = Looks} = Answered) ->
    {again, ?QUIET_MS, Answered#answered{sent = Sent, looks = Looks + 1}}.

is_request(Frame) when is_binary(Frame) ->
    Edges = edges(Frame),
    has(<<"\"id\"">>, Edges) andalso has(<<"\"method\"">>, Edges);
is_request({json, Term}) when is_map(Term) ->
    is_map_key(<<"id">>, Term) andalso is_map_key(<<"method">>, Term);
is_request(_) ->
    false.

edges(Frame) when byte_size(Frame) =< 2 * ?EDGE ->
    [Frame];
edges(Frame) ->
    [binary_part(Frame, 0, ?EDGE), binary_part(Frame, byte_size(Frame), -?EDGE)].

has(Word, Edges) ->
    lists:any(fun(Edge) -> binary:match(Edge, Word) =/= nomatch end, Edges).
