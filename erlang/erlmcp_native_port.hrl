%% The operations of docs/port_protocol.md.

-define(PORT_VERSION, 1).

%% To the program.
-define(TO_HELLO, 16#01).
-define(TO_PING, 16#02).
-define(TO_PROCESSED, 16#03).
-define(TO_CLOSE, 16#04).
-define(TO_LOG_LEVEL, 16#05).
-define(TO_METRICS, 16#06).
-define(TO_LEAVING, 16#07).

-define(TO_CONNECT, 16#10).
-define(TO_SEND, 16#11).
-define(TO_GRANT, 16#12).
-define(TO_WANT_ROOM, 16#13).
-define(TO_INFO, 16#14).
-define(TO_SEND_URGENT, 16#15).
-define(TO_SEND_NORMAL, 16#16).

-define(TO_LISTEN, 16#20).
-define(TO_ACCEPT, 16#21).

-define(TO_CHILD, 16#60).
-define(TO_STDERR_NEXT, 16#61).

%% From the program.
-define(FROM_HELLO, 16#81).
-define(FROM_PONG, 16#82).
-define(FROM_GARBAGE, 16#83).
-define(FROM_BORN, 16#84).
-define(FROM_LOG, 16#85).
-define(FROM_METRICS, 16#86).
-define(FROM_DOWN, 16#87).
-define(FROM_SENT, 16#88).
-define(FROM_ROOM, 16#89).
-define(FROM_LEAVING, 16#8a).

-define(FROM_OPENED, 16#90).
-define(FROM_FRAMES, 16#91).
-define(FROM_OVERSIZED, 16#92).
-define(FROM_EOF, 16#93).
-define(FROM_INFO, 16#94).
-define(FROM_JSON, 16#95).

-define(FROM_LISTENING, 16#a0).

-define(FROM_STDERR, 16#e0).
