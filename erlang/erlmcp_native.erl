-module(erlmcp_native).

-export_type([endpoint/0, address/0, reason/0, tls_reason/0, socket_info/0]).

-type endpoint() ::
    #{host := inet:ip_address() | binary(), port := inet:port_number()}
    | #{path := binary()}
    | #{abstract := binary()}.

-type address() ::
    {inet:ip_address(), inet:port_number()} | {path, binary()} | {abstract, binary()} | unnamed.

-type tls_reason() ::
    unknown_ca
    | bad_certificate
    | certificate_expired
    | certificate_revoked
    | hostname_mismatch
    | certificate_required
    | protocol_version
    | handshake_failure
    | bad_file
    | timeout.

-type reason() ::
    closed
    | reset
    | refused
    | unreachable
    | timeout
    | nxdomain
    | address_in_use
    | frame_too_large
    | embedded_newline
    | busy
    | not_connected
    | panic
    | {tls, tls_reason()}
    | {posix, atom()}
    | {option, Key :: term(), Value :: term()}
    | {path_unavailable, erlmcp_native_path:path(), term()}.

-type socket_info() :: #{
    state := connecting | open | eof | closing | down,
    peername := address() | undefined,
    sockname := address() | undefined,
    peercert := public_key:der_encoded() | undefined,
    frames_in := non_neg_integer(),
    bytes_in := non_neg_integer(),
    frames_out := non_neg_integer(),
    bytes_out := non_neg_integer(),
    inbound_bytes := non_neg_integer(),
    queue_bytes := non_neg_integer()
}.
