//! The sink over a real socket, with a source made by hand.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// A source that says what it was told to.
#[derive(Default)]
struct Fake {
    not_ready: Mutex<Option<String>>,
    broken: bool,
}

impl Source for Fake {
    fn report(&self) -> anyhow::Result<Report> {
        anyhow::ensure!(!self.broken, "map is gone");
        Ok(Report::default())
    }

    fn ready(&self) -> Result<(), String> {
        self.not_ready.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

async fn start(source: Arc<Fake>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(run(listener, source, async { stopped.await.unwrap_or(()) }));
    Server { addr, stop, task }
}

/// Sends `request` and its blank line; the whole answer.
async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("{request}\r\nHost: probe\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn each_path_has_its_answer() {
    let server = start(Arc::default()).await;
    for (request, status, body) in [
        ("GET / HTTP/1.1", "200 OK", "<a href=\"/metrics\">"),
        ("GET /healthz HTTP/1.1", "200 OK", "\r\n\r\nok\n"),
        ("GET /readyz HTTP/1.1", "200 OK", "\r\n\r\nready\n"),
        ("GET /metrics HTTP/1.1", "200 OK", "termite_probe_ready 1\n"),
        ("HEAD /metrics HTTP/1.1", "200 OK", "\r\n\r\n"),
        ("GET /metrics/x HTTP/1.1", "404 Not Found", "not found: see /\n"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed", ""),
        ("DELETE /healthz HTTP/1.1", "405 Method Not Allowed", ""),
    ] {
        let answer = ask(server.addr, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        assert!(answer.contains(body), "{request}: {answer}");
    }
}

#[tokio::test]
async fn the_client_chooses_the_format() {
    let server = start(Arc::default()).await;
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, content_type, ended) in [
        (prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", false),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4; charset=utf-8", false),
    ] {
        let answer = ask(server.addr, &format!("GET /metrics HTTP/1.1\r\nAccept: {accept}")).await;
        assert!(answer.contains(&format!("content-type: {content_type}\r\n")), "{answer}");
        assert_eq!(answer.ends_with("# EOF\n"), ended, "{accept}");
    }
}

#[tokio::test]
async fn readiness_says_why_not() {
    let source = Arc::new(Fake::default());
    *source.not_ready.lock().unwrap() = Some("no hook for arrivals".to_owned());
    let server = start(source.clone()).await;
    let answer = ask(server.addr, "GET /readyz HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready: no hook for arrivals\n"), "{answer}");
    let metrics = ask(server.addr, "GET /metrics HTTP/1.1").await;
    assert!(metrics.contains("\ntermite_probe_ready 0\n"), "{metrics}");
    *source.not_ready.lock().unwrap() = None;
    assert!(ask(server.addr, "GET /readyz HTTP/1.1").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_failed_report_is_no_empty_page() {
    let source = Fake { broken: true, ..Fake::default() };
    let server = start(Arc::new(source)).await;
    let answer = ask(server.addr, "GET /metrics HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.ends_with("cannot report: map is gone\n"), "{answer}");
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let server = start(Arc::default()).await;
    let request = "POST /metrics HTTP/1.1\r\nContent-Length: 1000000000";
    assert!(ask(server.addr, request).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test(start_paused = true)]
async fn silent_clients_make_room() {
    let server = start(Arc::default()).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    // The clock is the test's: it jumps to the next deadline as soon as everybody waits.
    assert!(ask(server.addr, "GET /healthz HTTP/1.1").await.ends_with("ok\n"));
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn it_ends_when_told_and_frees_the_port() {
    let server = start(Arc::default()).await;
    let _idle = TcpStream::connect(server.addr).await.unwrap();
    assert!(ask(server.addr, "GET /healthz HTTP/1.1").await.ends_with("ok\n"));
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
}
