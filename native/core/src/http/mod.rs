//! HTTP on hyper.

pub mod client;
pub mod server;

pub use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, request};
pub use server::{
    Body, Claim, Event, Exchange, Notice, OnGone, Options, Owner, Receiver, Request, Server,
};
