%% What the parts of the client's core share; no other module includes it.

-define(CORE, erlmcp_native_http_client_core).
-define(EXCHANGE, erlmcp_native_http_client_exchange).
-define(INBOUND, erlmcp_native_http_client_inbound).
-define(OUTCOME, erlmcp_native_http_client_outcome).
-define(STREAM, erlmcp_native_http_client_stream).
-define(SESSION, erlmcp_native_http_client_session).
-define(REQUESTS, erlmcp_native_http_client_requests).
-define(MESSAGE, erlmcp_native_http_client_message).
-define(BATCH, erlmcp_native_http_client_batch).
-define(ANSWER, erlmcp_native_http_client_answer).
-define(WIRE, erlmcp_native_http_client_wire).
-define(URL, erlmcp_native_http_client_url).
-define(TOOLS, erlmcp_native_http_client_tools).

-type key() :: erlmcp_native_http_client_wire:key().
-type id() :: erlmcp_native_http_client_requests:id().
-type message() :: erlmcp_native_http_client_message:message().
-type answer() :: erlmcp_native_http_client_answer:answer().
-type url() :: erlmcp_native_http_client_url:url().

-type reason() ::
    erlmcp_native:reason()
    | protocol
    | no_response
    | session_lost
    | cancelled
    | message_too_large
    | headers
    | {unauthorized, Challenge :: binary()}
    | {forbidden, Challenge :: binary()}
    | {redirect, Status :: 300..399}
    | {status, Status :: 100..599, Body :: binary()}.

-type send_error() ::
    erlmcp_native:reason() | invalid_message | duplicate_id | not_allowed | headers | breaker_open.

-type event() ::
    {frames, [binary(), ...]}
    | {failed, id() | none, reason()}
    | session_lost
    | session_renewed.

-type role() ::
    {post, message()}
    | {batch, erlmcp_native_http_client_batch:batch()}
    | {resume, id()}
    | listen
    | sse.

-record(exchange, {
    key = none :: none | key(),
    role :: role(),
    url :: url(),
    hops = 0 :: non_neg_integer(),
    %% The session that it was sent in.
    session = none :: none | binary(),
    answer = none :: none | answer(),
    timer = none :: none | reference()
}).

%% The stream for what belongs to no request.
-record(listen, {
    key = none :: none | key(),
    timer = none :: none | reference(),
    event_id = none :: none | binary(),
    retry_ms = none :: none | non_neg_integer(),
    %% The server has such a stream.
    known = false :: boolean(),
    again :: erlmcp_native_http_client_requests:again()
}).

-record(core, {
    options :: erlmcp_native_http_client_options:options(),
    wire :: erlmcp_native_http_client_wire:wire(),
    session :: erlmcp_native_http_client_session:session(),
    requests :: erlmcp_native_http_client_requests:requests(),
    exchanges = #{} :: #{key() => #exchange{}},
    ready = [] :: [key()],
    held = queue:new() :: queue:queue(message()),
    %% Streamable HTTP, or HTTP+SSE of 2024-11-05 after the former was refused.
    mode = streamable :: streamable | {probing, message(), #exchange{}, binary()} | {sse, url()},
    restarting = none :: none | message(),
    %% Calls that wait for the tools to be looked up, with what the server answered, latest first.
    looking_up = [] :: [{message(), binary()}],
    listen :: #listen{},
    ignored = 0 :: non_neg_integer(),
    out = [] :: [event()]
}).
