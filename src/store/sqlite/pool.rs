//! Connections, and what SQLite's errors mean.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    path::Path,
    time::Duration,
};

use sqlx::{
    Sqlite, SqlitePool, query,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::time::{Instant, sleep};

use super::super::sql::store_error;
use crate::StoreError;

/// How long a connection waits for others that write, and a verb for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Opens a database: `sqlite:PATH`, or `sqlite::memory:` for one that ends with the pool.
///
/// A file is created where there is none, with its directory, for its owner only, and put into write-ahead-log mode.
/// What is committed there survives a loss of power (`synchronous = FULL`). A database in memory
/// has one connection, which never expires.
///
/// # Errors
/// Where the URL names no database, or the file can't be created or opened.
pub async fn connect(url: &str) -> Result<SqlitePool, StoreError> {
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let options: SqliteConnectOptions = url.parse().map_err(store_error::<Sqlite>)?;
    let options = options.create_if_missing(true).foreign_keys(true).busy_timeout(PATIENCE);
    let pool = SqlitePoolOptions::new().acquire_timeout(PATIENCE);
    if in_memory {
        let pool = pool.max_connections(1).idle_timeout(None).max_lifetime(None);
        return pool.connect_with(options).await.map_err(store_error::<Sqlite>);
    }

    let path = options.get_filename();
    // SQLite takes an empty name for a database of the connection's own, gone with it.
    if !url.starts_with("sqlite:") || path.as_os_str().is_empty() {
        return Err(StoreError::internal("the URL is not of the form sqlite:PATH"));
    }
    make_private(path).map_err(StoreError::unavailable)?;
    let pool = pool.max_connections(4).connect_with(options).await;
    let pool = pool.map_err(store_error::<Sqlite>)?;
    write_ahead(&pool).await?;
    Ok(pool)
}

/// Makes the file, and the directories that lead to it, unless they are there. What SQLite puts beside
/// it has the file's permissions.
fn make_private(path: &Path) -> io::Result<()> {
    let mut directory = DirBuilder::new();
    let mut file = OpenOptions::new();
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    }
    directory.recursive(true).create(path.parent().unwrap_or(Path::new("")))?;
    file.create(true).append(true).open(path).map(drop)
}

/// The mode stays with the file. The change to it is the one thing for which SQLite does not wait
/// itself while others use the file, so it is asked again.
async fn write_ahead(pool: &SqlitePool) -> Result<(), StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match query("PRAGMA journal_mode = WAL").execute(pool).await.map_err(store_error::<Sqlite>)
        {
            Err(busy) if busy.is_unavailable() && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            result => return result.map(drop),
        }
    }
}
