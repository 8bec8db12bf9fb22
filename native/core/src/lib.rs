//! Transport core of erlmcp_native: framing, buffering and socket I/O without any BEAM types.
