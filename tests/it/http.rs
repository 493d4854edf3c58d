//! The worker's own HTTP server as a scraper, an orchestrator and an attacker see it.

use std::net::SocketAddr;
use std::sync::Arc;

use lanes::http::Server;
use lanes::http::status::{Sources, router};
use lanes::telemetry::Telemetry;
use lanes::telemetry::health::Health;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    health: Health,
    telemetry: Telemetry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(listen: &str) -> Running {
    let server = Server::bind(listen.parse().expect("an address")).await.expect("a free port");
    let (telemetry, handle) = Telemetry::prometheus();
    let health = Health::expecting(["broker", "store", "lane bulk"]);
    let sources = Sources { metrics: Arc::new(move || handle.render()), health: health.clone() };
    let (address, stop) = (server.address(), CancellationToken::new());
    let task = tokio::spawn(server.run(router(sources), stop.clone()));
    Running { address, health, telemetry, stop, task }
}

/// Sends one request as written, answers the head in lower case and the body.
async fn send(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn probes_and_metrics() {
    let server = start("127.0.0.1:0").await;
    let (head, body) = get(server.address, "/healthz").await;
    assert!(head.starts_with("http/1.1 200") && body == "ok\n", "{head}");
    assert!(head.contains("x-content-type-options: nosniff") && head.contains("cache-control: no-store"), "{head}");

    server.telemetry.broker_connected(true);
    let (head, body) = get(server.address, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nlanes_broker_connected 1\n"), "{body}");

    let (_, index) = get(server.address, "/").await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(index.contains(path), "{index}");
    }
    assert!(get(server.address, "/nothing").await.0.starts_with("http/1.1 404"));
    let post = "POST /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert!(send(server.address, post).await.0.starts_with("http/1.1 405"));
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let server = start("127.0.0.1:0").await;
    let (head, body) = get(server.address, "/readyz").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["components"]["lane bulk"]["why"], "starting");

    for component in ["broker", "store", "lane bulk"] {
        assert!(!server.health.is_ready());
        server.health.set(component, Ok(()));
    }
    assert!(server.health.is_ready());
    let (head, body) = get(server.address, "/readyz").await;
    assert!(head.starts_with("http/1.1 200") && body.contains(r#""ready":true"#), "{head} {body}");

    server.health.set("store", Err("store db.example: connection refused".to_owned()));
    let (head, body) = get(server.address, "/readyz").await;
    assert!(head.starts_with("http/1.1 503") && body.contains("db.example: connection refused"), "{head} {body}");
    server.health.remove("store");
    assert!(server.health.is_ready());
    assert!(!Health::default().is_ready());
}

#[tokio::test]
async fn foreign_hosts_are_turned_away_from_loopback() {
    let server = start("127.0.0.1:0").await;
    let port = server.address.port();
    for (request, status) in [
        (format!("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"), "200"),
        (format!("GET /metrics HTTP/1.1\r\nhost: localhost:{port}\r\n"), "200"),
        (format!("GET /metrics HTTP/1.1\r\nhost: [::1]:{port}\r\n"), "200"),
        ("GET /metrics HTTP/1.0\r\n".to_owned(), "200"),
        (format!("GET /metrics HTTP/1.1\r\nhost: evil.example:{port}\r\n"), "421"),
        ("GET /nothing HTTP/1.1\r\nhost: localhost.evil.example\r\n".to_owned(), "421"),
        ("GET /metrics HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n".to_owned(), "421"),
        ("GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost\r\n".to_owned(), "421"),
    ] {
        let (head, _) = send(server.address, &format!("{request}connection: close\r\n\r\n")).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}");
    }
    let open = start("0.0.0.0:0").await;
    let local = SocketAddr::from(([127, 0, 0, 1], open.address.port()));
    let (head, _) = send(local, "GET /healthz HTTP/1.1\r\nhost: lanes.internal\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn a_taken_port_is_explained() {
    let server = start("127.0.0.1:0").await;
    let error = Server::bind(server.address).await.expect_err("taken").to_string();
    for part in [server.address.to_string().as_str(), "in use", "http.listen", "--no-http"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn stopping_closes_the_port() {
    let server = start("127.0.0.1:0").await;
    let mut idle = TcpStream::connect(server.address).await.expect("listening");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("answered, kept alive");
    server.stop.cancel();
    server.task.await.expect("no panic");
    assert!(TcpStream::connect(server.address).await.is_err());
}
