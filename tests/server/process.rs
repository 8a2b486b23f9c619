//! The program: how it starts and ends, its settings, its mail, and one walk through all of it.

use std::{fs, os::unix::fs::PermissionsExt};

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::yield_now,
};

use crate::{
    program::{MailServer, Program, directory_with_keys},
    reply::Reply,
    sessions::parts,
    support::{Api, PASSWORD},
};

const ADMIN: [(&str, &str); 2] =
    [("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", PASSWORD)];

#[tokio::test]
async fn makes_what_it_lacks_and_finds_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    let program = Program::start(directory.path(), &[]).await;
    let port: u16 = program.base.strip_prefix("http://127.0.0.1:").unwrap().parse().unwrap();
    assert_ne!(port, 0);
    let keys = program.get("/.well-known/jwks.json").await.expect(200).body;
    let ada = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", ada.clone()).await.expect(201);
    let link = format!("{}/auth/verify?token=", program.base);
    program.stop().await;

    let mode = fs::metadata(at("config/jwt-private.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(at("data/server.db").exists());
    let letters: Vec<_> =
        fs::read_dir(at("data/mail")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.extension().unwrap(), "eml");
    let letter = fs::read_to_string(letter).unwrap();
    assert!(letter.lines().any(|line| line == "To: ada@example.com"), "{letter}");
    let token = token_in(&letter, &link);

    let program = Program::start(directory.path(), &[]).await;
    assert_eq!(program.get("/.well-known/jwks.json").await.expect(200).body, keys);
    program.post("/auth/register", ada.clone()).await.refused(409, "email_taken");
    program.get(&format!("/auth/verify?token={token}")).await.expect(200);
    program.post("/auth/login", ada).await.expect(200);
    program.signal("INT").await;
    assert_eq!(program.end().await.code(), Some(0));
}

#[tokio::test]
async fn request_in_flight_is_finished_at_the_end() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    let address = program.address().to_owned();
    program.get("/public/status").await.expect(200); // and stays connected

    let body = r#"{"refresh_token": ""}"#;
    let head = format!(
        "POST /auth/logout HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(&address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    // Says that the handler waits for the body.
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut read = vec![0; go_on.len()];
    connection.read_exact(&mut read).await.unwrap();
    assert_eq!(read, go_on);

    program.signal("TERM").await;
    while TcpStream::connect(&address).await.is_ok() {
        yield_now().await;
    }
    connection.write_all(body.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 204 No Content\r\n"), "{response}");
    assert_eq!(program.end().await.code(), Some(0));
}

#[tokio::test]
async fn admin_is_created_or_takes_over_an_account_that_was_never_verified() {
    let directory = directory_with_keys();
    let login = async |program: &Program, email, password| {
        let body = json!({"email": email, "password": password});
        program.post("/auth/login", body).await
    };
    let program = Program::start(directory.path(), &ADMIN).await;
    let admin = login(&program, "root@example.com", PASSWORD).await.expect(200);
    program.get("/analytics").bearer(&admin.text("access_token")).await.expect(200);
    let ada = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", ada).await.expect(201);
    program.stop().await;

    let settings = [("ADMIN_EMAIL", "ada@example.com"), ("ADMIN_PASSWORD", "Another-Horse-1")];
    let program = Program::start(directory.path(), &settings).await;
    let stranger = login(&program, "ada@example.com", PASSWORD).await;
    stranger.refused(401, "invalid_credentials");
    let admin = login(&program, "ada@example.com", "Another-Horse-1").await.expect(200);
    program.get("/analytics").bearer(&admin.text("access_token")).await.expect(200);
    program.stop().await;
}

#[tokio::test]
async fn settings_take_effect() {
    let directory = directory_with_keys();
    let mut mail = MailServer::start().await;
    let settings = [
        ("DATABASE_URL", "sqlite::memory:"),
        ("JWT_ISSUER", "us"),
        ("JWT_AUDIENCE", "them"),
        ("ACCESS_TOKEN_TTL", "1m 30s"),
        ("SMTP_URL", &mail.url),
        ("PUBLIC_URL", "https://api.example/base/"),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("FORWARDED_HEADER", "forwarded"),
        ("RATE_LIMIT_PUBLIC", "7/1h"),
        ("RATE_LIMIT_LOGIN", "3/1d"),
        ("RATE_LIMIT_ACCOUNT", "9/1m"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example"),
        ("RUST_LOG", "off"),
    ];
    let program = Program::start(directory.path(), &[&settings, &ADMIN[..]].concat()).await;
    let login = json!({"email": "root@example.com", "password": PASSWORD});
    let from = |client: &str| {
        let call =
            program.post("/auth/login", login.clone()).header("origin", "https://app.example");
        call.header("forwarded", format!("for={client}")).header("x-forwarded-for", "6.6.6.6")
    };
    for client in ["192.0.2.1", "192.0.2.2"] {
        let reply = from(client).await.expect(200);
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
        let policy = r#""ip";q=7;w=3600, "login";q=3;w=86400, "account";q=9;w=60"#;
        assert_eq!(reply.header("ratelimit-policy"), Some(policy));
        assert_eq!(reply.limiters()[0].remaining, 6);
        assert_eq!(reply.json()["expires_in"], 90);
        let [_, claims] = parts(&reply.text("access_token"));
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!("us"), &json!("them")));
    }
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", new).await.expect(201);
    token_in(&mail.letter().await, "https://api.example/base/auth/verify?token=");
    assert!(!directory.path().join("data").exists());
    program.stop().await;
}

#[tokio::test]
async fn body_over_64_kib_in_chunks_is_refused_and_the_connection_lives_on() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    for length in [64 * 1024 + 1, 1_000_000] {
        let body = Full::new(Bytes::from(vec![b' '; length])).map_frame(|frame| frame);
        let call = program.call(Method::POST, "/auth/logout");
        let reply = call.body("application/json", Body::new(body)).await;
        reply.refused(413, "payload_too_large");
    }
    program.stop().await;
}

