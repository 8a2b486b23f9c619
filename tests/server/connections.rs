//! How connections are served: what ends them, how many there may be, and that whoever is refused
//! gets to know it.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    program::{Program, directory_with_keys},
    reply::Reply,
    support::{Api, PASSWORD},
};

const QUICK: [(&str, &str); 3] =
    [("HEADER_TIMEOUT", "600ms"), ("BODY_TIMEOUT", "700ms"), ("IDLE_TIMEOUT", "1500ms")];

/// A connection that bytes are written to as they are.
struct Raw {
    socket: TcpStream,
    read: Vec<u8>,
    /// Of the last request.
    method: Method,
}

impl Raw {
    async fn to(program: &Program) -> Self {
        let socket = TcpStream::connect(program.address()).await.unwrap();
        Self { socket, read: Vec::new(), method: Method::GET }
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        if let Some((method, _)) = std::str::from_utf8(bytes.as_ref()).unwrap().split_once(" /") {
            self.method = method.parse().unwrap_or(Method::GET);
        }
        self.socket.write_all(bytes.as_ref()).await
    }

    /// The next answer, as its `Content-Length` says.
    async fn reply(&mut self, path: &str) -> Reply {
        loop {
            let end = self.read.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
                let (status, headers) = parsed(&head);
                let length = headers.get("content-length");
                let length = length.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
                if self.read.len() >= end + 4 + length {
                    let body = Bytes::copy_from_slice(&self.read[end + 4..end + 4 + length]);
                    self.read.drain(..end + 4 + length);
                    return Reply::new(status, headers, body, &self.method, path);
                }
            }
            let read = timeout(Duration::from_secs(20), self.socket.read_buf(&mut self.read));
            assert_ne!(read.await.unwrap().unwrap(), 0, "closed after {:?}", self.read);
        }
    }

    /// How long it takes until the server closes it.
    async fn closed_after(&mut self) -> Duration {
        let begin = Instant::now();
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(20), self.socket.read_to_end(&mut rest)).await;
        // Reset is closed, too.
        assert!(end.unwrap().is_err() || rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        begin.elapsed()
    }
}

/// Waits for a connection that is let in.
async fn is_served_again(program: &Program) {
    let served = async {
        loop {
            let mut raw = Raw::to(program).await;
            let mut answer = [0; 12];
            let asked = raw.write("GET /public/status HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok();
            if asked && raw.socket.read_exact(&mut answer).await.is_ok() {
                return assert_eq!(&answer, b"HTTP/1.1 200");
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), served).await.unwrap();
}

fn parsed(head: &str) -> (StatusCode, HeaderMap) {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let line = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
    };
    (status, lines.map(line).collect())
}

fn around(measured: Duration, millis: u64) {
    let expected = Duration::from_millis(millis);
    let (least, most) = (expected - expected / 5, expected + Duration::from_millis(1500));
    assert!((least..most).contains(&measured), "{measured:?} where {expected:?} was expected");
}

#[tokio::test]
async fn whoever_sends_no_head_or_is_idle_is_closed() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &QUICK).await;
    let status = "GET /public/status HTTP/1.1\r\nHost: x\r\n\r\n";

    let mut silent = Raw::to(&program).await;
    let mut half = Raw::to(&program).await;
    half.write("GET /public/status HTTP/1.1\r\nHo").await.unwrap();
    let mut dripping = Raw::to(&program).await;
    let drips = async {
        let begin = Instant::now();
        while dripping.write("G").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
        begin.elapsed()
    };
    let (silent, half, dripping) = tokio::join!(silent.closed_after(), half.closed_after(), drips);
    for after in [silent, half, dripping] {
        around(after, 600);
    }

    let mut second_half = Raw::to(&program).await;
    second_half.write(format!("{status}GET /")).await.unwrap();
    second_half.reply("/public/status").await.expect(200);
    sleep(Duration::from_millis(300)).await;
    second_half.write("pub").await.unwrap();
    let mut idle = Raw::to(&program).await;
    idle.write(status).await.unwrap();
    idle.reply("/public/status").await.expect(200);
    let (idle, second_half) = tokio::join!(idle.closed_after(), second_half.closed_after());
    around(idle, 1500);
    around(second_half, 600);
    program.stop().await;
}

#[tokio::test]
async fn slow_body_is_408_and_the_end() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &QUICK).await;
    let mut slow = Raw::to(&program).await;
    let head = "POST /auth/logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{";
    slow.write(head).await.unwrap();
    let begin = Instant::now();
    let reply = slow.reply("/auth/logout").await;
    around(begin.elapsed(), 700);
    let reply = reply.refused(408, "request_timeout");
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(reply.limit().is_some(), "{reply:?}");
    assert!(slow.closed_after().await < Duration::from_secs(3));
    program.stop().await;
}

