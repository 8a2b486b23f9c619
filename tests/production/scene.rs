//! Servers as processes of their own, which share a database and a Redis.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use ::redis::aio::MultiplexedConnection;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, query};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use url::Url;
use uuid::Uuid;

use crate::{
    api::{Api, Pair},
    proxy::Proxy,
    redis_server::{self, OwnServer},
};

pub(crate) const ADMIN: &str = "root@example.com";
pub(crate) const PASSWORD: &str = "Correct-Horse-1";

/// A database and a Redis of the test's own, and a directory for what servers write.
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) database: Url,
    pub(crate) redis: OwnServer,
}

/// The environment of a server.
#[derive(Clone)]
pub(crate) struct Settings(BTreeMap<&'static str, String>);

/// A server, which ends with the test.
pub(crate) struct Server {
    pub(crate) api: Api,
    process: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let (database, redis) = tokio::join!(new_database(), OwnServer::start());
        Self { dir: TempDir::new().unwrap(), database, redis }
    }

    /// The settings of a server that shares all state with others of this scene, and limits nobody
    /// but who guesses passwords.
    pub(crate) fn settings(&self) -> Settings {
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let key = |name: &str| {
            let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/keys");
            keys.join(name).to_str().unwrap().to_owned()
        };
        let set = [
            ("BIND_ADDR", "127.0.0.1:0".to_owned()),
            ("DATABASE_URL", self.database.to_string()),
            ("REDIS_URL", self.redis.url()),
            ("JWT_PRIVATE_KEY", key("rsa-private.pem")),
            ("JWT_PUBLIC_KEY", key("rsa-public.pem")),
            ("MAIL_DIR", path("mail")),
            ("BCRYPT_COST", "4".to_owned()),
            ("TRUSTED_PROXIES", "127.0.0.1/32".to_owned()),
            ("ADMIN_EMAIL", ADMIN.to_owned()),
            ("ADMIN_PASSWORD", PASSWORD.to_owned()),
            ("RATE_LIMIT_PUBLIC", "1000000/1m".to_owned()),
            ("RATE_LIMIT_USER", "1000000/1m".to_owned()),
            // A busy machine is no outage of Redis.
            ("RATE_LIMIT_BUDGET", "5s".to_owned()),
        ];
        Settings(BTreeMap::from(set))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Two servers that share all state.
    pub(crate) async fn two_servers(&self, settings: &Settings) -> [Server; 2] {
        tokio::join!(settings.start(), settings.start()).into()
    }

    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(self.database.as_str()).await.unwrap()
    }

    pub(crate) async fn redis(&self) -> MultiplexedConnection {
        redis_server::connection(&self.redis.url()).await
    }

    /// Registers a user, takes the address for proved, and logs in.
    pub(crate) async fn user(&self, api: &Api, email: &str) -> Pair {
        let registration = json!({"email": email, "password": PASSWORD});
        api.post("/auth/register", &registration).send().await.expect(201);
        query("UPDATE tower_warden.users SET email_verified = TRUE WHERE email = $1")
            .bind(email)
            .execute(&mut self.sql().await)
            .await
            .unwrap();
        api.log_in(email, PASSWORD).send().await.expect(200).pair()
    }
}

/// The admin's tokens.
pub(crate) async fn admin(api: &Api) -> Pair {
    api.log_in(ADMIN, PASSWORD).send().await.expect(200).pair()
}

/// A server with this setting doesn't start, says why in one line, and not the password.
pub(crate) async fn fails_to_start(settings: Settings, name: &'static str, url: String) {
    // With the log as it is for everyone, as it goes where the one line goes; but for what the client
    // of a Redis Cluster has to say of each node.
    let settings = settings.with("RUST_LOG", "info,redis=error");
    let output = settings.with(name, &url).fail().await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{url}: {error}");
    assert!(error.starts_with(&format!("error: {name}: ")), "{url}: {error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{url}: {error}");
    assert!(!error.contains("hunter"), "{url}: {error}");
    let parts: HashSet<_> = error.trim().split(": ").collect();
    assert_eq!(parts.len(), error.split(": ").count(), "said twice: {error}");
    assert!(output.stdout.is_empty());
}

/// A proxy before the server of this URL, and the URL that leads through it.
pub(crate) async fn proxy_before(url: &str) -> (Proxy, Url) {
    let mut url: Url = url.parse().unwrap();
    let server = SocketAddr::new("127.0.0.1".parse().unwrap(), url.port().unwrap());
    let proxy = Proxy::before(server).await;
    url.set_port(Some(proxy.address().port())).unwrap();
    (proxy, url)
}

impl Settings {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// Starts a server, which must succeed.
    pub(crate) async fn start(&self) -> Server {
        let mut process = self.command().stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let api = Api::at(address.expect("the server did not start"));
        Server { api, process, _stdout: stdout }
    }

    /// Starts a server that can't be, and waits for its end.
    async fn fail(&self) -> Output {
        let process = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let end = timeout(Duration::from_secs(10), process.wait_with_output()).await;
        end.expect("the server started").unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(server_binary());
        command.env_clear().env("RUST_LOG", "off").envs(&self.0).current_dir(env::temp_dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

impl Server {
    /// Ends it as a terminal would.
    pub(crate) async fn end(mut self) {
        let pid = self.process.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
        assert!(sent.success());
        assert!(self.process.wait().await.unwrap().success());
    }
}

/// The example that was built along with this test.
fn server_binary() -> PathBuf {
    let deps = env::current_exe().unwrap();
    let profile = deps.ancestors().find(|dir| dir.file_name() == Some(OsStr::new("deps")));
    let binary = profile.unwrap().with_file_name("examples").join("server");
    assert!(binary.exists(), "cargo build --features full --example server");
    binary
}

async fn new_database() -> Url {
    let url = env::var("TOWER_WARDEN_TEST_POSTGRES");
    let mut url: Url =
        url.expect("TOWER_WARDEN_TEST_POSTGRES is not set: run tests/run").parse().unwrap();
    let name = format!("tower_warden_{}", Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(url.as_str()).await.unwrap();
    query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    url.set_path(&name);
    url
}
