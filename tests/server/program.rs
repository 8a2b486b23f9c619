//! The example server as a program of its own, and a mail server for it.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::OnceLock,
};

use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
};

use crate::support::{Api, Call, Remote};

/// A server that has said that it accepts connections. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    remote: Remote,
    pub(crate) base: String,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it in this directory with these settings, at a port of its own.
    pub(crate) async fn start(directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::started(spawn(directory, &[], settings)).await
    }

    /// The same, where the system gives it only so many descriptors.
    pub(crate) async fn start_with_descriptors(
        most: u32,
        directory: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\"")]).arg(binary());
        Self::started(spawn_as(shell, directory, settings)).await
    }

    pub(crate) async fn started(mut child: Child) -> Self {
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        let Some(base) = line.trim_end().strip_prefix("listening on ") else {
            panic!("{line:?}: {:?}", child.wait_with_output().await.unwrap());
        };
        Self { child, remote: Remote::new(base), base: base.to_owned(), stdout }
    }

    /// `HOST:PORT`
    pub(crate) fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// Sends a signal (`TERM`, `INT`).
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; it has printed nothing more by then.
    pub(crate) async fn end(mut self) -> ExitStatus {
        let mut more = String::new();
        self.stdout.read_line(&mut more).await.unwrap();
        assert_eq!(more, "");
        self.child.wait().await.unwrap()
    }

    /// Stops it, and answers what it wrote to standard error.
    pub(crate) async fn stop_and_tell(mut self) -> String {
        let mut stderr = self.child.stderr.take().unwrap();
        self.stop().await;
        let mut told = String::new();
        stderr.read_to_string(&mut told).await.unwrap();
        told
    }

    /// It said an address that stands for all.
    pub(crate) fn reached_at(&mut self, ip: &str) {
        let port = self.base.rsplit_once(':').unwrap().1;
        self.base = format!("http://{ip}:{port}");
        self.remote = Remote::new(self.base.clone());
    }

    pub(crate) async fn stop(self) {
        self.signal("TERM").await;
        assert_eq!(self.end().await.code(), Some(0));
    }
}

impl Api for Program {
    fn call(&self, method: Method, path: &str) -> Call {
        self.remote.call(method, path)
    }
}

/// Starts the server in this directory with these settings, whatever comes of it.
pub(crate) fn spawn(directory: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Child {
    let mut command = Command::new(binary());
    command.args(arguments);
    spawn_as(command, directory, settings)
}

/// The same, however it is started.
pub(crate) fn spawn_as(mut command: Command, directory: &Path, settings: &[(&str, &str)]) -> Child {
    command
        .current_dir(directory)
        .env_clear()
        .envs([("BIND_ADDR", "127.0.0.1:0"), ("BCRYPT_COST", "4")])
        .envs(settings.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// A directory that holds nothing but the keys of the tests, which need not be generated then.
pub(crate) fn directory_with_keys() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/keys");
    let config = directory.path().join("config");
    std::fs::create_dir(&config).unwrap();
    for half in ["private", "public"] {
        std::fs::copy(keys.join(format!("rsa-{half}.pem")), config.join(format!("jwt-{half}.pem")))
            .unwrap();
    }
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(config.join("jwt-private.pem"), owner_only).unwrap();
    directory
}

/// The program as cargo has built it. It is asked to, because it builds examples only for some of
/// the ways in which tests are run, and tells nobody where.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo
            .args(["build", "--example=server", "--features=full", "--message-format=json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells its tests of their package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&*name);
            }
        }
        let built = cargo.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let messages = String::from_utf8(built.stdout).unwrap();
        let executable = |line| -> Option<PathBuf> {
            let message: Value = serde_json::from_str(line).ok()?;
            Some(message["executable"].as_str()?.into())
        };
        messages.lines().find_map(executable).unwrap()
    })
}

/// A mail server (RFC 5321) that takes all there is.
pub(crate) struct MailServer {
    pub(crate) url: String,
    letters: mpsc::UnboundedReceiver<String>,
}

impl MailServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let (sender, letters) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let letter = take_letter(connection).await;
                if sender.send(letter).is_err() {
                    return;
                }
            }
        });
        Self { url, letters }
    }

    /// The next letter: its envelope, head and body.
    pub(crate) async fn letter(&mut self) -> String {
        self.letters.recv().await.unwrap()
    }
}

async fn take_letter(connection: TcpStream) -> String {
    let mut connection = BufReader::new(connection);
    let (mut letter, mut line, mut in_data) = (String::new(), String::new(), false);
    let mut answer = "220 mail.example";
    loop {
        if !answer.is_empty() {
            connection.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        }
        line.clear();
        if connection.read_line(&mut line).await.unwrap() == 0 || line.starts_with("QUIT") {
            return letter;
        }
        let end_of_data = in_data && line == ".\r\n";
        let data_begins = !in_data && line.starts_with("DATA");
        answer = match (data_begins, end_of_data, in_data) {
            (true, ..) => "354 go on",
            (_, false, true) => "",
            _ => "250 ok",
        };
        in_data = data_begins || (in_data && !end_of_data);
        letter.push_str(&line);
    }
}
