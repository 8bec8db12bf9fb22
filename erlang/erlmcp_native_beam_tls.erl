%% @doc TLS of either side with `ssl': from our options to those of `ssl', and back from its
%% errors to ours.
%%
%% A listener's files are read and checked when it is bound, so that a wrong path is an error of
%% that call; a client's for each connection.
-module(erlmcp_native_beam_tls).

-include_lib("public_key/include/public_key.hrl").

-export([client/2, server/1, with_alpn/2, handshake/3, reason/1]).

-export_type([config/0]).

-opaque config() :: #{
    role := client | server,
    options := [ssl:tls_option()],
    system_roots := boolean(),
    verify := none | peer | {ip, inet:ip_address()} | no_name
}.
%% `{ip, Address}': `ssl' compares names only, the address is compared here. `no_name': nothing
%% is known that the certificate could be compared with.

%% @doc The client's side of a connection to an endpoint.
-spec client(erlmcp_native_options:tls(), erlmcp_native:endpoint()) ->
    {ok, config()} | {error, {tls, bad_file}}.
client(#{verify := Verify} = Tls, Endpoint) ->
    {Indication, Name} = server_name(Tls, Endpoint),
    Match = public_key:pkix_verify_hostname_match_fun(https),
    Config = #{
        role => client,
        options => [{customize_hostname_check, [{match_fun, Match}]} | Indication],
        system_roots => false,
        verify => verify(Verify, Name)
    },
    files(Tls, Config).

