%% @doc A plot as SVG: lines with a label at their end, a tick and a unit on each axis, a ring
%% around the knee. Colours are those of the page's style sheet, one class for each path.
-module(erlmcp_native_report_svg).

-export([plot/1, label/1]).

-define(WIDTH, 400).
-define(HEIGHT, 262).
-define(LEFT, 42).
-define(TOP, 26).
-define(BOTTOM, 40).
%% The least distance of two labels.
-define(LINE_HEIGHT, 13).
-define(CHARACTER, 6.3).

%% @doc An SVG element with a title and a description.
-spec plot(erlmcp_native_report:plot()) -> iodata().
plot(#{id := Id, title := Title, x := X, y := Y, lines := Lines} = Plot) ->
    Points = lists:append([Points || #{points := Points} <- Lines]),
    Labels = labels(Lines),
    Frame = #{
        x => erlmcp_native_report_scale:new(scale(X), [PX || [PX, _] <- Points]),
        y => erlmcp_native_report_scale:new(scale(Y), [PY || [_, PY] <- Points]),
        right => ?WIDTH - 10 - ceil(?CHARACTER * lists:max([0 | [width(L) || {_, L} <- Labels]]))
    },
    [
        io_lib:format("<svg viewBox=\"0 0 ~b ~b\" role=\"img\" aria-labelledby=\"~s-t ~s-d\">", [
            ?WIDTH, ?HEIGHT, Id, Id
        ]),
        ["<title id=\"", Id, "-t\">", text(Title), "</title>"],
        ["<desc id=\"", Id, "-d\">", text(description(Plot)), "</desc>"],
        y_axis(Y, Frame),
        x_axis(X, Frame),
        [line(Line, Plot, Frame) || Line <- Lines],
        end_labels(Labels, Frame),
        "</svg>"
    ].

scale(Axis) -> maps:get(scale, Axis, linear).

%% What somebody who does not see the plot is told: where each line begins, ends and bends.
description(#{x := X, y := Y, lines := Lines}) ->
    lists:join("; ", [described(Line, X, Y) || Line <- Lines]).

described(#{points := []} = Line, _, _) ->
    [label(Line), ": no points"];
described(#{points := Points} = Line, #{label := XLabel} = X, Y) ->
    [X1, Y1] = hd(Points),
    [X2, Y2] = lists:last(Points),
    Knee =
        case maps:get(knee, Line, null) of
            [KX, _] -> [", knee at ", value(KX, X)];
            null -> []
        end,
    [label(Line), ": ", value(Y1, Y), " at ", value(X1, X), " ", XLabel, ", ", value(Y2, Y),
        " at ", value(X2, X), Knee].

value(Value, #{unit := Unit}) -> erlmcp_native_report_number:text(Value, Unit).

%% @doc What a line is called.
-spec label(erlmcp_native_report:line()) -> binary().
label(#{label := <<"erlmcp05">>}) -> <<"erlmcp 0.5">>;
label(#{label := Label}) -> Label.

y_axis(#{label := Label, unit := Unit}, #{y := Scale, right := Right} = Frame) ->
    [
        [
            [
                io_lib:format("<line class=grid x1=~b x2=~b y1=~s y2=~s />", [
                    ?LEFT, Right, y(Tick, Frame), y(Tick, Frame)
                ]),
                io_lib:format("<text class=tick x=~b y=~s text-anchor=end dy=4>~s</text>", [
                    ?LEFT - 6, y(Tick, Frame), erlmcp_native_report_number:short(Tick)
                ])
            ]
         || Tick <- erlmcp_native_report_scale:ticks(5, Scale)
        ],
        io_lib:format("<text class=axis x=4 y=12>~ts</text>", [text(axis(Label, Unit))])
    ].

x_axis(#{label := Label, unit := Unit}, #{x := Scale, right := Right} = Frame) ->
    Base = ?HEIGHT - ?BOTTOM,
    [
        io_lib:format("<line class=base x1=~b x2=~b y1=~b y2=~b />", [?LEFT, Right, Base, Base]),
        [
            io_lib:format("<text class=tick x=~s y=~b text-anchor=middle>~s</text>", [
                x(Tick, Frame), Base + 15, erlmcp_native_report_number:short(Tick)
            ])
         || Tick <- erlmcp_native_report_scale:ticks(5, Scale)
        ],
        io_lib:format("<text class=axis x=~s y=~b text-anchor=middle>~ts</text>", [
            number((?LEFT + Right) / 2), ?HEIGHT - 8, text(axis(Label, Unit))
        ])
    ].

axis(Label, <<>>) -> Label;
axis(Label, Unit) when Label =:= Unit -> erlmcp_native_report_number:unit(Unit);
axis(Label, Unit) -> [Label, ", ", erlmcp_native_report_number:unit(Unit)].

line(#{points := []}, _, _) ->
    [];
line(#{points := Points, path := Path} = Line, #{x := X, y := Y}, Frame) ->
    [
        io_lib:format("<polyline class=\"line p-~s\" points=\"~s\" />", [
            Path, lists:join(" ", [[x(PX, Frame), ",", y(PY, Frame)] || [PX, PY] <- Points])
        ]),
        [dot(Point, Line, X, Y, Frame) || length(Points) =< 40, Point <- Points],
        knee(maps:get(knee, Line, null), Line, X, Frame)
    ].

%% The circle that one sees is smaller than the one that the pointer finds.
dot([PX, PY], #{path := Path} = Line, X, Y, Frame) ->
    io_lib:format(
        "<g class=\"dot p-~s\"><circle cx=~s cy=~s r=2.6 /><circle class=hit cx=~s cy=~s r=9 >"
        "<title>~ts</title></circle></g>",
        [
            Path, x(PX, Frame), y(PY, Frame), x(PX, Frame), y(PY, Frame),
            text([label(Line), ": ", value(PY, Y), " at ", value(PX, X)])
        ]
    ).

knee(null, _, _, _) ->
    [];
knee([PX, PY], #{path := Path}, X, #{right := Right} = Frame) ->
    Left = place(x, PX, Frame) < (?LEFT + Right) / 2,
    {Anchor, Shift} =
        case Left of
            true -> {"start", 8};
            false -> {"end", -8}
        end,
    io_lib:format(
        "<g class=\"knee p-~s\"><circle cx=~s cy=~s r=6 />"
        "<text x=~s y=~s dx=~b dy=14 text-anchor=~s>knee ~ts</text></g>",
        [Path, x(PX, Frame), y(PY, Frame), x(PX, Frame), y(PY, Frame), Shift, Anchor, value(PX, X)]
    ).

%% One label for each line, at its last point.
labels(Lines) ->
    [{Line, label(Line)} || #{points := [_ | _]} = Line <- Lines].

end_labels(Labels, #{right := Right} = Frame) ->
    Placed = [
        {place(y, lists:last(lists:last(Points)), Frame), Path, Label}
     || {#{points := Points, path := Path}, Label} <- Labels
    ],
    [
        io_lib:format("<text class=\"end p-~s\" x=~b y=~s dy=4>~ts</text>", [
            Path, Right + 6, number(Y), text(Label)
        ])
     || {Y, Path, Label} <- apart(lists:sort(Placed))
    ].

%% Pushes labels down that lie on one another, and up again those that left the plot by it.
apart(Labels) ->
    Down = push(Labels, -1000.0, 1),
    Low = [{min(Y, ?HEIGHT - ?BOTTOM + 4.0), Path, Label} || {Y, Path, Label} <- Down],
    lists:reverse(push(lists:reverse(Low), 1000.0, -1)).

push([], _, _) ->
    [];
push([{Y, Path, Label} | Labels], Last, Direction) ->
    Free = Last + Direction * ?LINE_HEIGHT,
    Next =
        case Direction of
            1 -> max(Y, Free);
            -1 -> min(Y, Free)
        end,
    [{Next, Path, Label} | push(Labels, Next, Direction)].

x(Value, Frame) -> number(place(x, Value, Frame)).
y(Value, Frame) -> number(place(y, Value, Frame)).

place(x, Value, #{x := Scale, right := Right}) ->
    ?LEFT + erlmcp_native_report_scale:at(Value, Scale) * (Right - ?LEFT);
place(y, Value, #{y := Scale}) ->
    Height = ?HEIGHT - ?BOTTOM - ?TOP,
    ?TOP + (1 - erlmcp_native_report_scale:at(Value, Scale)) * Height.

number(Value) -> float_to_list(float(Value), [{decimals, 1}]).

width(Label) -> string:length(Label).

text(Text) -> erlmcp_native_report_html:escape(Text).
