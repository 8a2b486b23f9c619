//! The lines of configuration that the guide to client addresses gives, in the real nginx and HAProxy:
//! which address the server sees.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(feature = "axum")]

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, extract::Request, routing::get};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tower_warden::{ForwardedHeader, TrustedProxies};

#[path = "../support/ports.rs"]
mod ports;

use ports::free_port;

const GUIDE: &str = include_str!("../../src/guide/client_addresses.md");

#[tokio::test]
#[ignore = "needs nginx: run tests/run"]
async fn nginx_as_in_the_guide_tells_the_client_and_not_what_it_claims() {
    let blocks = blocks("nginx");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let (server, port) = (serve().await, free_port());
        let place = TempDir::new().unwrap();
        let location = block.replace("127.0.0.1:3000", &server.to_string());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {what};\n"))
            .concat();
        let config = format!(
            "daemon off; pid nginx.pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{temporary}\n\
             server {{ listen 127.0.0.1:{port};\n{location}\n}}\n}}"
        );
        fs::write(place.path().join("nginx.conf"), config).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(place.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        let _nginx = Running::start(nginx);
        assert_clients_are_told_apart(port).await;
    }
}

#[tokio::test]
#[ignore = "needs HAProxy: run tests/run"]
async fn haproxy_as_in_the_guide_tells_the_client_and_not_what_it_claims() {
    let (server, port) = (serve().await, free_port());
    let place = TempDir::new().unwrap();
    let [block] = &blocks("haproxy")[..] else { panic!("one configuration") };
    let config = block
        .replace("127.0.0.1:3000", &server.to_string())
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    let timeouts = "timeout connect 5s\ntimeout client 5s\ntimeout server 5s";
    let file = place.path().join("haproxy.cfg");
    fs::write(&file, format!("defaults\nmode http\n{timeouts}\n\n{config}\n")).unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-f").arg(file);
    let _haproxy = Running::start(haproxy);
    assert_clients_are_told_apart(port).await;
}

/// Two clients, one of which claims to be somebody else.
async fn assert_clients_are_told_apart(proxy: u16) {
    for (client, claim) in [
        ("127.0.0.2:0", ""),
        ("127.0.0.3:0", "x-forwarded-for: 198.51.100.7\r\n"),
        ("127.0.0.4:0", "x-forwarded-for: 198.51.100.7, 127.0.0.1\r\nx-real-ip: 198.51.100.8\r\n"),
    ] {
        let client: SocketAddr = client.parse().unwrap();
        let answer = ask(client, proxy, claim).await;
        assert_eq!(answer.lines().last(), Some(&*client.ip().to_string()), "{answer}");
    }
}

async fn ask(from: SocketAddr, port: u16, headers: &str) -> String {
    let mut connection = connect(from, port).await;
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A connection to a proxy that may only just be starting.
async fn connect(from: SocketAddr, port: u16) -> TcpStream {
    for _ in 0..200 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        match socket.connect(([127, 0, 0, 1], port).into()).await {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
    panic!("nothing listens on {port}");
}

/// A server behind proxies on 127.0.0.1, which answers with the client's address.
async fn serve() -> SocketAddr {
    let proxies = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["127.0.0.1/32"]).unwrap();
    let app = Router::new().route(
        "/",
        get(async move |request: Request| {
            proxies.client_ip(request.headers(), request.extensions()).unwrap().to_string()
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// The blocks of the guide in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let parts = GUIDE.split("```").collect::<Vec<_>>();
    // Every second part is code.
    parts.into_iter().skip(1).step_by(2).filter_map(|code| code.strip_prefix(language)).collect()
}

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(mut program: Command) -> Self {
        Self(program.stdin(Stdio::null()).spawn().expect("not installed: run tests/run"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that nginx takes its workers along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
