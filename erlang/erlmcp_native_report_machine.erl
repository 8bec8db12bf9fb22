%% @doc The machine and the versions that a report was made with.
-module(erlmcp_native_report_machine).

-export([machine/0, versions/0, paths/0]).

%% @doc Processor, cores, memory and operating system, as far as these can be found out.
-spec machine() -> map().
machine() ->
    #{
        cpu => field("/proc/cpuinfo", "model name\\s*: (.*)", <<"unknown processor">>),
        cores => erlang:system_info(schedulers_online),
        memory_bytes => memory(field("/proc/meminfo", "MemTotal: +([0-9]+)", null)),
        system => system(os:type(), os:version())
    }.

memory(null) -> null;
memory(KiB) -> binary_to_integer(KiB) * 1024.

system({_, Name}, {Major, Minor, Release}) ->
    iolist_to_binary(io_lib:format("~s ~b.~b.~b", [Name, Major, Minor, Release]));
system({_, Name}, Version) ->
    iolist_to_binary(io_lib:format("~s ~ts", [Name, Version])).

field(File, Pattern, Default) ->
    case file:read_file(File) of
        {ok, Text} -> found(re:run(Text, Pattern, [{capture, [1], binary}]), Default);
        {error, _} -> Default
    end.

found({match, [Value]}, _) -> Value;
found(nomatch, Default) -> Default.

%% @doc Of OTP and of the applications that count.
-spec versions() -> #{atom() => binary()}.
versions() ->
    _ = application:load(erlmcp_native),
    maps:from_list(
        [{otp, otp()}] ++
            [
                {Application, list_to_binary(Version)}
             || Application <- [erlmcp_native, jsx],
                {ok, Version} <- [application:get_key(Application, vsn)]
            ]
    ).

otp() ->
    Release = erlang:system_info(otp_release),
    File = filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"]),
    case file:read_file(File) of
        {ok, Version} -> string:trim(Version);
        {error, _} -> list_to_binary(Release)
    end.

%% @doc The paths that can be had here.
-spec paths() -> [erlmcp_native_path:path(), ...].
paths() ->
    case [Path || Path <- [nif, port, beam], is_there(Path)] of
        [] -> [erlmcp_native_path:default()];
        Paths -> Paths
    end.

%% In pure Erlang JSON may be missing.
is_there(beam) -> element(1, erlmcp_native_json_beam:codec()) =:= ok;
is_there(Path) -> element(1, erlmcp_native_path:use(Path)) =:= ok.
