%% A client that is used at random against a server that behaves at random, while what the contract
%% says of notices and of the end of requests is checked.
-module(http_client_chaos).

-export([run/3, serve/1]).

-define(WAIT, 20000).

-record(run, {
    module :: module(),
    client :: term(),
    %% Requests that are not over, and whether a notice of each was told and not answered yet.
    live = #{} :: #{term() => boolean()},
    ended = 0 :: non_neg_integer()
}).

%% Does so many things at random; then lets all requests come to their end. Returns how many did,
%% and the client.
run(Module, Client, Steps) ->
    finish(steps(Steps, #run{module = Module, client = Client})).

%% What the server does on a connection.
serve(Conn) ->
    case http_peers:request(Conn) of
        closed -> ok;
        _ -> serve(rand:uniform(12), Conn)
    end.

serve(1, Conn) ->
    http_peers:close(Conn);
serve(2, Conn) ->
    try
        http_peers:reset(Conn)
    catch
        %% The other side was faster.
        error:_ -> ok
    end;
serve(3, Conn) ->
    http_peers:drain(Conn);
serve(4, Conn) ->
    _ = http_peers:send(Conn, "garbage\r\n\r\n"),
    serve(Conn);
serve(5, Conn) ->
    _ = http_peers:send(Conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
    http_peers:close(Conn);
serve(6, Conn) ->
    _ = http_peers:send(Conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhalfAND MORE"),
    serve(Conn);
serve(7, Conn) ->
    http_peers:send(Conn, ["HTTP/1.1 200 OK\r\n\r\n", rand:bytes(rand:uniform(300000))]);
serve(8, Conn) ->
    _ = http_peers:answer(Conn, {200, <<"and no more">>}),
    http_peers:close(Conn);
serve(9, Conn) ->
    Head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    _ = http_peers:send(Conn, [Head, "5\r\nhello\r\n"]),
    receive
    after rand:uniform(50) -> http_peers:send(Conn, "0\r\n\r\n")
    end,
    serve(Conn);
serve(_, Conn) ->
    _ = http_peers:answer(Conn, {200, rand:bytes(rand:uniform(300000))}),
    serve(Conn).

steps(0, R) -> R;
steps(N, R) -> steps(N - 1, step(rand:uniform(10), R)).

step(N, R) when N =< 3 ->
    request(R);
step(4, R) ->
    with_one(fun cancel/2, R);
step(N, R) when N =< 6 ->
    with_one(fun take/2, R);
step(_, R) ->
    receive
        Msg -> heard(Msg, R)
    after rand:uniform(3) - 1 -> R
    end.

request(#run{module = Module, client = Client0, live = Live} = R) ->
    Request = #{
        method => one_of([<<"GET">>, <<"POST">>, <<"HEAD">>]),
        target => <<"/">>,
        headers => [],
        body => one_of([none, <<"x">>, binary:copy(<<"y">>, rand:uniform(200000))]),
        timeout_ms => 50 + rand:uniform(300),
        total_timeout_ms => 500
    },
    case Module:request(Request, Client0) of
        {ok, Id, Client} -> R#run{client = Client, live = Live#{Id => false}};
        {error, busy, Client} -> R#run{client = Client}
    end.

one_of(List) -> lists:nth(rand:uniform(length(List)), List).

with_one(_, #run{live = Live} = R) when map_size(Live) =:= 0 -> R;
with_one(Do, #run{live = Live} = R) -> Do(one_of(maps:keys(Live)), R).

cancel(Id, #run{module = Module, client = Client} = R) ->
    over(Id, R#run{client = Module:cancel(Id, Client)}).

take(Id, #run{module = Module, client = Client0, live = Live} = R) ->
    {Parts, Status, Client} = Module:take(Id, rand:uniform(100000), Client0),
    true = lists:all(fun(Part) -> byte_size(Part) > 0 end, Parts),
    case Status of
        more -> take(Id, R#run{client = Client});
        armed -> R#run{client = Client, live = Live#{Id := false}};
        done -> over(Id, R#run{client = Client});
        {failed, #{reason := _, safe := _}} -> over(Id, R#run{client = Client})
    end.

over(Id, #run{live = Live, ended = Ended} = R) ->
    R#run{live = maps:remove(Id, Live), ended = Ended + 1}.

heard({peer, _, _}, R) ->
    R;
heard(Msg, #run{module = Module, client = Client0} = R) ->
    case Module:handle_info(Msg, Client0) of
        {Events, Client} -> lists:foldl(fun event/2, R#run{client = Client}, Events);
        unknown -> R
    end.

%% An event is of a request that is not over, and a notice comes once.
event({head, Id, Status, _}, #run{live = Live} = R) when Status >= 200 ->
    true = is_map_key(Id, Live),
    R;
event({readable, Id}, #run{live = Live} = R) ->
    #{Id := false} = Live,
    R#run{live = Live#{Id := true}};
event({failed, Id, #{reason := _, safe := _}}, #run{live = Live} = R) ->
    #{Id := false} = Live,
    over(Id, R).

finish(#run{live = Live, ended = Ended, client = Client}) when map_size(Live) =:= 0 ->
    {Ended, Client};
finish(R0) ->
    R = lists:foldl(fun take/2, R0, maps:keys(R0#run.live)),
    case map_size(R#run.live) of
        0 ->
            finish(R);
        _ ->
            receive
                Msg -> finish(heard(Msg, R))
            after ?WAIT -> error({stuck, R})
            end
    end.
