//! What only PostgreSQL can get wrong.

use std::{env, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgPoolOptions,
    query, query_scalar,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tower_warden::{
    Clock, ManualClock, Role, UserId,
    store::postgres::{PostgresStore, connect, migrate},
    token::{Rotation, TokenStore},
    user::UserStore,
};
use url::Url;
use uuid::Uuid;

use crate::{
    audit::{self, Heard},
    sql, upgrade,
};

fn server() -> Url {
    let url = env::var("TOWER_WARDEN_TEST_POSTGRES").expect("no PostgreSQL: run tests/run");
    url.parse().unwrap()
}

fn random_name() -> String {
    format!("tower_warden_{}", Uuid::new_v4().simple())
}

async fn execute(connection: &mut PgConnection, sql: String) {
    query(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

/// A new database. It goes with the server: a test that fails leaves something to look at.
pub(crate) async fn new_database() -> Url {
    let (mut url, name) = (server(), random_name());
    let mut admin = PgConnection::connect(url.as_str()).await.unwrap();
    execute(&mut admin, format!("CREATE DATABASE {name}")).await;
    url.set_path(&name);
    url
}

/// A new database, migrated.
pub(crate) async fn database() -> PgPool {
    open(&new_database().await).await
}

async fn open(url: &Url) -> PgPool {
    let pool = connect(url.as_str()).await.unwrap();
    migrate(&pool).await.unwrap();
    pool
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn a_caller_who_leaves_stops_nothing_and_leaves_nothing_open() {
    let url = new_database().await;
    // Few connections, so that one with an open transaction would soon be met again.
    let pool = PgPoolOptions::new().max_connections(2).connect(url.as_str()).await.unwrap();
    migrate(&pool).await.unwrap();
    sql::a_caller_who_leaves_stops_nothing(&PostgresStore::new(pool.clone())).await;

    let mut other = PgConnection::connect(url.as_str()).await.unwrap();
    let open: i64 = query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    )
    .fetch_one(&mut other)
    .await
    .unwrap();
    assert_eq!(open, 0);
    assert_eq!(pool.size(), 2, "and none had to be closed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn databases_defaults_for_transactions_do_not_matter() {
    let url = new_database().await;
    let name = url.path().trim_start_matches('/');
    let mut admin = PgConnection::connect(url.as_str()).await.unwrap();
    let setting = "SET default_transaction_isolation = 'serializable'";
    execute(&mut admin, format!("ALTER DATABASE {name} {setting}")).await;
    let pool = open(&url).await;
    let store = PostgresStore::new(pool);
    let clock = ManualClock::new();
    let token = sql::login(&store, &UserId::random(), &clock).await;
    let mut presentations = JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        let request = sql::rotation(token, sql::random_hash(), &clock);
        presentations.spawn(async move { store.rotate(request).await.unwrap() });
    }
    let outcomes = presentations.join_all().await;
    let count = |wanted: fn(&Rotation) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
    assert_eq!(count(|o| matches!(o, Rotation::Rotated { .. })), 1);
    assert_eq!(count(|o| matches!(o, Rotation::Reused { .. })), 1);
    assert_eq!(count(|o| *o == Rotation::Revoked), 48);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn time_is_read_after_the_lock_was_taken() {
    let pool = database().await;
    let store = PostgresStore::new(pool.clone());
    let clock = ManualClock::new();
    let token = sql::login(&store, &UserId::random(), &clock).await;
    let mut holder = pool.begin().await.unwrap();
    query("SELECT FROM tower_warden.families FOR UPDATE").execute(&mut *holder).await.unwrap();

    let request = sql::rotation(token, sql::random_hash(), &clock);
    let rotation = tokio::spawn(async move { store.rotate(request).await.unwrap() });
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock')";
    while !query_scalar::<_, bool>(waiting).fetch_one(&pool).await.unwrap() {}
    clock.advance(sql::HOUR);
    holder.commit().await.unwrap();
    assert_eq!(rotation.await.unwrap(), Rotation::Expired);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn clean_up_waits_for_nobody_and_takes_the_tokens_along() {
    let pool = database().await;
    let store = PostgresStore::new(pool.clone());
    let clock = ManualClock::new();
    let [ada, bob] = [UserId::from("ada"), UserId::from("bob")];
    let token = sql::login(&store, &ada, &clock).await;
    sql::login(&store, &bob, &clock).await;
    store.rotate(sql::rotation(token, sql::random_hash(), &clock)).await.unwrap();

    assert_eq!(store.delete_expired_sessions(clock.now() + sql::HOUR, 10).await.unwrap(), 0);
    let after = clock.now() + sql::HOUR + Duration::from_micros(1);
    let mut holder = pool.begin().await.unwrap();
    query("SELECT FROM tower_warden.families WHERE user_id = 'bob' FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    assert_eq!(store.delete_expired_sessions(after, 10).await.unwrap(), 2);
    holder.commit().await.unwrap();
    let tokens = "SELECT count(*) FROM tower_warden.refresh_tokens";
    assert_eq!(query_scalar::<_, i64>(tokens).fetch_one(&pool).await.unwrap(), 1);
    assert_eq!(store.delete_expired_sessions(after, 10).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn servers_that_start_at_once_all_start() {
    let url = new_database().await;
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        starts.spawn(async move {
            let pool = open(&url).await;
            migrate(&pool).await.unwrap();
        });
    }
    starts.join_all().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn a_role_that_owns_the_schema_and_nothing_else_will_do() {
    let mut url = new_database().await;
    let mut admin = PgConnection::connect(url.as_str()).await.unwrap();
    let role = random_name();
    for sql in [
        "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
        format!("CREATE ROLE {role} LOGIN PASSWORD '{role}'"),
        format!("CREATE SCHEMA tower_warden AUTHORIZATION {role}"),
    ] {
        execute(&mut admin, sql).await;
    }
    url.set_username(&role).unwrap();
    url.set_password(Some(&role)).unwrap();
    let pool = open(&url).await;
    migrate(&pool).await.unwrap();
    sql::add_user(&PostgresStore::new(pool.clone()), "a@b.co", Role::VIEWER).await;

    pool.close().await;
    execute(&mut admin, format!("DROP OWNED BY {role}")).await;
    execute(&mut admin, format!("DROP ROLE {role}")).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn servers_hear_of_each_others_revocations() {
    let url = new_database().await;
    let clock = ManualClock::new();
    let open = async || {
        PostgresStore::new(open(&url).await).with_clock(std::sync::Arc::new(clock.clone()))
    };
    let stores = [open().await, open().await, open().await];
    sql::servers_hear_of_each_others_revocations(stores, &clock).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn revocation_that_is_committed_late_is_heard_of() {
    let url = new_database().await;
    let pool = open(&url).await;
    let clock = ManualClock::new();
    let store = PostgresStore::new(pool.clone()).with_clock(std::sync::Arc::new(clock.clone()));
    let following = store.follow_revocations().await.unwrap();
    let insert = "INSERT INTO tower_warden.revocations (kind, subject, at)
                  VALUES ('session', $1, (extract(epoch FROM timestamptz '2026-01-01Z') * 1e6)::bigint)";
    let known = async |count: usize| {
        while store.revocations().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut late = pool.begin().await.unwrap();
    query(insert).bind("first").execute(&mut *late).await.unwrap();
    query(insert).bind("second").execute(&pool).await.unwrap();
    timeout(Duration::from_secs(1), known(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    late.commit().await.unwrap();
    timeout(Duration::from_secs(1), known(2)).await.expect("it stands before one that was read");
    drop(following);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn hosts_own_migrations_are_left_alone() {
    let pool = database().await;
    let host = Migrator::with_migrations(vec![Migration::new(
        1,
        "the host's".into(),
        MigrationType::Simple,
        "CREATE TABLE users (id int)".into_sql_str(),
        false,
    )]);
    host.run(&pool).await.unwrap();
    migrate(&pool).await.unwrap();
    host.run(&pool).await.unwrap();
    let count = "SELECT count(*) FROM public._sqlx_migrations";
    assert_eq!(query_scalar::<_, i64>(count).fetch_one(&pool).await.unwrap(), 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn older_release_starts_on_a_newer_schema() {
    let pool = database().await;
    query(
        "INSERT INTO tower_warden.migrations
            (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    migrate(&pool).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn connections_that_the_server_ended_are_replaced() {
    let pool = database().await;
    let users = PostgresStore::new(pool.clone());
    users.count().await.unwrap();
    let mut other = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut other)
    .await
    .unwrap();
    users.count().await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn failures_that_pass_are_told_from_those_that_stay() {
    let pool = database().await;
    let users = PostgresStore::new(pool.clone());
    query("ALTER TABLE tower_warden.users RENAME TO elsewhere").execute(&pool).await.unwrap();
    assert!(!users.count().await.unwrap_err().is_unavailable());
    pool.close().await;
    assert!(users.count().await.unwrap_err().is_unavailable());
}

/// Waits as long as a request would: four seconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn server_that_hangs_is_unavailable_in_time_and_used_again_when_it_is_back() {
    let mut url = new_database().await;
    let hang = proxy(&mut url).await;
    // Not tested before use, so that the verb itself meets the silence; and only one, so that it
    // is missed if it does not come free.
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = pool.connect(url.as_str()).await.unwrap();
    migrate(&pool).await.unwrap();
    let tokens = PostgresStore::new(pool.clone());
    let clock = ManualClock::new();
    let token = sql::login(&tokens, &UserId::random(), &clock).await;

    while pool.num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    hang.send_replace(true);
    let asked = Instant::now();
    let request = sql::rotation(token, sql::random_hash(), &clock);
    assert!(tokens.rotate(request.clone()).await.unwrap_err().is_unavailable());
    assert!(asked.elapsed() < Duration::from_millis(4500));

    hang.send_replace(false);
    assert!(matches!(tokens.rotate(request).await.unwrap(), Rotation::Rotated { .. }));
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn connection_that_falls_silent_on_its_way_back_to_the_pool_is_given_up() {
    let mut url = new_database().await;
    let hang = proxy(&mut url).await;
    // Only one, so that it is missed if it does not come free.
    let pool = PgPoolOptions::new().max_connections(1).connect(url.as_str()).await.unwrap();
    migrate(&pool).await.unwrap();
    let users = PostgresStore::new(pool.clone());
    users.count().await.unwrap();
    assert_eq!(pool.num_idle(), 0, "the pool asks it how it is, before it is idle");
    hang.send_replace(true);
    let given_up = async {
        while pool.size() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(3), given_up).await.expect("it stays taken");
    hang.send_replace(false);
    users.count().await.unwrap();
}

/// An older server, and where it is.
struct Older(PgConnection, Url);

impl upgrade::Old for Older {
    const WORDS: [&str; 3] = ["tower_warden.", " FOR UPDATE", r"'\x{}'::bytea"];
    const SCHEMA: &str =
        include_str!("../../migrations/postgres/0001_users_and_refresh_tokens.sql");

    type Store = PostgresStore;

    async fn run(&mut self, sql: String) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.0).await.unwrap();
        done.rows_affected()
    }

    async fn upgrade(&mut self, clock: tower_warden::SharedClock) -> PostgresStore {
        PostgresStore::new(open(&self.1).await).with_clock(clock)
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn upgraded_in_place_while_an_older_server_still_runs() {
    let url = new_database().await;
    let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
    execute(&mut connection, "CREATE SCHEMA tower_warden".to_owned()).await;
    let older = Older(connection, url);
    upgrade::upgraded_in_place_while_an_older_server_still_runs(older).await;
}

/// That many sessions of Ada's, as [`sql::numbered_hash`] names their tokens.
async fn write_sessions(url: &Url, count: u32, clock: &ManualClock) {
    let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
    query(
        "INSERT INTO tower_warden.families (id, user_id, created_at, last_used_at, epoch)
         SELECT 'session ' || n, 'ada', $2, $2, 0 FROM generate_series(0, $1 - 1) AS n",
    )
    .bind(i64::from(count))
    .bind(sql::micros(clock))
    .execute(&mut connection)
    .await
    .unwrap();
    query(
        "INSERT INTO tower_warden.refresh_tokens
            (hash, family_id, generation, issued_at, expires_at, superseded_at)
         SELECT sha256(n::text::bytea), 'session ' || n, 0, $2, $2 + 3600000000, NULL
         FROM generate_series(0, $1 - 1) AS n",
    )
    .bind(i64::from(count))
    .bind(sql::micros(clock))
    .execute(&mut connection)
    .await
    .unwrap();
}

/// 600,000 have been tried.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn thousands_of_sessions_end_at_once() {
    const COUNT: u32 = 5000;
    let (url, clock) = (new_database().await, ManualClock::new());
    let pool = open(&url).await;
    write_sessions(&url, COUNT, &clock).await;
    let stores = [pool, open(&url).await].map(|pool| {
        let store = PostgresStore::new(pool);
        store.with_clock(std::sync::Arc::new(clock.clone()))
    });
    sql::thousands_of_sessions_end_at_once(stores, COUNT, &clock).await;
}

/// Two millions have been tried.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn a_very_long_session_is_forgotten_while_others_write() {
    const TOKENS: u32 = 200_000;
    let (url, clock) = (new_database().await, ManualClock::new());
    let pool = open(&url).await;
    write_sessions(&url, 1, &clock).await;
    let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
    query(
        "INSERT INTO tower_warden.refresh_tokens
            (hash, family_id, generation, issued_at, expires_at, superseded_at)
         SELECT sha256(n::text::bytea), 'session 0', n, $2, $2 + 3600000000, $2
         FROM generate_series(1, $1) AS n",
    )
    .bind(i64::from(TOKENS))
    .bind(sql::micros(&clock))
    .execute(&mut connection)
    .await
    .unwrap();
    let store = PostgresStore::new(pool).with_clock(std::sync::Arc::new(clock.clone()));
    sql::a_very_long_session_is_forgotten_while_others_write(store, TOKENS.into(), &clock).await;
}

/// Puts itself in front of the server, and passes nothing on while it is told to hang.
async fn proxy(url: &mut Url) -> watch::Sender<bool> {
    let upstream = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let (hang, hangs) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (upstream, mut hangs) = (upstream.clone(), hangs.clone());
            tokio::spawn(async move {
                drop(hangs.wait_for(|hangs| !hangs).await);
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let hang = async { drop(hangs.wait_for(|hangs| *hangs).await) };
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    // What was in flight is lost: this connection never speaks again.
                    () = hang => std::future::pending().await,
                }
            });
        }
    });
    hang
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn changes_and_audit_events_stand_and_fall_together() {
    let (pool, heard) = (database().await, Heard::default());
    let trail = heard.trail().with_table();
    let store = PostgresStore::new(pool.clone()).with_clock(audit::clock()).with_audit(trail);
    let refuse =
        "ALTER TABLE tower_warden.audit_events ADD CONSTRAINT refuse CHECK (false) NOT VALID";
    // At the commit.
    let fail = "CREATE FUNCTION too_late() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'too late'; END $$;
                CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON tower_warden.users
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION too_late()";
    let script = [refuse, "ALTER TABLE tower_warden.audit_events DROP CONSTRAINT refuse", fail];
    audit::changes_and_events_stand_and_fall_together(store, heard, script, |text| {
        let pool = pool.clone();
        async move {
            sqlx::raw_sql(text).execute(&pool).await.unwrap();
        }
    })
    .await;
}
