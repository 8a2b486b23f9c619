//! Logins under load: how many a second passwords of cost 12 allow, and what a flood of them does to
//! everyone else.
//!
//! `logins` starts a server, with users in memory and no limit on logins, and measures the route of a
//! caller who is signed in: 500 requests a second on 8 connections, first while nothing else happens,
//! then while 128 clients log in as fast as they are let (a client that is told 503 waits as long as
//! `Retry-After` says). A request's time runs from when it was due, if the one before it was late.
//! `logins THREADS` hashes so many passwords at once, instead of as many as there are cores but one.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use tower_warden::{
    Identity, RequireAuth, TokenService, UserService,
    store::memory::MemoryStore,
    token::{KeySet, SigningKey},
    user::{
        BcryptHasher, Email, HashingPool, LinkMail, LoginError, Password,
        mail::{MailError, MailSender, Message, Outbox},
    },
};

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "Correct-Horse-1";

const CLIENTS: u32 = 8;
const PER_SECOND: u32 = 500;
const FLOOD: usize = 128;
const SECONDS: u64 = 10;
const ROUNDS: usize = 3;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure("0"),
        ["serve", threads] => serve(threads.parse()?),
        [threads] => measure(threads),
        _ => Err("usage: logins [THREADS]".into()),
    }
}

#[derive(Clone)]
struct App {
    users: UserService,
    tokens: TokenService,
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

#[tokio::main]
async fn serve(threads: usize) -> Outcome<()> {
    let mut hashing = HashingPool::new(BcryptHasher::default())?;
    if let Some(threads) = NonZeroUsize::new(threads) {
        hashing = hashing.with_threads(threads);
    }
    let mail = LinkMail::verification("https://example.com/auth/verify")?;
    let users = UserService::new(MemoryStore::new(), hashing, mail, Outbox::new(NoMail));
    users.ensure_admin(&Email::parse(EMAIL)?, Password::from(PASSWORD)).await?;
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());

    let app = App { users, tokens };
    let router = Router::new()
        .route("/me", get(async |caller: Identity| caller.user_id().to_string()))
        .layer(RequireAuth::new(app.tokens.clone()))
        .route("/login", post(log_in))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

async fn log_in(State(app): State<App>, Json(credentials): Json<Credentials>) -> Response {
    let user = match app.users.authenticate(&credentials.email, credentials.password.into()).await {
        Ok(user) => user,
        Err(LoginError::Busy) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response();
        }
        Err(_) => return StatusCode::UNAUTHORIZED.into_response(),
    };
    match app.tokens.issue(&Identity::new(user.id, user.role)).await {
        Ok(pair) => Json(json!({ "access_token": pair.access_token() })).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Nobody registers here.
#[derive(Debug)]
struct NoMail;

#[async_trait]
impl MailSender for NoMail {
    async fn send(&self, _: &Message) -> Result<(), MailError> {
        Ok(())
    }
}

/// The server in a process of its own; it is stopped when this is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(threads: &str) -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["serve", threads])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self { process, address: line.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One connection that is kept open.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request; answers status and body.
    fn send(&mut self, request: &str) -> io::Result<(u16, String)> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length) = (0, 0);
        let mut line = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().map_err(io::Error::other)?;
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.trim().parse().map_err(io::Error::other)?;
            } else if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body).map_err(io::Error::other)?))
    }

    fn log_in(&mut self) -> io::Result<(u16, String)> {
        let body = json!({ "email": EMAIL, "password": PASSWORD }).to_string();
        self.send(&format!(
            "POST /login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

fn measure(threads: &str) -> Outcome<()> {
    let server = Server::start(threads)?;
    let mut client = Client::connect(server.address)?;
    let begun = Instant::now();
    let mut alone = 0;
    let mut answer = String::new();
    while begun.elapsed() < Duration::from_secs(5) {
        answer = client.log_in()?.1;
        alone += 1;
    }
    let alone = f64::from(alone) / begun.elapsed().as_secs_f64();
    println!("one after the other, {alone:.1} logins/s: what one core does at cost 12");

    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let token = answer["access_token"].as_str().ok_or("no token")?;
    let request = format!("GET /me HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    println!("\n{:12} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p99", "logins/s", "p99 ratio");
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let quiet = latencies(server.address, &request)?;
        println!("{:12} {:>6.2} ms {:>6.2} ms", "quiet", quiet.p50, quiet.p99);

        let flood = Flood::start(server.address);
        thread::sleep(Duration::from_secs(1));
        let before = flood.logins.load(Ordering::Relaxed);
        let begun = Instant::now();
        let flooded = latencies(server.address, &request)?;
        let logins = flood.logins.load(Ordering::Relaxed) - before;
        let logins = logins as f64 / begun.elapsed().as_secs_f64();
        flood.stop();
        let ratio = flooded.p99 / quiet.p99;
        println!(
            "{:12} {:>6.2} ms {:>6.2} ms {logins:>9.1} {ratio:>9.2}",
            "flooded", flooded.p50, flooded.p99
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("\np99 while logins flood in: {:.2} times what it is else", ratios[ROUNDS / 2]);
    Ok(())
}

/// In milliseconds.
struct Latencies {
    p50: f64,
    p99: f64,
}

/// How long requests take that are due at fixed times.
fn latencies(address: SocketAddr, request: &str) -> Outcome<Latencies> {
    let period = Duration::from_secs(1) * CLIENTS / PER_SECOND;
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let one = |n: u32| -> io::Result<Vec<Duration>> {
        let mut client = Client::connect(address)?;
        let mut due = Instant::now() + period * n / CLIENTS;
        let mut taken = Vec::new();
        while due < until {
            let late = Instant::now() > due;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = if late { due } else { Instant::now() };
            let (status, _) = client.send(request)?;
            if status != 200 {
                return Err(io::Error::other(format!("answered {status}")));
            }
            taken.push(begun.elapsed());
            due += period;
        }
        Ok(taken)
    };
    let taken: io::Result<Vec<_>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || one(n))).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let mut taken = taken?.concat();
    taken.sort_unstable();
    let at = |part: f64| taken[(taken.len() as f64 * part) as usize].as_secs_f64() * 1e3;
    Ok(Latencies { p50: at(0.5), p99: at(0.99) })
}

/// Clients that log in again and again.
struct Flood {
    logins: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Flood {
    fn start(address: SocketAddr) -> Self {
        let (logins, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let one = || {
            let (logins, over) = (Arc::clone(&logins), Arc::clone(&over));
            move || {
                let mut client = Client::connect(address).expect("a connection");
                while !over.load(Ordering::Relaxed) {
                    match client.log_in().expect("an answer").0 {
                        200 => drop(logins.fetch_add(1, Ordering::Relaxed)),
                        503 => thread::sleep(Duration::from_secs(1)),
                        status => panic!("answered {status}"),
                    }
                }
            }
        };
        let clients = (0..FLOOD).map(|_| thread::spawn(one())).collect();
        Self { logins, over, clients }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
    }
}
