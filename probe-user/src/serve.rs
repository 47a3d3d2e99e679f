//! The HTTP sink: a [`Source`] of reports in, answers on /metrics, /healthz and /readyz out.
//!
//! Invariants: at most [`CONNECTIONS`] at a time, each one request long and none longer than
//! [`EXCHANGE`]; no request body is read; a request changes nothing. Deliberately absent: TLS and
//! authentication (bind to loopback, or put a proxy in front), measuring, and any choice of what to show.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::metrics::process::Process;
use crate::metrics::{self, Format, Probe};
use crate::model::Report;

/// Connections at a time; more wait in the backlog of the socket.
const CONNECTIONS: usize = 32;
/// A client has this long to send its request.
const HEAD: Duration = Duration::from_secs(5);
/// A connection lives no longer than this: Prometheus' default scrape timeout.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Answers under way at the end have this long.
const GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "<!doctype html><title>termite-probe</title><h1>termite-probe</h1>\
<p>Per-follower proposal delay of a Termite ensemble, measured in the kernel.</p><ul>\
<li><a href=\"/metrics\">/metrics</a> OpenMetrics or Prometheus text</li>\
<li><a href=\"/healthz\">/healthz</a> the process lives</li>\
<li><a href=\"/readyz\">/readyz</a> it measures</li></ul>\n";

/// Where the answers come from.
pub(crate) trait Source: Send + Sync {
    /// Everything at this moment. Called for each scrape on the runtime's thread: it reads maps, it does
    /// not wait.
    ///
    /// # Errors
    /// When the kernel side cannot be read.
    fn report(&self) -> anyhow::Result<Report>;

    /// Whether the probe measures what it was asked to.
    ///
    /// # Errors
    /// Why it does not.
    fn ready(&self) -> Result<(), String>;
}

/// Answers requests on `listener` until `shutdown` completes.
///
/// # Errors
/// None yet: a connection that fails ends alone.
pub(crate) async fn run(
    listener: TcpListener,
    source: Arc<dyn Source>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let router = router(source);
    let mut open = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => { open.spawn(exchange(stream, router.clone())); }
                Err(error) if is_of_the_peer(&error) => {}
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    let rest = async { while open.join_next().await.is_some() {} };
    let _late = timeout(GRACE, rest).await; // dropping the set ends the others
    Ok(())
}

/// The connection was gone before it was accepted: no reason to pause.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// One request and its answer. Errors are the client's own: there is nobody to tell.
async fn exchange(stream: TcpStream, router: Router) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ended = timeout(EXCHANGE, connection).await;
}

fn router(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(serve_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(serve_readiness))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found: see /\n") })
        .with_state(source)
}

async fn serve_metrics(State(source): State<Arc<dyn Source>>, headers: HeaderMap) -> Response {
    let format = wanted_format(&headers);
    let probe = Probe { ready: source.ready().is_ok(), process: Process::read() };
    let text = source.report().and_then(|report| Ok(metrics::encode(&report, probe, format)?));
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot report: {error:#}\n")).into_response()
        }
    }
}

async fn serve_readiness(State(source): State<Arc<dyn Source>>) -> Response {
    match source.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

/// OpenMetrics for who asks for it; the older format for the rest, such as `curl` and `promtool`.
fn wanted_format(headers: &HeaderMap) -> Format {
    let asked = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next() == Some("application/openmetrics-text") && parts.all(|p| p != "q=0" && p != "q=0.0")
        });
    if asked { Format::OpenMetrics } else { Format::Classic }
}

#[cfg(test)]
mod tests;
