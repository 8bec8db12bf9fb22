%% The operations of docs/port_protocol.md that HTTP has.

%% To the program.
-define(TO_HTTP_LISTEN, 16#40).
-define(TO_HTTP_DRAIN, 16#41).
-define(TO_HTTP_INFO, 16#42).
-define(TO_HTTP_REPLY, 16#43).
-define(TO_HTTP_STREAM, 16#44).
-define(TO_HTTP_SEND, 16#45).
-define(TO_HTTP_FINISH, 16#46).
-define(TO_HTTP_WANT_ROOM, 16#47).
-define(TO_HTTP_WANT_BODY, 16#48).
-define(TO_HTTP_DONE, 16#49).

-define(TO_HTTP_CLIENT_OPEN, 16#50).
-define(TO_HTTP_CLIENT_REQUEST, 16#51).
-define(TO_HTTP_CLIENT_GRANT, 16#52).
-define(TO_HTTP_CLIENT_CANCEL, 16#53).
-define(TO_HTTP_CLIENT_INFO, 16#54).

%% From the program.
-define(FROM_HTTP_LISTENING, 16#c0).
-define(FROM_HTTP_DRAINED, 16#c1).
-define(FROM_HTTP_CLOSED, 16#c2).
-define(FROM_HTTP_INFO, 16#c3).
-define(FROM_HTTP_REQUEST, 16#c4).
-define(FROM_HTTP_GONE, 16#c5).
-define(FROM_HTTP_TAKEN, 16#c6).
-define(FROM_HTTP_ROOM, 16#c7).
-define(FROM_HTTP_BODY, 16#c8).

-define(FROM_HTTP_CLIENT_OPENED, 16#d0).
-define(FROM_HTTP_ANSWER, 16#d1).

%% Kinds of FROM_HTTP_BODY.
-define(BODY_PIECE, 0).
-define(BODY_LAST, 1).
-define(BODY_TOO_LARGE, 2).
-define(BODY_TIMEOUT, 3).
-define(BODY_CLOSED, 4).