/// What it doesn't read isn't kept for it.
#[tokio::test]
async fn whoever_takes_no_answers_is_closed() {
    let directory = directory_with_keys();
    let settings = [&QUICK[..], &[("RATE_LIMIT_PUBLIC", "100000000/1m")]].concat();
    let program = Program::start(directory.path(), &settings).await;
    let mut deaf = Raw::to(&program).await;
    let asked = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let written = async { while deaf.write(&asked).await.is_ok() {} };
    timeout(Duration::from_secs(30), written).await.unwrap();
    program.stop().await;
}

#[tokio::test]
async fn so_many_connections_and_no_more() {
    let directory = directory_with_keys();
    for settings in [
        vec![("MAX_CONNECTIONS", "3")],
        vec![("MAX_CONNECTIONS_PER_IP", "3")],
        vec![("MAX_CONNECTIONS", "3"), ("MAX_CONNECTIONS_PER_IP", "0")],
        vec![("MAX_CONNECTIONS", "3"), ("TRUSTED_PROXIES", "127.0.0.1")],
    ] {
        let program = Program::start(directory.path(), &settings).await;
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(Raw::to(&program).await);
        }
        let mut fourth = Raw::to(&program).await;
        assert!(fourth.closed_after().await < Duration::from_secs(1), "{settings:?}");
        for connection in &mut kept {
            connection.write("GET /public/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            connection.reply("/public/status").await.expect(200);
        }
        drop(kept);
        is_served_again(&program).await;
        program.stop().await;
    }
    let free = [("MAX_CONNECTIONS_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let program = Program::start(directory.path(), &free).await;
    let mut proxied = [Raw::to(&program).await, Raw::to(&program).await];
    for connection in &mut proxied {
        connection.write("GET /public/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        connection.reply("/public/status").await.expect(200);
    }
    program.stop().await;
}

/// Those that the system has no descriptors for must not end service for all others.
#[tokio::test]
async fn service_goes_on_with_few_descriptors() {
    let directory = directory_with_keys();
    for most in ["8192", "0"] {
        let settings = [&QUICK[..], &[("MAX_CONNECTIONS", most)]].concat();
        let program = Program::start_with_descriptors(128, directory.path(), &settings).await;
        let mut silent = Vec::new();
        for _ in 0..140 {
            silent.push(Raw::to(&program).await);
        }
        is_served_again(&program).await;
        let ada = json!({"email": format!("ada{most}@example.com"), "password": PASSWORD});
        program.post("/auth/register", ada).await.expect(201);
        program.stop().await;
    }
}

#[tokio::test]
async fn head_that_cannot_be_read_is_answered_by_a_problem() {
    let directory = directory_with_keys();
    let public = [("PUBLIC_URL", "https://api.example")];
    let program = Program::start(directory.path(), &public).await;
    let large = "a".repeat(380_000);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (head, status, code) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET /x HTTP/9.9\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET /public/status HTTP/1.1\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".to_owned(), 400, "invalid_request"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nx: {large}\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431, "headers_too_large"),
        (format!("GET /{large} HTTP/1.1\r\nHost: x\r\n\r\n"), 414, "uri_too_long"),
    ] {
        for before in ["", "GET /public/status HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut raw = Raw::to(&program).await;
            raw.write(before).await.unwrap();
            if !before.is_empty() {
                raw.reply("/public/status").await.expect(200);
            }
            raw.write(&head).await.unwrap();
            let reply = raw.reply("/").await.refused(status, code);
            assert_eq!(reply.header("connection"), Some("close"));
            assert!(reply.header("date").is_some());
            assert!(reply.header("strict-transport-security").is_some());
            assert!(raw.closed_after().await < Duration::from_secs(4));
        }
    }
    program.stop().await;
}

/// No password was named yet.
#[tokio::test]
async fn half_a_login_body_takes_no_attempt() {
    let directory = directory_with_keys();
    let settings = [
        ("ADMIN_EMAIL", "root@example.com"),
        ("ADMIN_PASSWORD", PASSWORD),
        ("RATE_LIMIT_LOGIN", "1/1h"),
    ];
    let program = Program::start(directory.path(), &settings).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::to(&program).await;
        let head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                    Content-Length: 60\r\n\r\n";
        raw.write(format!("{head}{{\"email\":")).await.unwrap();
        waiting.push(raw);
    }
    sleep(Duration::from_millis(200)).await;
    drop(waiting.pop());
    let login = |password| {
        program.post("/auth/login", json!({"email": "root@example.com", "password": password}))
    };
    let reply = login(PASSWORD).await.expect(200);
    assert_eq!(reply.limiter("login").remaining, 1);
    login("Wrong-Horse-1").await.refused(401, "invalid_credentials");
    login(PASSWORD).await.refused(429, "too_many_login_attempts");
    program.stop().await;
}

/// The answer is there before the body; then the body comes, in two pieces.
#[tokio::test]
async fn refusal_before_the_body_reaches_its_client_and_the_connection_lives_on() {
    let directory = directory_with_keys();
    let settings = [
        ("ADMIN_EMAIL", "root@example.com"),
        ("ADMIN_PASSWORD", PASSWORD),
        ("RATE_LIMIT_LOGIN", "1/1h"),
    ];
    let program = Program::start(directory.path(), &settings).await;
    let login = |password| {
        program.post("/auth/login", json!({"email": "root@example.com", "password": password}))
    };
    let root = login(PASSWORD).await.expect(200).text("access_token");
    login("Wrong-Horse-1").await.expect(401);
    let (no_token, token) = (String::new(), format!("Authorization: Bearer {root}\r\n"));
    for (method, path, header, length, status) in [
        ("POST", "/projects", &no_token, 20_000, 401),
        ("PUT", "/projects", &token, 20_000, 405),
        ("POST", "/nowhere", &no_token, 20_000, 404),
        ("PUT", "/auth/register", &no_token, 20_000, 405),
        ("POST", "/auth/login", &no_token, 20_000, 429),
        ("POST", "/projects", &token, 200_000, 413),
        ("POST", "/auth/register", &no_token, 1_000_000, 413),
    ] {
        for chunked in [false, true] {
            let (framing, piece) = if chunked {
                let size = length / 2;
                let piece = format!("{size:x}\r\n{}\r\n", "a".repeat(size));
                ("Transfer-Encoding: chunked".to_owned(), piece)
            } else {
                (format!("Content-Length: {length}"), "a".repeat(length / 2))
            };
            let mut raw = Raw::to(&program).await;
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Type: application/json\r\n\
                 {framing}\r\n\r\n"
            );
            raw.write(head).await.unwrap();
            sleep(Duration::from_millis(100)).await;
            let both = async {
                raw.write(&piece).await?;
                sleep(Duration::from_millis(50)).await;
                raw.write(&piece).await?;
                raw.write(if chunked { "0\r\n\r\n" } else { "" }).await
            };
            both.await.unwrap_or_else(|error| panic!("{method} {path} {framing}: {error}"));
            let reply = raw.reply(path).await.expect(status);
            assert_eq!(reply.header("connection"), None, "{reply:?}");
            raw.write("GET /public/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            raw.reply("/public/status").await.expect(200);
        }
    }
    program.stop().await;
}

/// What would be too much to read is said to be the last, and its client can read that.
#[tokio::test]
async fn refusal_of_a_huge_body_reaches_its_client() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    for (path, expect, length) in
        [("/projects", "", 8_000_000), ("/projects", "Expect: 100-continue\r\n", 20)]
    {
        let mut raw = Raw::to(&program).await;
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\n{expect}Content-Length: {length}\r\n\r\n");
        raw.write(head).await.unwrap();
        if expect.is_empty() {
            raw.write("a".repeat(length)).await.unwrap();
        }
        let reply = raw.reply(path).await.refused(401, "authentication_required");
        assert_eq!(reply.header("connection"), Some("close"), "{reply:?}");
    }
    program.stop().await;
}

