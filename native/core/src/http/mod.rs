//! HTTP on hyper.