#[tokio::test]
async fn walk_from_registration_to_the_limit() {
    let directory = directory_with_keys();
    let mut mail = MailServer::start().await;
    let settings = [("SMTP_URL", mail.url.as_str()), ("RATE_LIMIT_USER", "10/1m")];
    let program = Program::start(directory.path(), &[&settings, &ADMIN[..]].concat()).await;

    let ada = json!({"email": "Ada@example.com", "password": PASSWORD});
    let registered = program.post("/auth/register", ada.clone()).await.expect(201);
    let letter = mail.letter().await;
    assert!(letter.contains("RCPT TO:<ada@example.com>"), "{letter}");
    program.post("/auth/login", ada.clone()).await.refused(403, "email_not_verified");
    let token = token_in(&letter, &format!("{}/auth/verify?token=", program.base));
    program.get(&format!("/auth/verify?token={token}")).await.expect(200);
    let pair = program.post("/auth/login", ada).await.expect(200);

    let create = |pair: &Reply| {
        let call = program.post("/projects", json!({"name": "Apollo"}));
        call.bearer(&pair.text("access_token"))
    };
    create(&pair).await.refused(403, "insufficient_permissions");
    let root = json!({"email": "root@example.com", "password": PASSWORD});
    let root = program.post("/auth/login", root).await.expect(200).text("access_token");
    let promoted = program
        .patch(&format!("/admin/users/{}", registered.text("id")), json!({"role": "editor"}));
    promoted.bearer(&root).await.expect(200);
    create(&pair).await.refused(401, "token_expired");

    let refresh = json!({"refresh_token": pair.text("refresh_token")});
    let pair = program.post("/auth/refresh", refresh.clone()).await.expect(200);
    let project = create(&pair).await.expect(201);
    let location = project.header("location").unwrap();
    let found = program.get(location).bearer(&pair.text("access_token")).await.expect(200);
    assert_eq!(found.json(), project.json());
    for _ in 3..10 {
        create(&pair).await.expect(201);
    }
    create(&pair).await.refused(429, "rate_limited");
    let figures = program.get("/analytics").bearer(&root).await.expect(200).json();
    assert_eq!((&figures["users"], &figures["projects"]), (&json!(2), &json!(8)));
    program.post("/auth/refresh", refresh).await.refused(401, "invalid_refresh_token");
    program.stop().await;
}

/// The token of the link in a letter, which stands unbroken on a line.
fn token_in(letter: &str, link: &str) -> String {
    let token = letter.lines().find_map(|line| line.strip_prefix(link));
    token.unwrap_or_else(|| panic!("no {link} in {letter}")).to_owned()
}
