%% @private The URLs of an HTTP client: an origin to connect to, and a target to ask it for. Pure.
-module(erlmcp_native_http_client_url).

-export([parse/1, resolve/2, redirect/2, text/1]).

-export_type([url/0]).

-type url() :: #{origin := erlmcp_native_http_client_path:origin(), target := binary()}.

%% @doc Reads an absolute URL. One with a user name or password in it is refused: it would end up in
%% logs.
-spec parse(term()) -> {ok, url()} | error.
parse(Text) when is_binary(Text) ->
    try uri_string:parse(Text) of
        #{scheme := Scheme, host := Host} = Parts when Host =/= <<>> ->
            checked(scheme(string:lowercase(Scheme)), Parts);
        _ ->
            error
    catch
        error:_ -> error
    end;
parse(Text) when is_list(Text) ->
    try unicode:characters_to_binary(Text) of
        Binary when is_binary(Binary) -> parse(Binary);
        _ -> error
    catch
        error:badarg -> error
    end;
parse(_) ->
    error.

%% @doc What a reference in a document of `Base' means.
-spec resolve(binary(), url()) -> {ok, url()} | error.
resolve(Reference, Base) ->
    try uri_string:resolve(Reference, text(Base)) of
        Resolved when is_binary(Resolved) -> parse(Resolved);
        _ -> error
    catch
        error:_ -> error
    end.

%% @doc Where a redirection leads, unless from `https' to `http'.
-spec redirect(Location :: binary(), url()) -> {ok, url()} | error.
redirect(Location, #{origin := #{scheme := Scheme}} = From) ->
    case resolve(Location, From) of
        {ok, #{origin := #{scheme := http}}} when Scheme =:= https -> error;
        Result -> Result
    end.

-spec text(url()) -> binary().
text(#{origin := #{scheme := Scheme, host := Host, port := Port}, target := Target}) ->
    iolist_to_binary([
        atom_to_binary(Scheme), "://", bracketed(Host), $:, integer_to_binary(Port), Target
    ]).

checked({Scheme, Default}, #{host := Host} = Parts) ->
    Target = target(Parts),
    Port = maps:get(port, Parts, Default),
    Fits =
        not is_map_key(userinfo, Parts) andalso is_integer(Port) andalso Port > 0 andalso
            Port < 65536 andalso visible(Host) andalso visible(Target),
    case Fits of
        true ->
            Origin = #{scheme => Scheme, host => string:lowercase(Host), port => Port},
            {ok, #{origin => Origin, target => Target}};
        false ->
            error
    end;
checked(error, _) ->
    error.

scheme(<<"http">>) -> {http, 80};
scheme(<<"https">>) -> {https, 443};
scheme(_) -> error.

%% The fragment is for the client itself.
target(#{path := Path} = Parts) ->
    Rooted =
        case Path of
            <<"/", _/binary>> -> Path;
            _ -> <<"/", Path/binary>>
        end,
    case Parts of
        #{query := Query} -> <<Rooted/binary, "?", Query/binary>>;
        #{} -> Rooted
    end.

visible(Text) -> re:run(Text, "^[!-~]+$", [{capture, none}, dollar_endonly]) =:= match.

bracketed(Host) ->
    case binary:match(Host, <<":">>) of
        nomatch -> Host;
        _ -> [$[, Host, $]]
    end.
