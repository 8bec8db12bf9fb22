%% @doc Children on the path `port', and on `nif', whose children live in the port program too:
%% what their owner knows of them beside the connection.
-module(erlmcp_native_port_child).

-export([new/1, wire/1, reason/2, stderr/2]).

-export_type([child/0]).

-include_lib("kernel/include/logger.hrl").

-opaque child() :: erlmcp_native_child_options:child().

%% @doc Refuses what this path cannot do.
-spec new(erlmcp_native_child_options:child()) -> {ok, child()} | {error, erlmcp_native:reason()}.
new(#{stderr := inherit}) -> {error, {path_unavailable, port, {stderr, inherit}}};
new(#{stderr := default} = Child) -> {ok, Child#{stderr := logger}};
new(Child) -> {ok, Child}.

%% @doc What the program is told.
-spec wire(child()) -> map().
wire(Child) ->
    maps:remove(name, Child).

%% @doc The program does not know what its errors are about.
-spec reason(term(), child() | none) -> erlmcp_native:reason().
reason({command, Posix}, #{command := Command}) -> {command, Command, Posix};
reason({cwd, Posix}, #{cwd := Cwd}) -> {cwd, Cwd, Posix};
reason({signal, Number}, _) -> {signal, signal(Number)};
reason(Reason, _) -> Reason.

%% @doc What becomes of lines of standard error.
-spec stderr([binary() | pos_integer()], child()) -> erlmcp_native_path:notice().
stderr(Lines, #{stderr := owner}) ->
    {stderr, [told(Line) || Line <- Lines]};
stderr(Lines, #{name := Name}) ->
    Metadata = #{domain => [erlmcp_native, stderr], child => Name},
    lists:foreach(fun(Line) -> log(text(Name), Line, Metadata) end, Lines),
    none.

told(Dropped) when is_integer(Dropped) -> {dropped, Dropped};
told(Line) -> Line.

log(Name, Dropped, Metadata) when is_integer(Dropped) ->
    ?LOG_NOTICE("~ts: ~b lines not shown", [Name, Dropped], Metadata);
log(Name, Line, Metadata) ->
    ?LOG_NOTICE("~ts: ~ts", [Name, text(Line)], Metadata).

%% Whatever bytes they are.
text(Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Text when is_list(Text) -> Text;
        _ -> binary_to_list(Bytes)
    end.

%% Those that have the same number everywhere.
signal(1) -> sighup;
signal(2) -> sigint;
signal(3) -> sigquit;
signal(4) -> sigill;
signal(5) -> sigtrap;
signal(6) -> sigabrt;
signal(8) -> sigfpe;
signal(9) -> sigkill;
signal(11) -> sigsegv;
signal(13) -> sigpipe;
signal(14) -> sigalrm;
signal(15) -> sigterm;
signal(Number) -> Number.