#[tokio::test]
async fn http2_is_served_and_closed_when_idle() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &QUICK).await;
    let socket = TokioIo::new(TcpStream::connect(program.address()).await.unwrap());
    let (mut client, connection) = client_of_http2().handshake::<_, Body>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let url = |path: &str| format!("{}{path}", program.base);

    let request = Request::get(url("/public/status")).body(Body::empty()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    let refused = Request::post(url("/projects")).body(Body::from(vec![0; 200_000])).unwrap();
    assert_eq!(client.send_request(refused).await.unwrap().status(), 401);
    let slow = Body::from_stream(tokio_stream::pending::<io::Result<Bytes>>());
    let slow = Request::post(url("/auth/logout")).body(slow).unwrap();
    let slow = client.send_request(slow).await.unwrap();
    assert_eq!(slow.status(), 408);
    drop(slow);
    // The last words were that the connection ends.
    timeout(Duration::from_secs(3), connection).await.unwrap().unwrap().unwrap();

    let socket = TokioIo::new(TcpStream::connect(program.address()).await.unwrap());
    let (mut client, connection) = client_of_http2().handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(Method::GET).uri(url("/public/status"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let reply = client.send_request(request).await.unwrap();
    reply.into_body().collect().await.unwrap();
    let begin = Instant::now();
    connection.await.unwrap().unwrap();
    around(begin.elapsed(), 1500);
    program.stop().await;
}

/// In HTTP/2 it is h2 that refuses such a head, without a body; the connection lives on.
#[tokio::test]
async fn head_that_is_too_large_for_http2_is_431_and_disturbs_no_other() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    let socket = TokioIo::new(TcpStream::connect(program.address()).await.unwrap());
    let (mut client, connection) = client_of_http2().handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let url = format!("{}/public/status", program.base);
    for (size, status) in [(100, 200), (20_000, 200), (60_000, 431), (100, 200)] {
        let request = Request::get(&url).header("x-padding", "a".repeat(size));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let reply = client.send_request(request).await.unwrap();
        assert_eq!(reply.status(), status, "{size}");
    }
    program.stop().await;
}

fn client_of_http2() -> hyper::client::conn::http2::Builder<TokioExecutor> {
    hyper::client::conn::http2::Builder::new(TokioExecutor::new())
}
