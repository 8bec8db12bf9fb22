%% Certificates for tests, made afresh in a directory.
-module(test_certs).

-export([make/1, make/2, file/2]).

-include_lib("public_key/include/public_key.hrl").

%% Files `NAME.pem' (certificate) and `NAME.key', and `ca.pem': `server' is for localhost and
%% 127.0.0.1, `expired' for the same but over, `other' for another name, `client' a client's; `self'
%% is signed by itself. `other_ca.pem' has signed none of them. The directory must be one that
%% nobody has used before: for minutes `ssl' keeps what it has read from a file of that name.
-spec make(file:filename()) -> ok.
make(Dir) ->
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Ca = root("erlmcp_native test CA"),
    Names = [{dNSName, "localhost"}, {iPAddress, <<127, 0, 0, 1>>}],
    write_certificate(Dir, "ca", Ca),
    write_certificate(Dir, "other_ca", root("another CA")),
    write(Dir, "server", issue(Ca, Names, current())),
    write(Dir, "expired", issue(Ca, Names, {{2001, 1, 1}, {2002, 1, 1}})),
    write(Dir, "other", issue(Ca, [{dNSName, "other.example"}], current())),
    write(Dir, "client", issue(Ca, [{dNSName, "client.example"}], current())),
    write(Dir, "self", self_signed(Names)).

%% The same for the cases of a suite.
make(Suite, Config) ->
    Dir = filename:join([proplists:get_value(priv_dir, Config), Suite, "certs"]),
    ok = make(Dir),
    [{certs, Dir} | Config].

%% One of the files of a suite.
file(Config, Name) -> filename:join(proplists:get_value(certs, Config), Name).

current() ->
    {Year, _, _} = date(),
    {{Year - 1, 1, 1}, {Year + 1, 1, 1}}.

root(Name) ->
    Key = key(),
    Subject = name(Name),
    Extensions = [
        extension(?'id-ce-basicConstraints', #'BasicConstraints'{cA = true}),
        extension(?'id-ce-keyUsage', [keyCertSign, cRLSign])
    ],
    {sign(Subject, Subject, Key, Key, current(), Extensions), Key, Subject}.

issue({_, IssuerKey, Issuer}, Names, Validity) ->
    Key = key(),
    {sign(name("peer"), Issuer, Key, IssuerKey, Validity, names(Names)), Key, Issuer}.

self_signed(Names) ->
    Key = key(),
    Subject = name("self"),
    {sign(Subject, Subject, Key, Key, current(), names(Names)), Key, Subject}.

names(Names) ->
    [extension(?'id-ce-subjectAltName', Names)].

key() ->
    public_key:generate_key({namedCurve, secp256r1}).

sign(Subject, Issuer, Key, IssuerKey, Validity, Extensions) ->
    #'ECPrivateKey'{publicKey = Point, parameters = Parameters} = Key,
    public_key:pkix_sign(
        #'OTPTBSCertificate'{
            version = v3,
            serialNumber = rand:uniform(1 bsl 60),
            signature = #'SignatureAlgorithm'{
                algorithm = ?'ecdsa-with-SHA256', parameters = asn1_NOVALUE
            },
            issuer = Issuer,
            validity = validity(Validity),
            subject = Subject,
            subjectPublicKeyInfo = #'OTPSubjectPublicKeyInfo'{
                algorithm = #'PublicKeyAlgorithm'{
                    algorithm = ?'id-ecPublicKey', parameters = Parameters
                },
                subjectPublicKey = #'ECPoint'{point = Point}
            },
            extensions = Extensions
        },
        IssuerKey
    ).

validity({From, To}) ->
    #'Validity'{notBefore = time(From), notAfter = time(To)}.

time({Year, Month, Day}) ->
    Text = io_lib:format("~2..0b~2..0b~2..0b000000Z", [Year rem 100, Month, Day]),
    {utcTime, lists:flatten(Text)}.

name(Common) ->
    Value = {utf8String, list_to_binary(Common)},
    {rdnSequence, [[#'AttributeTypeAndValue'{type = ?'id-at-commonName', value = Value}]]}.

extension(Id, Value) ->
    #'Extension'{extnID = Id, critical = Id =/= ?'id-ce-subjectAltName', extnValue = Value}.

write(Dir, Name, {_, Key, _} = Certificate) ->
    write_certificate(Dir, Name, Certificate),
    Entry = public_key:pem_entry_encode('ECPrivateKey', Key),
    ok = file:write_file(filename:join(Dir, Name ++ ".key"), public_key:pem_encode([Entry])).

write_certificate(Dir, Name, {Der, _, _}) ->
    Pem = public_key:pem_encode([{'Certificate', Der, not_encrypted}]),
    ok = file:write_file(filename:join(Dir, Name ++ ".pem"), Pem).
