%% @doc What to start as a child process, checked once and completed with defaults.
%%
%% <ul>
%% <li>`command': a path, or a name to be found in `PATH' (that of the child's environment). `args':
%% its arguments, `[]'.</li>
%% <li>`env': what is added to the node's environment, as a map or a list of pairs; `false' as a
%% value takes a variable away. `{only, Env}' is the whole environment.</li>
%% <li>`cwd': where the child starts; `node', the default, is where the node is.</li>
%% <li>`name': what it is called in the log; the command's last part.</li>
%% <li>`stderr': `logger' (lines go to the log), `owner' (events `{stderr, Lines}'), `null', or
%% `inherit' (where the node's own goes; only on the path `beam', where it is the default and where
%% `logger' and `owner' cannot be had).</li>
%% <li>`stderr_line_bytes' (4096): what is longer is cut. `stderr_lines_per_s' (100): what goes to
%% the log beyond that, and beyond twice as many at once, is counted and not shown.</li>
%% <li>`stdin_grace_ms' (2000): from the closing of the child's standard input to SIGTERM;
%% `sigterm_grace_ms' (2000): from there to SIGKILL.</li>
%% </ul>
-module(erlmcp_native_child_options).

-export([check/1]).

-export_type([child/0, stderr/0]).

-type stderr() :: logger | owner | null | inherit | default.

-type child() :: #{
    command := binary(),
    args := [binary()],
    env := [{binary(), binary()}],
    cwd := binary(),
    name := binary(),
    stderr := stderr(),
    stderr_line_bytes := pos_integer(),
    stderr_lines_per_s := pos_integer(),
    stdin_grace_ms := non_neg_integer(),
    sigterm_grace_ms := non_neg_integer()
}.
%% `env' is the whole environment, `cwd' absolute, and `command' too if it is a path.

-define(LONGEST_MS, 600000).

%% @doc Checks an endpoint that has a `command'.
-spec check(map()) -> {ok, child()} | {error, erlmcp_native:reason()}.
check(#{command := Command} = Given) ->
    Defaults = #{
        command => Command,
        args => [],
        env => #{},
        cwd => node,
        name => command,
        stderr => default,
        stderr_line_bytes => 4096,
        stderr_lines_per_s => 100,
        stdin_grace_ms => 2000,
        sigterm_grace_ms => 2000
    },
    case maps:to_list(maps:without(maps:keys(Defaults), Given)) of
        [] -> check(maps:to_list(maps:merge(Defaults, Given)), #{});
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end.

check([], Checked) ->
    {ok, named(Checked)};
check([{Key, Value} | Rest], Checked) ->
    case value(Key, Value) of
        {ok, Good} -> check(Rest, Checked#{Key => Good});
        error -> {error, {option, Key, Value}}
    end.

value(command, V) -> command(text(V));
value(args, V) when is_list(V) -> texts(V, []);
value(env, {only, V}) -> environment(#{}, V);
value(env, V) -> environment(maps:from_list([{to_bin(K), to_bin(W)} || {K, W} <- os:env()]), V);
value(cwd, node) -> value(cwd, element(2, {ok, _} = file:get_cwd()));
value(cwd, V) -> absolute(text(V));
value(name, command) -> {ok, command};
value(name, V) -> text(V);
value(stderr, V) -> one_of(V, [logger, owner, null, inherit, default]);
value(stderr_line_bytes, V) -> in(V, 1, 1048576);
value(stderr_lines_per_s, V) -> in(V, 1, 1000000);
value(stdin_grace_ms, V) -> in(V, 0, ?LONGEST_MS);
value(sigterm_grace_ms, V) -> in(V, 0, ?LONGEST_MS);
value(_, _) -> error.

one_of(V, Values) ->
    case lists:member(V, Values) of
        true -> {ok, V};
        false -> error
    end.

in(V, Min, Max) when is_integer(V), V >= Min, V =< Max -> {ok, V};
in(_, _, _) -> error.

named(#{name := command, command := Command} = Checked) ->
    Checked#{name := filename:basename(Command)};
named(Checked) ->
    Checked.

command({ok, <<>>}) ->
    error;
command({ok, Command}) ->
    case binary:match(Command, <<"/">>) of
        nomatch -> {ok, Command};
        _ -> absolute({ok, Command})
    end;
command(error) ->
    error.

absolute({ok, <<>>}) -> error;
absolute({ok, Name}) -> {ok, filename:absname(Name)};
absolute(error) -> error.

texts([], Acc) ->
    {ok, lists:reverse(Acc)};
texts([Value | Rest], Acc) ->
    case text(Value) of
        {ok, Text} -> texts(Rest, [Text | Acc]);
        error -> error
    end;
texts(_, _) ->
    error.

environment(Base, Env) when is_map(Env) ->
    environment(Base, maps:to_list(Env));
environment(Base, []) ->
    {ok, maps:to_list(Base)};
environment(Base, [{Name, Value} | Rest]) ->
    case {variable(text(Name)), Value =:= false orelse text(Value)} of
        {{ok, Key}, true} -> environment(maps:remove(Key, Base), Rest);
        {{ok, Key}, {ok, Text}} -> environment(Base#{Key => Text}, Rest);
        _ -> error
    end;
environment(_, _) ->
    error.

variable({ok, <<>>}) ->
    error;
variable({ok, Name}) ->
    case binary:match(Name, <<"=">>) of
        nomatch -> {ok, Name};
        _ -> error
    end;
variable(error) ->
    error.

%% Binaries are taken as they are: arguments and paths need not be UTF-8.
text(Value) when is_binary(Value) ->
    no_zero(Value);
text(Value) when is_list(Value) ->
    case unicode:characters_to_binary(Value, unicode, file:native_name_encoding()) of
        Text when is_binary(Text) -> no_zero(Text);
        _ -> error
    end;
text(Value) when is_atom(Value) ->
    text(atom_to_list(Value));
text(_) ->
    error.

no_zero(Text) ->
    case binary:match(Text, <<0>>) of
        nomatch -> {ok, Text};
        _ -> error
    end.

to_bin(Chars) ->
    case unicode:characters_to_binary(Chars, unicode, file:native_name_encoding()) of
        Text when is_binary(Text) -> Text;
        _ -> list_to_binary(Chars)
    end.
