//! A TCP proxy that lets bad weather happen between a client and a server.

#![allow(dead_code, reason = "each suite needs a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// What happens on the way. It concerns connections that are there already, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing.
    Fair,
    /// Connections are refused, and those that are there are closed.
    Refuse,
    /// Connections are accepted, and what comes through them is swallowed; a connection that this
    /// happened to never speaks again.
    Silent,
    /// The same, for connections that ask just this.
    SilentAt(&'static [u8]),
    /// Connections are accepted, and closed when they have said something: a balancer with nobody behind.
    HangUp,
    /// Connections that say this word are closed.
    HangUpAt(&'static [u8]),
    /// Answers take this long.
    Delay(Duration),
    /// Answers come byte by byte.
    Drip,
    /// The connection is reset in the middle of an answer.
    Reset,
    /// A script isn't passed on, but answered with this line.
    Answer(&'static str),
}

/// Passes on what comes, as the weather permits. Ends when it is dropped.
///
/// In a thread of its own, as the network is none of the process's: what keeps the tasks of a test waiting
/// doesn't keep its answers.
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy on a free port before this server.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, forecast) = watch::channel(Weather::Fair);
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                accept(listener, server, forecast, counted).await;
            });
        });
        Self { address, weather, accepted }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it is like this.
    pub(crate) async fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
        while weather == Weather::Refuse && TcpStream::connect(self.address).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many connections have been accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    mut forecast: watch::Receiver<Weather>,
    accepted: Arc<AtomicUsize>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if *forecast.borrow_and_update() == Weather::Refuse {
            connections.shutdown().await;
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = forecast.changed() => if changed.is_err() { return },
            Ok((client, _)) = next => {
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(carry(client, server, forecast.clone()));
            }
        }
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, forecast: watch::Receiver<Weather>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut question, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let passed = tokio::select! {
            Ok(n @ 1..) = client.read(&mut question) => {
                let question = &question[..n];
                let weather = *forecast.borrow();
                match weather {
                    Weather::Silent => return swallow(client).await,
                    Weather::SilentAt(words) if question == words => return swallow(client).await,
                    Weather::HangUp => return,
                    Weather::HangUpAt(word) if contains(question, word) => return,
                    Weather::Answer(line) if contains(question, b"EVALSHA") => {
                        client.write_all(line.as_bytes()).await
                    }
                    _ => server.write_all(question).await,
                }
            }
            Ok(n @ 1..) = server.read(&mut answer) => {
                let answer = &answer[..n];
                let weather = *forecast.borrow();
                match weather {
                    Weather::Silent => return swallow(client).await,
                    Weather::Delay(time) => {
                        sleep(time).await;
                        client.write_all(answer).await
                    }
                    Weather::Drip => drip(&mut client, answer).await,
                    Weather::Reset => {
                        _ = client.write_all(&answer[..n / 2]).await;
                        _ = client.set_zero_linger();
                        return;
                    }
                    _ => client.write_all(answer).await,
                }
            }
            else => return,
        };
        if passed.is_err() {
            return;
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

async fn swallow(mut client: TcpStream) {
    let mut bytes = [0; 1024];
    while matches!(client.read(&mut bytes).await, Ok(1..)) {}
}

async fn drip(client: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    for byte in answer.chunks(1) {
        client.write_all(byte).await?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
