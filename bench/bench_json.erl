%% @doc JSON: decoding and encoding of four documents of MCP traffic, beside jsx, jiffy and,
%% from OTP 27 on, `json'.
-module(bench_json).

-export([groups/0, documents/0]).

%% A measurement repeats until it has taken this long; the repetitions are found by doubling.
-define(RUN_US, 50000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Documents = documents(),
    [decode(Name, Text) || {Name, Text} <- Documents] ++
        [encode(Name, Text) || {Name, Text} <- Documents].

decode(Name, Text) ->
    Measure = fun(Decode) -> fun(_) -> [per_call_us(Decode, Text)] end end,
    Variants = [variant(Path, Measure(Decode)) || {Path, Decode} <- decoders()],
    group(decode, Name, Variants, decode_bars(Name)).

encode(Name, Text) ->
    Term = jsx:decode(Text, [return_maps]),
    Variants = [
        variant(Path, fun(_) -> [per_call_us(Encode, Prepare(Term))] end)
     || {Path, Encode, Prepare} <- encoders()
    ],
    group(encode, Name, Variants, [{jsx, 5}, {json, 1}, {jiffy, none}, {beam, none}]).

group(Direction, Name, Variants, Bars) ->
    Case = list_to_atom(lists:concat(["json_", Direction, "_", Name])),
    #{
        cases => [
            #{name => Case, metric => <<"time">>, unit => <<"us/document">>, better => lower}
        ],
        variants => Variants,
        ratios => [{Case, nif, To, Bar} || {To, Bar} <- Bars],
        runs => 5
    }.

variant(Path, Run) -> #{path => Path, run => Run}.

decode_bars(call) -> [{jsx, 5}, {json, 2}, {jiffy, 2}, {beam, none}];
decode_bars(list) -> [{jsx, 5}, {json, 2}, {jiffy, 1.5}, {beam, none}];
decode_bars(text) -> [{jsx, 15}, {json, 8}, {jiffy, 3.5}, {beam, none}];
decode_bars(base64) -> [{jsx, 80}, {json, 7}, {jiffy, 4}, {beam, none}].

decoders() ->
    [
        {nif, fun(Text) -> erlmcp_native_json:decode(Text) end},
        {beam, fun(Text) -> erlmcp_native_json:decode(Text, #{path => beam}) end},
        {jsx, fun(Text) -> jsx:decode(Text, [return_maps]) end},
        {jiffy, fun(Text) -> jiffy:decode(Text, [return_maps]) end}
    ] ++ [{json, fun json:decode/1} || has_json()].

encoders() ->
    Same = fun(Term) -> Term end,
    [
        {nif, fun(Term) -> erlmcp_native_json:encode(Term) end, Same},
        {beam, fun(Term) -> erlmcp_native_json:encode(Term, #{path => beam}) end, Same},
        {jsx, fun(Term) -> jsx:encode(Term) end, Same},
        {jiffy, fun(Term) -> jiffy:encode(Term) end, Same}
    ] ++ [{json, fun json:encode/1, Same} || has_json()].

has_json() ->
    code:ensure_loaded(json) =:= {module, json}.

per_call_us(Fun, Argument) ->
    repeat(Fun, Argument, 1).

repeat(Fun, Argument, Times) ->
    Begin = erlang:monotonic_time(),
    loop(Fun, Argument, Times),
    Us = erlang:convert_time_unit(erlang:monotonic_time() - Begin, native, microsecond),
    case Us < ?RUN_US of
        true -> repeat(Fun, Argument, Times * 2);
        false -> Us / Times
    end.

loop(_, _, 0) ->
    ok;
loop(Fun, Argument, Times) ->
    _ = Fun(Argument),
    loop(Fun, Argument, Times - 1).

%% @doc A tools/call of 157 bytes, a tools/list with 50 tools of 18 KB, a tool result of 63 KB
%% of program text, where every line has something to escape, and one of 64 KB of base64.
-spec documents() -> [{atom(), binary()}].
documents() ->
    [{call, call()}, {list, list()}, {text, text()}, {base64, base64()}].

call() ->
    <<
        "{\"jsonrpc\":\"2.0\",\"id\":1234567,\"method\":\"tools/call\",\"params\":{\"name\":"
        "\"search_documents\",\"arguments\":{\"query\":\"supervision trees\",\"limit\":1000,"
        "\"fuzzy\":true}}}"
    >>.

list() ->
    result(<<"tools">>, [tool(Index) || Index <- lists:seq(1, 50)]).

tool(Index) ->
    Number = integer_to_binary(Index),
    #{
        <<"name">> => <<"read_table_", Number/binary>>,
        <<"description">> =>
            <<"Reads those rows of table ", Number/binary, " that match one condition only, ",
                "newest first, as one JSON array.">>,
        <<"inputSchema">> => #{
            <<"type">> => <<"object">>,
            <<"properties">> => #{
                <<"condition">> =>
                    #{
                        <<"type">> => <<"string">>,
                        <<"description">> => <<"an SQL condition, or none">>
                    },
                <<"limit">> =>
                    #{<<"type">> => <<"integer">>, <<"minimum">> => 1, <<"maximum">> => 500}
            },
            <<"required">> => [<<"condition">>],
            <<"additionalProperties">> => false
        }
    }.

%% Varied, because a line that repeats lets the branch predictor learn it by heart, and the peers
%% that go byte by byte look several times faster than they are.
text() ->
    {Lines, _} = lists:mapfoldl(fun(_, Rand) -> line(Rand) end, rand(), lists:seq(1, 1300)),
    content(iolist_to_binary(Lines)).

line(Rand0) ->
    {Words, Rand1} = lists:mapfoldl(fun(_, Rand) -> word(Rand) end, Rand0, lists:seq(1, 6)),
    {Quoted, Rand2} = word(Rand1),
    {["\t", lists:join(" ", Words), " \"", Quoted, "\"\n"], Rand2}.

word(Rand0) ->
    {Length, Rand1} = rand:uniform_s(9, Rand0),
    lists:mapfoldl(fun(_, Rand) -> letter(Rand) end, Rand1, lists:seq(1, Length)).

letter(Rand0) ->
    {Letter, Rand} = rand:uniform_s(26, Rand0),
    {$a + Letter - 1, Rand}.

base64() ->
    {Bytes, _} = rand:bytes_s(48960, rand()),
    content(base64:encode(Bytes)).

rand() ->
    rand:seed_s(exsss, 1).

content(Text) ->
    result(<<"content">>, [#{<<"type">> => <<"text">>, <<"text">> => Text}]).

result(Key, Value) ->
    jsx:encode(#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 7, <<"result">> => #{Key => Value}}).
