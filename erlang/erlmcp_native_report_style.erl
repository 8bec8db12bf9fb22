%% @doc The style sheet of a report: light and dark, from the width of a phone on, no font and no
%% picture from elsewhere.
-module(erlmcp_native_report_style).

-export([css/0]).

-spec css() -> iodata().
css() ->
    [colours(), page(), rows(), findings(), plots(), narrow()].

%% Each path has one colour, in both schemes at 4.5 to 1 or more against the background.
colours() ->
    ":root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#191a1c;--soft:#5a5f66;"
    "--rule:#e4e4e1;--grid:#ececea;--good:#0a7a3d;--bad:#b42318;--tint:#f3f3f0;"
    "--nif:#1d5fd1;--port:#0b7f79;--beam:#a04b00;--erlmcp05:#6b6f76;--all:#6d3fc4}"
    "@media(prefers-color-scheme:dark){:root{--bg:#121315;--card:#1a1c1f;--ink:#ececea;"
    "--soft:#a2a7af;--rule:#2c2f33;--grid:#26292d;--good:#4cc38a;--bad:#ff8a7a;--tint:#202327;"
    "--nif:#7fb0ff;--port:#4fd1c5;--beam:#f2a65a;--erlmcp05:#a3a8b0;--all:#bda2ff}}"
    ".p-nif{--c:var(--nif)}.p-port{--c:var(--port)}.p-beam{--c:var(--beam)}"
    ".p-erlmcp05{--c:var(--erlmcp05)}.p-all{--c:var(--all)}".

page() ->
    "*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}"
    "body{margin:0;background:var(--bg);color:var(--ink);"
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;"
    "font-variant-numeric:tabular-nums;overflow-wrap:break-word}"
    "main{max-width:1320px;margin:0 auto;padding:40px 32px 64px}"
    "h1{font-size:34px;line-height:1.15;letter-spacing:-.02em;margin:0 0 8px;font-weight:680}"
    "h2{font-size:21px;letter-spacing:-.01em;margin:56px 0 4px;font-weight:650}"
    "h3{font-size:15px;margin:28px 0 6px;font-weight:650}"
    "p{margin:6px 0;max-width:70ch}.soft{color:var(--soft)}"
    ".lead{font-size:19px}.facts{font-size:14px;color:var(--soft);margin-top:12px}"
    "code{font:0.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
    "background:var(--tint);padding:1px 5px;border-radius:4px}"
    "a{color:inherit}.legend{display:flex;flex-wrap:wrap;gap:6px 20px;font-size:14px;"
    "margin:20px 0 0;padding:0;list-style:none}"
    ".legend li::before{content:'';display:inline-block;width:9px;height:9px;"
    "border-radius:50%;background:var(--c);margin-right:7px}"
    "footer{margin-top:64px;font-size:14px;color:var(--soft)}".

rows() ->
    "table{border-collapse:collapse;width:100%;font-size:15px}"
    "th,td{text-align:left;padding:9px 12px 9px 0;border-bottom:1px solid var(--rule);"
    "vertical-align:top}th{font-weight:500;color:var(--soft);font-size:13px}"
    "td.n,th.n{text-align:right;white-space:nowrap}"
    ".rows{table-layout:fixed}.rows th:first-child{width:31%}.rows th:nth-child(2){width:16%}"
    ".rows td.strip{padding-right:22px}.rows th:last-child{width:9.5%}"
    ".what small,.n small{display:block;color:var(--soft);font-size:13px;line-height:1.35}"
    ".v.p-nif{font-weight:650}.n small{font-weight:400}"
    ".s{position:relative;height:24px;display:block;border-bottom:1px solid var(--rule)}"
    ".s i{position:absolute;bottom:-5px;width:9px;height:9px;margin-left:-4.5px;border-radius:50%;"
    "background:var(--c);border:1px solid var(--card)}"
    ".s b{position:absolute;bottom:-7px;height:22px;width:0;border-left:2px solid var(--ink);"
    "margin-left:-1px}"
    ".ok{color:var(--good)}.no{color:var(--bad)}.mark{font-weight:650;white-space:nowrap}".

findings() ->
    ".finding{background:var(--card);border:1px solid var(--rule);border-radius:10px;"
    "padding:16px 20px;margin:12px 0}.finding h3{margin:0 0 4px}"
    ".finding dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:8px 0 0;"
    "font-size:14px}.finding dt{color:var(--soft)}.finding dd{margin:0;min-width:0}"
    ".tag{display:inline-block;font-size:12px;font-weight:650;letter-spacing:.02em;"
    "border:1px solid currentColor;border-radius:99px;padding:1px 9px;margin-right:8px}"
    ".critical,.high{color:var(--bad)}.medium{color:var(--beam)}.low{color:var(--soft)}".

plots() ->
    ".plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));"
    "gap:20px;margin-top:16px}"
    "figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:10px;"
    "padding:16px 16px 10px;min-width:0}"
    "figcaption{font-weight:650;font-size:15px;margin-bottom:8px;line-height:1.3}"
    "svg{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,'Segoe UI',Roboto,"
    "'Helvetica Neue',Arial,sans-serif;overflow:visible}"
    ".grid{stroke:var(--grid)}.base{stroke:var(--soft)}"
    ".tick,.axis{fill:var(--soft);font-size:11px}.axis{font-size:11.5px}"
    ".line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".dot circle{fill:var(--c)}.dot .hit{fill:transparent}.dot:hover circle:first-child{r:4.5}"
    ".end{fill:var(--c);font-weight:600}"
    ".knee circle{fill:none;stroke:var(--c);stroke-width:1.8}"
    ".knee text{fill:var(--c);font-size:11.5px}"
    ".p-erlmcp05.line{stroke-dasharray:5 4}"
    "details{font-size:13px;margin-top:6px;color:var(--soft)}summary{cursor:pointer;padding:4px 0}"
    ".scroll{overflow-x:auto}details table{font-size:13px}"
    "details td,details th{padding:4px 8px 4px 0}".

%% A row of the table becomes a card, each cell with its column's name.
narrow() ->
    "@media(max-width:820px){main{padding:24px 16px 48px}h1{font-size:27px}"
    "h2{margin-top:40px}.lead{font-size:17px}"
    ".rows thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}"
    ".rows,.rows tbody{display:block}"
    ".rows tr{display:grid;grid-template-columns:1fr 1fr;gap:2px 16px;padding:12px 0;"
    "border-bottom:1px solid var(--rule)}"
    ".rows td{border:0;padding:1px 0;min-width:0}.rows td.what{width:auto;grid-column:1/-1;"
    "font-weight:650}.rows td.what small{font-weight:400}"
    ".rows td.strip{grid-column:1/-1;width:auto;padding:0 6px 8px}"
    ".rows td.n{text-align:left;white-space:normal;display:flex;gap:8px;align-items:baseline;"
    "justify-content:space-between}"
    ".rows td.n::before{content:attr(data-c);color:var(--c,var(--soft));font-size:14px}"
    ".rows td.n small{display:none}"
    ".finding{padding:14px 16px}.finding dl{grid-template-columns:1fr;gap:0}"
    ".finding dt{margin-top:6px}}".
