%% @doc The requests that the analyses send: calls of a tool, or pings, of a given size.
-module(erlmcp_native_analysis_call).

-export([is_call/1, maker/2, make/2, bytes/1, outcome/1]).
-export([initialize/1, initialize/2, initialized/0]).

-export_type([call/0, maker/0]).

-type call() :: echo | size | ping | {tool, Name :: binary(), Argument :: binary()}.
%% `echo': the tool of that name gets a text and returns it. `size': a tool that returns how long
%% the text is, so that the answers are short. `ping': the method, padded in `_meta'. `tool': a
%% tool of the user's that takes a text in this argument.

-opaque maker() :: {Head :: binary(), Tail :: iodata()}.

-define(REVISION, <<"2025-06-18">>).

%% An id is padded with spaces to this, so that all calls are of one size.
-define(ID_DIGITS, 12).
-define(SPACES, <<"            ">>).

-spec is_call(term()) -> boolean().
is_call(Call) when Call =:= echo; Call =:= size; Call =:= ping -> true;
is_call({tool, Name, Argument}) -> is_binary(Name) andalso is_binary(Argument);
is_call(_) -> false.

%% @doc What makes calls of so many bytes. Where these are too few for the call it makes pings
%% without params, or, of a tool of the user's, calls with an empty text.
-spec maker(call(), Bytes :: pos_integer()) -> maker().
maker(Call, Bytes) ->
    {Head, Tail} = ends(Call),
    case Bytes - bytes({Head, Tail}) of
        Padding when Padding >= 0 -> {Head, [binary:copy(<<"x">>, Padding), Tail]};
        _ when is_tuple(Call) -> {Head, Tail};
        _ -> plain_ping(Bytes)
    end.

%% @doc How long the calls are.
-spec bytes(maker()) -> pos_integer().
bytes(Maker) -> iolist_size(make(Maker, 1)).

%% @doc A call with this id, without a delimiter.
-spec make(maker(), Id :: pos_integer()) -> iodata().
make({Head, Tail}, Id) ->
    Digits = integer_to_binary(Id),
    Spaces = binary:part(?SPACES, 0, max(0, ?ID_DIGITS - byte_size(Digits))),
    [<<"{\"jsonrpc\":\"2.0\",\"id\":", Digits/binary, Spaces/binary, Head/binary>> | Tail].

ends(ping) ->
    {<<",\"method\":\"ping\",\"params\":{\"_meta\":{\"pad\":\"">>, <<"\"}}}">>};
ends({tool, Name, Argument}) ->
    ends(erlmcp_native_json:encode(Name), erlmcp_native_json:encode(Argument));
ends(Tool) ->
    ends(<<$", (atom_to_binary(Tool))/binary, $">>, <<"\"text\"">>).

ends(Name, Argument) ->
    {
        <<",\"method\":\"tools/call\",\"params\":{\"name\":", Name/binary,
            ",\"arguments\":{", Argument/binary, ":\"">>,
        <<"\"}}}">>
    }.

%% JSON may end in white space.
plain_ping(Bytes) ->
    Ping = {<<",\"method\":\"ping\"">>, <<"}">>},
    {Head, Tail} = Ping,
    {<<Head/binary, (binary:copy(<<" ">>, max(0, Bytes - bytes(Ping))))/binary>>, Tail}.

%% @doc The request that a client begins with.
-spec initialize(Id :: non_neg_integer()) -> iodata().
initialize(Id) ->
    initialize(Id, ?REVISION).

%% @doc The same for another revision.
-spec initialize(Id :: non_neg_integer(), Revision :: binary()) -> iodata().
initialize(Id, Revision) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"method">> => <<"initialize">>,
        <<"params">> => #{
            <<"protocolVersion">> => Revision,
            <<"capabilities">> => #{},
            <<"clientInfo">> => #{
                <<"name">> => <<"erlmcp_native_analysis">>, <<"version">> => <<"1">>
            }
        }
    }).

-spec initialized() -> iodata().
initialized() ->
    <<"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}">>.

%% @doc What a response says of its request. Requests and notifications of a server are `none'.
-spec outcome(term()) -> {Id :: term(), ok | {error, term()}} | none.
outcome(#{<<"id">> := Id, <<"result">> := #{<<"isError">> := true} = Result}) ->
    {Id, {error, {tool, maps:get(<<"content">>, Result, [])}}};
outcome(#{<<"id">> := Id, <<"result">> := _}) ->
    {Id, ok};
outcome(#{<<"id">> := Id, <<"error">> := Error}) ->
    {Id, {error, {rpc, Error}}};
outcome(_) ->
    none.
