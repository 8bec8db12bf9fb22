//! An MCP server on the official Rust SDK, for the tests of our HTTP client and as a yardstick.
//!
//! `rmcp_server [--stateless] [--json] [--port PORT]` serves `/mcp` on a loopback port, says
//! `listening PORT` and ends with its standard input. `--stateless`: no sessions. `--json`: answers
//! in JSON where nothing comes before them. `rmcp_server --stdio` serves its standard input and
//! output.

use std::{io, time::Duration};

use axum::{Router, serve::ListenerExt};
use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler, ServiceExt,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{ProgressNotificationParam, RequestMetaObject, ServerCapabilities, ServerConfig},
    schemars, tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::{io::AsyncReadExt, net::TcpListener};

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    message: String,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: i64,
    b: i64,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Large {
    bytes: usize,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Progress {
    steps: u32,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Sleep {
    ms: u64,
}

#[derive(Clone)]
struct Server {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Server {
    fn new() -> Self {
        Self {
            tool_router: Self::tool_router(),
        }
    }

    #[tool(description = "Returns the message")]
    async fn echo(&self, Parameters(Echo { message }): Parameters<Echo>) -> String {
        message
    }

    #[tool(description = "Adds two integers")]
    async fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> String {
        a.wrapping_add(b).to_string()
    }

    #[tool(description = "Returns so many bytes of text")]
    async fn large(&self, Parameters(Large { bytes }): Parameters<Large>) -> String {
        "x".repeat(bytes.min(64 << 20))
    }

    #[tool(description = "Reports progress so many times")]
    async fn progress(
        &self,
        Parameters(Progress { steps }): Parameters<Progress>,
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
    ) -> Result<String, ErrorData> {
        if let Some(token) = meta.get_progress_token() {
            for step in 1..=steps {
                let notice = ProgressNotificationParam::new(token.clone(), f64::from(step))
                    .with_total(f64::from(steps));
                client
                    .notify_progress(notice)
                    .await
                    .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            }
        }
        Ok("done".into())
    }

    #[tool(description = "Answers after so many milliseconds")]
    async fn sleep(&self, Parameters(Sleep { ms }): Parameters<Sleep>) -> String {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        "slept".into()
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut config = StreamableHttpServerConfig::default();
    let mut port = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--stateless" => config.legacy_session_mode = false,
            "--json" => config.json_response = true,
            "--port" => {
                let number = arguments.next().unwrap_or_default();
                port = number.parse().map_err(io::Error::other)?;
            }
            "--stdio" => return serve_stdio().await,
            _ => return Err(io::Error::other(format!("what is {argument}?"))),
        }
    }
    let service: StreamableHttpService<Server, LocalSessionManager> =
        StreamableHttpService::new(|| Ok(Server::new()), Default::default(), config);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening {}", listener.local_addr()?.port());
    // axum leaves it off, and half of the time then goes into waiting for acknowledgements.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, Router::new().nest_service("/mcp", service));
    tokio::select! {
        ended = server.into_future() => ended,
        _ = end_of_input() => Ok(()),
    }
}

async fn serve_stdio() -> io::Result<()> {
    let running = Server::new()
        .serve(rmcp::transport::stdio())
        .await
        .map_err(io::Error::other)?;
    running.waiting().await.map_err(io::Error::other)?;
    Ok(())
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 64];
    while let Ok(1..) = input.read(&mut bytes).await {}
}
