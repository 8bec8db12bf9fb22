%% @private Which protocol revision a message is under, from its `_meta' and the header
%% `MCP-Protocol-Version'. Pure.
%%
%% Up to 2025-11-25 ("legacy") `initialize' agrees on a revision, from 2026-07-28 on ("modern") each
%% message names its own. One endpoint serves both at once.
-module(erlmcp_native_http_era).

-export([decide/3, negotiate/2, meta/1]).

-export_type([decision/0, refusal/0]).

-type decision() ::
    {modern, Revision :: binary()} | {legacy, Header :: binary() | none} | refusal().
%% `Header': what the header says; the session knows better.

-type refusal() :: {refused, Code :: integer(), Text :: binary(), Data :: term() | none}.
%% The answer goes out with status 400.

-define(VERSION, <<"io.modelcontextprotocol/protocolVersion">>).
-define(CAPABILITIES, <<"io.modelcontextprotocol/clientCapabilities">>).

-define(INVALID_REQUEST, -32600).
-define(INVALID_PARAMS, -32602).
-define(HEADER_MISMATCH, -32020).
-define(UNSUPPORTED_VERSION, -32022).

%% @doc Decides for a request or a notification, or a response, which has no `_meta'. `Revisions'
%% are those that are served, the newest first.
-spec decide(Header :: binary() | none, Message :: map(), Revisions :: [binary(), ...]) ->
    decision().
decide(Header, Message, Revisions) ->
    Meta = meta(Message),
    case Meta of
        #{?VERSION := Version} ->
            case serves_modern(Revisions) of
                true -> modern(Version, Header, Message, Meta, Revisions);
                false -> by_header(Header, Message, Meta, Revisions)
            end;
        #{} ->
            by_header(Header, Message, Meta, Revisions)
    end.

%% @doc The revision to answer `initialize' with: the client's if it is served, else the newest
%% that begins so.
-spec negotiate(InitializeParams :: map(), Revisions :: [binary(), ...]) -> binary().
negotiate(Params, Revisions) ->
    Legacy = lists:reverse(lists:sort(erlmcp_native_http_config:legacy(Revisions))),
    Asked = maps:get(<<"protocolVersion">>, Params, none),
    case lists:member(Asked, Legacy) of
        true -> Asked;
        false when Legacy =/= [] -> hd(Legacy);
        false -> lists:max(Revisions)
    end.

%% @doc `_meta' of the params.
-spec meta(map()) -> map().
meta(#{<<"params">> := #{<<"_meta">> := #{} = Meta}}) -> Meta;
meta(_) -> #{}.

by_header(none, Message, _, Revisions) ->
    case is_modern(lists:last(Revisions)) of
        true -> unsupported(asked(Message), Revisions);
        false -> {legacy, none}
    end;
by_header(Header, Message, Meta, Revisions) ->
    case {lists:member(Header, Revisions), is_modern(Header)} of
        {true, true} -> complete(Header, Message, Meta);
        {true, false} -> {legacy, Header};
        {false, _} -> unsupported(Header, Revisions)
    end.

%% What a client of the old way asks for: the refusal may be all that its user gets to see.
asked(#{<<"params">> := #{<<"protocolVersion">> := Version}}) when is_binary(Version) ->
    Version;
asked(_) ->
    <<"2025-03-26">>.

modern(Version, none, _, _, _) ->
    mismatch(<<"MCP-Protocol-Version is missing, the body says ">>, Version);
modern(Version, Header, _, _, _) when Version =/= Header ->
    mismatch(<<"MCP-Protocol-Version does not match the body, which says ">>, Version);
modern(Version, _, Message, Meta, Revisions) ->
    case is_modern(Version) andalso lists:member(Version, Revisions) of
        true -> complete(Version, Message, Meta);
        false -> unsupported(Version, Revisions)
    end.

%% Only requests have to carry the fields.
complete(Revision, #{<<"method">> := _, <<"id">> := _}, Meta) ->
    case Meta of
        #{?VERSION := _, ?CAPABILITIES := #{}} -> {modern, Revision};
        #{?VERSION := _} -> invalid(?CAPABILITIES);
        #{} -> invalid(?VERSION)
    end;
complete(Revision, _, _) ->
    {modern, Revision}.

invalid(Key) ->
    {refused, ?INVALID_PARAMS, <<"_meta lacks ", Key/binary>>, none}.

mismatch(Text, Version) when is_binary(Version) ->
    {refused, ?HEADER_MISMATCH, <<"Header mismatch: ", Text/binary, Version/binary>>, none};
mismatch(_, _) ->
    {refused, ?INVALID_PARAMS, <<"_meta: the protocol version is no string">>, none}.

%% The code is known to clients that name a revision with each request. Where none of theirs is
%% served, the answer must not look as if one were.
unsupported(Requested, Revisions) ->
    Text = <<"Unsupported protocol version">>,
    case serves_modern(Revisions) of
        true ->
            Data = #{<<"supported">> => Revisions, <<"requested">> => text(Requested)},
            {refused, ?UNSUPPORTED_VERSION, Text, Data};
        false ->
            {refused, ?INVALID_REQUEST, Text, none}
    end.

%% A field may hold any bytes, JSON may not.
text(Value) ->
    case unicode:characters_to_binary(Value) of
        Value -> Value;
        _ -> unicode:characters_to_binary(Value, latin1)
    end.

serves_modern([Newest | _]) -> is_modern(Newest).

is_modern(Revision) -> erlmcp_native_http_config:is_modern(Revision).
