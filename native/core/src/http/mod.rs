//! HTTP on hyper.

mod server_body;
mod server_check;
mod server_connection;
mod server_exchange;
mod server_io;
mod server_service;
mod server_stream;

pub mod client;
pub mod server;

pub use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, request};
pub use server::{Claim, Event, Options, Owner, Server};
pub use server_exchange::{Body, Exchange, Notice, OnGone, Receiver, Request};
