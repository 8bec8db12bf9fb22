%% @doc The table of docs/metrics.md, made from the declarations.
-module(metrics_page).

-export([table/0, written/1, write/1]).

-define(BEGIN, <<"<!-- This table is made by test/metrics_SUITE.erl. -->\n">>).
-define(END, <<"<!-- The end of the table. -->\n">>).

%% @doc The table as it has to be; the core has to be loaded.
table() ->
    Families = erlmcp_native_metrics_core:families(),
    Core = maps:from_list([{Name, Family} || #{name := Name} = Family <- Families]),
    Declared = maps:map(fun(_, Declaration) -> declared(Declaration) end, declared()),
    All = lists:sort([
        {Group, Name, Family}
     || #{group := Group, name := Name} = Family <- maps:values(maps:merge(Declared, Core))
    ]),
    iolist_to_binary([
        "| group | name | kind | unit | labels | |\n|---|---|---|---|---|---|\n"
        | [row(Group, Name, Family) || {Group, Name, Family} <- All]
    ]).

%% What the tests declare is none of ours.
declared() ->
    maps:filter(
        fun(_, #{group := Group}) -> Group =/= metrics_test end, erlmcp_native_metrics:declared()
    ).

declared(#{labels := Labels} = Declaration) ->
    Declaration#{labels := [Label || {Label, _} <- Labels]}.

row(Group, Name, #{kind := Kind, unit := Unit, labels := Labels, help := Help}) ->
    Cells = [atom_to_binary(Group), code(Name), atom_to_binary(Kind), unit(Unit),
        lists:join(", ", [code(Label) || Label <- Labels]), Help],
    [[["| ", Cell, " "] || Cell <- Cells], "|\n"].

unit(none) -> <<>>;
unit(Unit) -> atom_to_binary(Unit).

code(Name) -> [$`, atom_to_binary(Name), $`].

%% @doc The table that is in the page.
written(File) ->
    {_, Table, _} = parts(File),
    Table.

%% @doc Puts the table into the page.
write(File) ->
    {Before, _, After} = parts(File),
    ok = file:write_file(File, [Before, ?BEGIN, table(), ?END, After]).

parts(File) ->
    {ok, Text} = file:read_file(File),
    [Before, Rest] = binary:split(Text, ?BEGIN),
    [Table, After] = binary:split(Rest, ?END),
    {Before, Table, After}.
