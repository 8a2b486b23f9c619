//! A PgBouncer of the test's own.

#![allow(dead_code, reason = "each suite needs a part of it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use url::Url;

use crate::ports::free_port;

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Neither PostgreSQL nor PgBouncer runs as root.
pub(crate) fn as_postgres(program: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

/// PgBouncer in transaction mode, with two server connections for all.
pub(crate) fn pgbouncer(server: &Url) -> (Url, TempDir, Running) {
    let (directory, port) = (directory(), free_port());
    let ini = directory.path().join("pgbouncer.ini");
    let (host, server_port) = (server.host_str().unwrap(), server.port().unwrap());
    let settings = format!(
        "[databases]\n* = host={host} port={server_port} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
    );
    fs::write(&ini, settings).unwrap();
    let program = PathBuf::from("/usr/sbin/pgbouncer");
    let mut command = as_postgres(&program);
    command.arg(&ini).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    let mut url = server.clone();
    url.set_port(Some(port)).unwrap();
    url.set_query(Some("pgbouncer=true"));
    (url, directory, running)
}