%% @doc The server's side of all connections of a listener.
-spec server(erlmcp_native_options:tls()) -> {ok, config()} | {error, {tls, bad_file}}.
server(#{verify := Verify} = Tls) ->
    Ask = [{fail_if_no_peer_cert, true} || Verify =:= peer],
    Config = #{role => server, options => Ask, system_roots => false, verify => Verify},
    files(Tls, Config).

%% @doc Has one of these protocols agreed on where the peer knows of ALPN.
-spec with_alpn([binary(), ...], config()) -> config().
with_alpn(Protocols, #{role := Role, options := Options} = Config) ->
    Key =
        case Role of
            client -> alpn_advertised_protocols;
            server -> alpn_preferred_protocols
        end,
    Config#{options := [{Key, Protocols} | Options]}.

%% @doc The handshake. The calling process owns the socket before and after; then it is active
%% once, so that a late alert is not missed.
-spec handshake(gen_tcp:socket(), config(), timeout()) ->
    {ok, ssl:sslsocket()} | {error, erlmcp_native:reason()}.
handshake(_, #{verify := no_name}, _) ->
    {error, {tls, hostname_mismatch}};
handshake(Socket, #{role := Role, options := Options} = Config, Timeout) ->
    Ref = make_ref(),
    All = [{active, once} | Options] ++ roots(Config) ++ verification(Config, self(), Ref),
    Result =
        case Role of
            client -> ssl:connect(Socket, All, Timeout);
            server -> ssl:handshake(Socket, All, Timeout)
        end,
    outcome(Result, verdict(Ref, none)).

outcome({ok, _} = Ok, _) -> Ok;
outcome({error, timeout}, _) -> {error, {tls, timeout}};
outcome({error, Reason}, none) -> {error, reason(Reason)};
outcome({error, _}, Verdict) -> {error, {tls, Verdict}}.

%% @doc An error of `ssl' as ours.
-spec reason(term()) -> erlmcp_native:reason().
reason({tls_alert, {Alert, Text}}) -> {tls, alert(Alert, Text)};
reason({options, {File, _, _}}) when File =:= cacertfile; File =:= certfile; File =:= keyfile ->
    {tls, bad_file};
reason({options, _}) -> {tls, handshake_failure};
reason(Reason) when is_atom(Reason) -> erlmcp_native_beam_inet:reason(Reason);
reason(_) -> {tls, handshake_failure}.

alert(unknown_ca, _) -> unknown_ca;
alert(certificate_expired, _) -> certificate_expired;
alert(certificate_revoked, _) -> certificate_revoked;
alert(certificate_required, _) -> certificate_required;
alert(bad_certificate, _) -> bad_certificate;
alert(unsupported_certificate, _) -> bad_certificate;
alert(certificate_unknown, _) -> bad_certificate;
alert(protocol_version, _) -> protocol_version;
alert(insufficient_security, _) -> protocol_version;
%% TLS 1.2 has no alert for a missing certificate; `ssl' says it in the text only.
alert(handshake_failure, Text) ->
    case string:find(Text, "no_client_certificate_provided") of
        nomatch -> handshake_failure;
        _ -> certificate_required
    end;
alert(_, _) -> handshake_failure.

server_name(#{server_name := from_endpoint}, #{host := Ip}) when is_tuple(Ip) ->
    {[{server_name_indication, disable}], {ip, Ip}};
server_name(#{server_name := from_endpoint}, #{host := Name}) ->
    named(Name);
server_name(#{server_name := from_endpoint}, _) ->
    {[{server_name_indication, disable}], no_name};
server_name(#{server_name := Name}, _) ->
    named(Name).

%% An address is no server name (RFC 6066, section 3).
named(Name) ->
    Host = unicode:characters_to_list(Name),
    case inet:parse_strict_address(Host) of
        {ok, Ip} -> {[{server_name_indication, disable}], {ip, Ip}};
        {error, einval} -> {[{server_name_indication, Host}], peer}
    end.

verify(none, _) -> none;
verify(peer, Name) -> Name.

verification(#{verify := none}, _, _) ->
    [{verify, verify_none}];
verification(#{verify := Verify}, Pid, Ref) ->
    [{verify, verify_peer}, {verify_fun, {fun verify_fun/3, {Verify, Pid, Ref}}}].

%% Judges as `ssl' does without a function. It also reports what is wrong: some of the reasons
%% share an alert with others.
verify_fun(_, {bad_cert, Why}, State) -> refuse(Why, State);
verify_fun(_, {extension, _}, State) -> {unknown, State};
verify_fun(_, valid, State) -> {valid, State};
verify_fun(Certificate, valid_peer, {{ip, Ip}, _, _} = State) ->
    case public_key:pkix_verify_hostname(Certificate, [{ip, Ip}]) of
        true -> {valid, State};
        false -> refuse(hostname_check_failed, State)
    end;
verify_fun(_, valid_peer, State) -> {valid, State}.

refuse(Why, {_, Pid, Ref}) ->
    Pid ! {Ref, Why},
    {fail, {bad_cert, Why}}.

%% Several paths to a root may have been tried; the last decided.
verdict(Ref, Last) ->
    receive
        {Ref, Why} -> verdict(Ref, bad_cert(Why))
    after 0 -> Last
    end.

bad_cert(hostname_check_failed) -> hostname_mismatch;
bad_cert(unknown_ca) -> unknown_ca;
bad_cert(selfsigned_peer) -> unknown_ca;
bad_cert(cert_expired) -> certificate_expired;
bad_cert(root_cert_expired) -> certificate_expired;
bad_cert({revoked, _}) -> certificate_revoked;
bad_cert(_) -> bad_certificate.

%% The system's roots are fetched where they are used: they are many, and shared.
roots(#{system_roots := true}) -> [{cacerts, public_key:cacerts_get()}];
roots(_) -> [].

files(#{min_version := MinVersion} = Tls, #{options := Options} = Config) ->
    Common = [{versions, versions(MinVersion)}, {log_level, error} | Options],
    try
        {Roots, SystemRoots} = root_options(Tls),
        All = Common ++ Roots ++ identity(Tls),
        {ok, Config#{options := All, system_roots := SystemRoots}}
    catch
        throw:bad_file -> {error, {tls, bad_file}}
    end.

versions('tlsv1.2') -> ['tlsv1.3', 'tlsv1.2'];
versions('tlsv1.3') -> ['tlsv1.3'].

root_options(#{verify := none}) ->
    {[], false};
root_options(#{cacertfile := system}) ->
    try public_key:cacerts_get() of
        [_ | _] -> {[], true};
        [] -> throw(bad_file)
    catch
        error:_ -> throw(bad_file)
    end;
root_options(#{cacertfile := File}) ->
    _ = certificates(File),
    %% By name: `ssl' decodes a file once for all connections.
    {[{cacertfile, File}], false}.

identity(#{certfile := none}) ->
    [];
identity(#{certfile := CertFile, keyfile := KeyFile}) ->
    [Own | _] = Chain = certificates(CertFile),
    Key = key(KeyFile),
    case belong_together(Own, Key) of
        true -> [{cert, Chain}, {key, Key}];
        false -> throw(bad_file)
    end.

certificates(File) ->
    case [Der || {'Certificate', Der, not_encrypted} <- pem(File)] of
        [_ | _] = Ders -> Ders;
        [] -> throw(bad_file)
    end.

key(File) ->
    Keys = [
        {Type, Der}
     || {Type, Der, not_encrypted} <- pem(File), Type =/= 'Certificate', Type =/= 'EcpkParameters'
    ],
    case Keys of
        [Key | _] -> Key;
        [] -> throw(bad_file)
    end.

pem(File) ->
    try
        {ok, Bytes} = file:read_file(File),
        public_key:pem_decode(Bytes)
    catch
        error:_ -> throw(bad_file)
    end.

%% A key that is not the certificate's would fail every handshake.
belong_together(CertDer, {KeyType, KeyDer}) ->
    try
        #'OTPCertificate'{tbsCertificate = Tbs} = public_key:pkix_decode_cert(CertDer, otp),
        #'OTPTBSCertificate'{subjectPublicKeyInfo = Info} = Tbs,
        pair(public_key:der_decode(KeyType, KeyDer), Info)
    catch
        error:_ -> false
    end.

pair(#'RSAPrivateKey'{modulus = N}, #'OTPSubjectPublicKeyInfo'{subjectPublicKey = Public}) ->
    is_record(Public, 'RSAPublicKey') andalso Public#'RSAPublicKey'.modulus =:= N;
pair(#'ECPrivateKey'{publicKey = Own}, #'OTPSubjectPublicKeyInfo'{subjectPublicKey = Public}) when
    is_binary(Own)
->
    is_record(Public, 'ECPoint') andalso Public#'ECPoint'.point =:= Own;
%% Other keys do not tell their public half.
pair(_, _) ->
    true.
