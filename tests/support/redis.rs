//! The Redis that `tests/run` starts.

#![allow(dead_code, reason = "each suite needs a part of it")]

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use ::redis::{Client, aio::MultiplexedConnection, cmd};

use crate::ports::free_port;

/// The server's URL.
pub(crate) fn url() -> String {
    variable("TOWER_WARDEN_TEST_REDIS")
}

/// The URLs of a cluster's nodes.
pub(crate) fn cluster_urls() -> String {
    variable("TOWER_WARDEN_TEST_REDIS_CLUSTER")
}

/// Where `redis-server` is.
pub(crate) fn server_binary() -> String {
    variable("TOWER_WARDEN_TEST_REDIS_SERVER")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection of the test's own, to look and to interfere.
pub(crate) async fn connection(url: &str) -> MultiplexedConnection {
    Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// The keys that begin so.
pub(crate) async fn keys(connection: &mut MultiplexedConnection, prefix: &str) -> Vec<String> {
    cmd("KEYS").arg(format!("{prefix}:*")).query_async(connection).await.unwrap()
}

/// How long a key will live, in milliseconds; -1 for ever, -2 it is not there.
pub(crate) async fn pttl(connection: &mut MultiplexedConnection, key: &str) -> i64 {
    cmd("PTTL").arg(key).query_async(connection).await.unwrap()
}

/// A server of the test's own, to be stopped and started.
pub(crate) struct OwnServer {
    port: u16,
    arguments: Vec<String>,
    process: Child,
}

impl OwnServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"]).await
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let (port, arguments): (_, Vec<_>) =
            (free_port(), arguments.iter().map(|text| (*text).to_owned()).collect());
        let mut server = Self { port, process: spawn(port, &arguments), arguments };
        server.until_ready().await;
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it at once; what it knew is lost.
    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(self.port, &self.arguments);
        self.until_ready().await;
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success()
        );
    }

    async fn until_ready(&mut self) {
        let client = Client::open(self.url()).unwrap();
        for _ in 0..500 {
            if client.get_multiplexed_async_connection().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server did not start");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(port: u16, arguments: &[String]) -> Child {
    // A configuration file, as sentinels have, comes before any option.
    let (file, options) = match arguments {
        [file, options @ ..] if !file.starts_with("--") => (Some(file), options),
        options => (None, options),
    };
    Command::new(server_binary())
        .args(file)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(options)
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
