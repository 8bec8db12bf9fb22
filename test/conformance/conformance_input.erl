%% @doc Answers of 2026-07-28 that ask for input: what is asked for is in served.json, what the
%% server has to remember goes through the client, signed.
-module(conformance_input).

-export([answer/3]).

-define(CAPABILITIES, <<"io.modelcontextprotocol/clientCapabilities">>).

%% @doc Asks for the input of the tool or prompt `Name', or answers by `Done' with the responses,
%% when all of it is there.
answer(Name, Params, #{meta := Meta, arg := #{key := Key, served := Served}} = Context) ->
    case round(Name, Params, Key) of
        tampered ->
            {error, -32602, <<"requestState fails its integrity check">>};
        Round ->
            #{<<"inputRequests">> := #{Round := All}} = Served,
            Requests = maps:filter(fun(_, R) -> declared(R, Meta) end, All),
            Responses = responses(Params),
            Complete = lists:all(fun(K) -> given(K, Requests, Responses) end, maps:keys(Requests)),
            case Complete of
                _ when map_size(Requests) =:= 0 -> missing(All);
                true -> next(Round, Responses, Context);
                false -> {reply, ask(Requests, state(Round, Key))}
            end
    end.

%% The second round of the tool that has two.
next(<<"test_input_required_result_multi_round">> = Name, _, #{arg := Arg}) ->
    #{key := Key, served := #{<<"inputRequests">> := All}} = Arg,
    Round = <<Name/binary, "_2">>,
    {reply, ask(maps:get(Round, All), state(Round, Key))};
next(<<"test_input_required_result_prompt">>, #{<<"user_context">> := Response}, _) ->
    #{<<"content">> := #{<<"context">> := Text}} = Response,
    Content = #{<<"type">> => <<"text">>, <<"text">> => <<"Context: ", Text/binary>>},
    {reply, #{<<"messages">> => [#{<<"role">> => <<"user">>, <<"content">> => Content}]}};
next(Name, Responses, _) ->
    {reply, #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => text(Name, Responses)}]}}.

text(_, #{<<"user_name">> := #{<<"content">> := #{<<"name">> := Name}}}) ->
    <<"Hello, ", Name/binary, "!">>;
text(_, #{<<"capital_question">> := #{<<"content">> := #{<<"text">> := Text}}}) ->
    Text;
text(_, #{<<"client_roots">> := #{<<"roots">> := Roots}}) ->
    iolist_to_binary(lists:join(<<" ">>, [Uri || #{<<"uri">> := Uri} <- Roots]));
text(_, _) ->
    <<"state-ok">>.

%% The state tells the rounds of a tool apart; without one it is the first.
round(Name, #{<<"requestState">> := State}, Key) ->
    case verify(State, Key) of
        {ok, Round} ->
            case binary:longest_common_prefix([Round, Name]) =:= byte_size(Name) of
                true -> Round;
                false -> tampered
            end;
        error ->
            tampered
    end;
round(Name, _, _) ->
    Name.

ask(Requests, State) ->
    #{
        <<"resultType">> => <<"input_required">>,
        <<"inputRequests">> => Requests,
        <<"requestState">> => State
    }.

missing(Requests) ->
    Names = [capability(Method) || #{<<"method">> := Method} <- maps:values(Requests)],
    Data = #{<<"requiredCapabilities">> => maps:from_list([{Name, #{}} || Name <- Names])},
    {error, -32021, <<"Missing required client capability">>, Data}.

declared(#{<<"method">> := Method}, Meta) ->
    is_map_key(capability(Method), maps:get(?CAPABILITIES, Meta, #{})).

capability(<<"elicitation/create">>) -> <<"elicitation">>;
capability(<<"sampling/createMessage">>) -> <<"sampling">>;
capability(<<"roots/list">>) -> <<"roots">>.

responses(#{<<"inputResponses">> := #{} = Responses}) -> Responses;
responses(_) -> #{}.

given(Key, Requests, Responses) ->
    #{Key := #{<<"method">> := Method} = Request} = Requests,
    case Responses of
        #{Key := #{} = Response} -> valid(Method, Request, Response);
        _ -> false
    end.

valid(<<"elicitation/create">>, Request, Response) ->
    #{<<"params">> := #{<<"requestedSchema">> := #{<<"required">> := Required}}} = Request,
    case Response of
        #{<<"action">> := <<"accept">>, <<"content">> := #{} = Content} ->
            lists:all(fun(Name) -> is_map_key(Name, Content) end, Required);
        _ ->
            false
    end;
valid(<<"sampling/createMessage">>, _, Response) ->
    is_map_key(<<"content">>, Response);
valid(<<"roots/list">>, _, Response) ->
    is_list(maps:get(<<"roots">>, Response, none)).

state(Round, Key) ->
    Mac = crypto:mac(hmac, sha256, Key, Round),
    <<(base64:encode(Round))/binary, ".", (base64:encode(Mac))/binary>>.

verify(State, Key) ->
    try binary:split(State, <<".">>) of
        [Round, Mac] ->
            Plain = base64:decode(Round),
            case crypto:mac(hmac, sha256, Key, Plain) =:= base64:decode(Mac) of
                true -> {ok, Plain};
                false -> error
            end;
        _ ->
            error
    catch
        error:_ -> error
    end.
