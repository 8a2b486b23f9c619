//! PostgreSQL as it is run: behind a real PgBouncer in transaction mode, and demoted to a standby.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgPoolOptions, query, query_scalar};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tower_warden::{
    ManualClock, Role, UserId,
    store::postgres::{PostgresStore, connect, is_behind_pooler, migrate},
    token::{Rotation, TokenStore},
    user::UserStore,
};

use crate::{
    pgbouncer::{Running, as_postgres, directory, pgbouncer},
    ports::free_port,
    postgres::new_database,
    sql,
};

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and PgBouncer: run tests/run"]
async fn behind_a_pooler_nothing_lasts_longer_than_a_transaction() {
    let server = new_database().await;
    let (url, _directory, _running) = pgbouncer(&server);
    let pool = until("PgBouncer", || async { connect(url.as_str()).await.ok() }).await;
    assert!(is_behind_pooler(&pool));
    // Two servers that start at once, through the pooler.
    let (first, second) = tokio::join!(migrate(&pool), migrate(&pool));
    first.unwrap();
    second.unwrap();
    migrate(&pool).await.unwrap();

    let clock = ManualClock::new();
    let store = PostgresStore::new(pool.clone()).with_clock(Arc::new(clock.clone()));
    let other = PostgresStore::new(connect(url.as_str()).await.unwrap());
    let other = other.with_clock(Arc::new(clock.clone()));
    let following = other.follow_revocations().await.unwrap();
    // More at once than there are server connections, so that they change hands.
    let work = (0..20).map(|n| {
        let (store, clock) = (store.clone(), clock.clone());
        tokio::spawn(async move {
            let user = sql::add_user(&store, &format!("{n}@b.co"), Role::VIEWER).await;
            let mut token = sql::login(&store, &user, &clock).await;
            for _ in 0..10 {
                let successor = sql::random_hash();
                let rotated = store.rotate(sql::rotation(token, successor, &clock)).await.unwrap();
                assert!(matches!(rotated, Rotation::Rotated { .. }));
                token = successor;
            }
            assert!(UserStore::find(&store, &user).await.unwrap().is_some());
        })
    });
    for done in work.collect::<Vec<_>>() {
        done.await.unwrap();
    }

    // The poll alone tells the other server.
    let user = UserId::random();
    sql::login(&store, &user, &clock).await;
    let shared: tower_warden::SharedClock = Arc::new(clock.clone());
    let reason = tower_warden::token::RevokeReason::LogoutAll;
    let before = other.revocations().len();
    store.revoke_user(&user, None, reason, &shared).await.unwrap();
    let begun = Instant::now();
    until("the poll", || async { (other.revocations().len() > before).then_some(()) }).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(following);

    // Nothing was left behind on the server's connections.
    let mut through = PgConnection::connect(server.as_str()).await.unwrap();
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(query_scalar::<_, i64>(locks).fetch_one(&mut through).await.unwrap(), 0);
    let mut plain = url.clone();
    plain.set_query(None);
    let options: sqlx::postgres::PgConnectOptions = plain.as_str().parse().unwrap();
    let options = options.extra_float_digits(None).statement_cache_capacity(0);
    let mut guest = PgConnection::connect_with(&options).await.unwrap();
    for (setting, value) in [("statement_timeout", "0"), ("lock_timeout", "0")] {
        let row = sqlx::raw_sql(if setting == "lock_timeout" {
            "SHOW lock_timeout"
        } else {
            "SHOW statement_timeout"
        });
        let row = row.fetch_one(&mut guest).await.unwrap();
        assert_eq!(sqlx::Row::get::<String, _>(&row, 0), value, "{setting}");
    }
    let prepared =
        sqlx::raw_sql("SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''");
    let row = prepared.fetch_one(&mut guest).await.unwrap();
    assert_eq!(sqlx::Row::get::<String, _>(&row, 0), "0");
}

fn postgres_bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let mut bins: Vec<_> = versions.map(|version| version.unwrap().path().join("bin")).collect();
    bins.sort();
    bins.pop().unwrap()
}

/// A server of its own, which can be made a standby, and a primary again.
struct Server {
    directory: TempDir,
    port: u16,
    running: Option<Running>,
}

impl Server {
    async fn start() -> Self {
        let (directory, port) = (directory(), free_port());
        let data = directory.path().join("data");
        let mut initdb = as_postgres(&postgres_bin().join("initdb"));
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]);
        assert!(initdb.stdout(Stdio::null()).status().unwrap().success());
        let mut server = Self { directory, port, running: None };
        server.run().await;
        server
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    async fn run(&mut self) {
        let mut postgres = as_postgres(&postgres_bin().join("postgres"));
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        postgres.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "fsync=off"]);
        let postgres = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.running = Some(Running(postgres));
        until("PostgreSQL", || async { PgConnection::connect(&self.url()).await.ok() }).await;
    }

    /// Ends, and comes back as a standby that follows nobody.
    async fn demote(&mut self) {
        let mut stop = as_postgres(&postgres_bin().join("pg_ctl"));
        stop.arg("-D").arg(self.data()).args(["stop", "-m", "fast"]);
        assert!(stop.stdout(Stdio::null()).status().unwrap().success());
        self.running = None;
        let mut signal = as_postgres(Path::new("/usr/bin/touch"));
        assert!(signal.arg(self.data().join("standby.signal")).status().unwrap().success());
        self.run().await;
    }

    async fn promote(&self) {
        let mut admin = PgConnection::connect(&self.url()).await.unwrap();
        query("SELECT pg_promote()").execute(&mut admin).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn demoted_server_is_unavailable_and_its_connections_are_not_kept() {
    let mut server = Server::start().await;
    // Only one connection, so that it is missed if it is kept.
    let pool = PgPoolOptions::new().max_connections(1).connect(&server.url()).await.unwrap();
    migrate(&pool).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    let clock = ManualClock::new();
    let token = sql::login(&store, &UserId::random(), &clock).await;

    server.demote().await;
    let request = || sql::rotation(token, sql::random_hash(), &clock);
    for _ in 0..5 {
        assert!(store.rotate(request()).await.unwrap_err().is_unavailable());
        let closed = async {
            while pool.size() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(3), closed).await.expect("a connection to a standby is kept");
    }
    assert!(store.find_token(&token).await.unwrap().is_some(), "what only reads goes on");

    server.promote().await;
    let rotated = until("the new primary", || async { store.rotate(request()).await.ok() }).await;
    assert!(matches!(rotated, Rotation::Rotated { .. }));
}
