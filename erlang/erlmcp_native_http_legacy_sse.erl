-module(erlmcp_native_http_legacy_sse).
-export([serve/1]).
serve(_) -> ok.
