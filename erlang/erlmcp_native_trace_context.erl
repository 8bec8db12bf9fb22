%% @doc W3C trace context of a message: `traceparent' and `tracestate', as the members of `_meta'
%% that MCP keeps free for them, or the headers of the HTTP request that carried it. It is passed
%% on and never made up, and what is not formed as the recommendation says is as if it were not
%% there. Pure.
-module(erlmcp_native_trace_context).

-export([find/2, from_meta/1, from_headers/1, check/1, into/2, parse/1]).

-export_type([trace/0]).

-type trace() :: #{traceparent := binary(), tracestate => binary()}.

-define(MAX_MEMBERS, 32).

%% @doc The context of a message: that of its `_meta', or else that of the headers.
-spec find(Meta :: map(), Headers :: [{binary(), binary()}]) -> trace() | none.
find(Meta, Headers) ->
    case from_meta(Meta) of
        none -> from_headers(Headers);
        Trace -> Trace
    end.

-spec from_meta(map()) -> trace() | none.
from_meta(#{<<"traceparent">> := Parent} = Meta) ->
    trace(Parent, maps:get(<<"tracestate">>, Meta, none));
from_meta(_) ->
    none.

%% @doc More than one `traceparent' is none; the fields of a divided `tracestate' are one list.
-spec from_headers([{binary(), binary()}]) -> trace() | none.
from_headers(Headers) ->
    case lists:keymember(<<"traceparent">>, 1, Headers) of
        true -> from_fields(fields(<<"traceparent">>, Headers), Headers);
        false -> none
    end.

from_fields([Parent], Headers) ->
    case fields(<<"tracestate">>, Headers) of
        [] -> trace(Parent, none);
        Fields -> trace(Parent, iolist_to_binary(lists:join($,, Fields)))
    end;
from_fields(_, _) ->
    none.

fields(Name, Headers) -> [Value || {Field, Value} <- Headers, Field =:= Name].

trace(Parent, State) ->
    case {parse(Parent), is_state(State)} of
        {{ok, _}, true} -> #{traceparent => Parent, tracestate => State};
        %% The state alone is dropped.
        {{ok, _}, false} -> #{traceparent => Parent};
        {error, _} -> none
    end.

%% @doc Whether it is one that may be sent.
-spec check(term()) -> boolean().
check(#{traceparent := Parent} = Trace) ->
    State = maps:get(tracestate, Trace, none),
    map_size(maps:without([traceparent, tracestate], Trace)) =:= 0 andalso
        parse(Parent) =/= error andalso (State =:= none orelse is_state(State));
check(_) ->
    false.

%% @doc The message with the context in its `_meta', in place of one that is there.
-spec into(iodata(), trace()) -> {ok, iodata()} | error.
into(Message, Trace) ->
    case erlmcp_native_json:decode(iolist_to_binary(Message)) of
        {ok, #{<<"method">> := _} = Decoded} -> put_into(Decoded, Trace);
        _ -> error
    end.

put_into(Message, Trace) ->
    Own = maps:from_list([{atom_to_binary(Key), Value} || {Key, Value} <- maps:to_list(Trace)]),
    case maps:merge(#{<<"params">> => #{}}, Message) of
        #{<<"params">> := #{<<"_meta">> := Meta}} when not is_map(Meta) ->
            error;
        #{<<"params">> := #{} = Params} ->
            Meta = maps:without(
                [<<"traceparent">>, <<"tracestate">>], maps:get(<<"_meta">>, Params, #{})
            ),
            Traced = Params#{<<"_meta">> => maps:merge(Meta, Own)},
            {ok, erlmcp_native_json:encode(Message#{<<"params">> => Traced})};
        _ ->
            error
    end.

%% @doc The parts of a `traceparent'. Of a version later than 00 only what 00 has is known.
-spec parse(term()) ->
    {ok, #{
        version := binary(), trace_id := binary(), parent_id := binary(), sampled := boolean()
    }}
    | error.
parse(<<V:2/binary, $-, Trace:32/binary, $-, Parent:16/binary, $-, Flags:2/binary, R/binary>>) ->
    Valid =
        lists:all(fun is_hex/1, [V, Trace, Parent, Flags]) andalso is_rest(V, R) andalso
            not is_zero(Trace) andalso not is_zero(Parent),
    case Valid of
        true ->
            {ok, #{
                version => V,
                trace_id => Trace,
                parent_id => Parent,
                sampled => binary_to_integer(Flags, 16) band 1 =:= 1
            }};
        false ->
            error
    end;
parse(_) ->
    error.

is_rest(<<"ff">>, _) -> false;
is_rest(_, <<>>) -> true;
is_rest(<<"00">>, _) -> false;
is_rest(_, <<$-, _/binary>>) -> true;
is_rest(_, _) -> false.

is_hex(<<>>) -> true;
is_hex(<<C, Rest/binary>>) when C >= $0, C =< $9; C >= $a, C =< $f -> is_hex(Rest);
is_hex(_) -> false.

is_zero(Digits) -> Digits =:= binary:copy(<<"0">>, byte_size(Digits)).

is_state(State) when is_binary(State) ->
    Members = [
        Member
     || Part <- binary:split(State, <<",">>, [global]), Member <- [trim(Part)], Member =/= <<>>
    ],
    Keys = [key(Member) || Member <- Members],
    Members =/= [] andalso length(Members) =< ?MAX_MEMBERS andalso
        not lists:member(none, Keys) andalso length(lists:usort(Keys)) =:= length(Keys);
is_state(_) ->
    false.

trim(Text) ->
    re:replace(Text, "^[ \t]+|[ \t]+$", "", [global, {return, binary}]).

%% A key of one vendor, or of a tenant of one; then a value without comma, equals sign or control.
key(Member) ->
    Key = "([a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})",
    Value = "[\\x20-\\x2b\\x2d-\\x3c\\x3e-\\x7e]{0,255}[\\x21-\\x2b\\x2d-\\x3c\\x3e-\\x7e]",
    case re:run(Member, ["^", Key, "=", Value, "\\z"], [{capture, [1], binary}]) of
        {match, [Name]} -> Name;
        nomatch -> none
    end.
