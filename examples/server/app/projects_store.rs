//! Projects in the app's own table, beside the library's: its migrations and theirs don't meet.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{Connection, PgPool, Postgres, SqlitePool, pool::PoolConnection};
use tokio::time::timeout;
use tower_warden::{SharedClock, StoreError, UserId, store::postgres::is_behind_pooler};
use uuid::Uuid;

/// A project.
#[derive(Debug)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub owner_id: String,
    pub created_at: SystemTime,
}

/// Where a page of projects ended.
#[derive(Debug)]
pub struct Cursor {
    created_at: i64,
    id: String,
}

/// Projects in SQLite or PostgreSQL: the same statements for both.
#[derive(Clone, Debug)]
pub struct ProjectStore {
    pool: Pool,
    clock: SharedClock,
    /// Whether statements may be kept prepared.
    named: bool,
}

#[derive(Clone, Debug)]
pub enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

type Row = (String, String, String, i64);

/// Runs a statement on whichever database there is, and waits less than the 5 s that clients do.
macro_rules! on {
    ($store:expr, |$connection:ident| $statement:expr) => {{
        let answer = async {
            match &$store.pool {
                Pool::Sqlite($connection) => $statement,
                Pool::Postgres(pool) => {
                    let mut lent = Lent(pool.acquire().await?);
                    let answer = if !$store.named {
                        // What belongs to one statement is kept together by a transaction alone.
                        let mut transaction = lent.0.begin().await?;
                        let $connection = &mut *transaction;
                        let answer = $statement?;
                        transaction.commit().await?;
                        Ok(answer)
                    } else {
                        let $connection = &mut *lent.0;
                        $statement
                    };
                    if answer.as_ref().is_err_and(is_demoted) {
                        lent.0.close_on_drop();
                    }
                    answer
                }
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(failed),
            Err(late) => Err(StoreError::unavailable(late)),
        }
    }};
}

const PATIENCE: Duration = Duration::from_secs(4);

/// Comes back to its pool, which asks it first how it is, within a second or not at all: a server
/// that hangs doesn't keep its place.
struct Lent(PoolConnection<Postgres>);

impl Drop for Lent {
    fn drop(&mut self) {
        tokio::spawn(timeout(Duration::from_secs(1), self.0.return_to_pool()));
    }
}

/// The statements, which are the same but for where the table is.
struct Statements {
    table: &'static str,
    index: &'static str,
    insert: &'static str,
    list: &'static str,
    find: &'static str,
    rename: &'static str,
    delete: &'static str,
    count: &'static str,
}

macro_rules! statements {
    ($table:literal) => {
        Statements {
            table: concat!(
                "CREATE TABLE IF NOT EXISTS ",
                $table,
                " (id TEXT PRIMARY KEY, name TEXT NOT NULL, \
                 owner_id TEXT NOT NULL, created_at BIGINT NOT NULL)"
            ),
            index: concat!(
                "CREATE INDEX IF NOT EXISTS projects_newest ON ",
                $table,
                " (created_at, id)"
            ),
            insert: concat!(
                "INSERT INTO ",
                $table,
                " (id, name, owner_id, created_at) VALUES ($1, $2, $3, $4)"
            ),
            list: concat!(
                "SELECT id, name, owner_id, created_at FROM ",
                $table,
                " \
                 WHERE (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3"
            ),
            find: concat!("SELECT id, name, owner_id, created_at FROM ", $table, " WHERE id = $1"),
            rename: concat!(
                "UPDATE ",
                $table,
                " SET name = $2 WHERE id = $1 \
                 RETURNING id, name, owner_id, created_at"
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE id = $1"),
            count: concat!("SELECT COUNT(*) FROM ", $table),
        }
    };
}

const SQLITE: Statements = statements!("projects");
/// In the schema that the library made: a role that owns nothing else can make tables only there.
const POSTGRES: Statements = statements!("tower_warden.projects");

impl ProjectStore {
    /// The store in this database, whose table is made if it isn't there.
    pub async fn new(pool: Pool, clock: SharedClock) -> Result<Self, StoreError> {
        let named = !matches!(&pool, Pool::Postgres(pool) if is_behind_pooler(pool));
        let store = Self { pool, clock, named };
        for statement in [store.sql().table, store.sql().index] {
            // PostgreSQL lets all but one fail of servers that make the same thing at once.
            if store.prepare(statement).await.is_err() {
                store.prepare(statement).await?;
            }
        }
        Ok(store)
    }

    /// Adds a project of this owner.
    pub async fn create(&self, name: String, owner: &UserId) -> Result<Project, StoreError> {
        let now = micros(self.clock.now());
        let row: Row = (Uuid::new_v4().to_string(), name, owner.as_str().to_owned(), now);
        let (id, name, owner, created_at) = &row;
        on!(self, |connection| {
            let insert = sqlx::query(self.sql().insert)
                .persistent(self.named)
                .bind(id)
                .bind(name)
                .bind(owner)
                .bind(created_at);
            insert.execute(connection).await.map(drop)
        })?;
        Ok(row.into())
    }

    /// At most `limit` projects, newest first, and where the next page goes on.
    pub async fn list(
        &self,
        limit: u32,
        after: Option<Cursor>,
    ) -> Result<(Vec<Project>, Option<Cursor>), StoreError> {
        let Cursor { created_at, id } =
            after.unwrap_or(Cursor { created_at: i64::MAX, id: String::new() });
        // One more than asked for tells whether there is a next page.
        let rows = i64::from(limit) + 1;
        let mut projects: Vec<Project> = on!(self, |connection| {
            let list = sqlx::query_as::<_, Row>(self.sql().list)
                .persistent(self.named)
                .bind(created_at)
                .bind(&id)
                .bind(rows);
            list.fetch_all(connection).await
        })?
        .into_iter()
        .map(Project::from)
        .collect();
        let more = projects.len() as i64 == rows;
        if more {
            projects.pop();
        }
        let end = projects.last().filter(|_| more);
        let next =
            end.map(|last| Cursor { created_at: micros(last.created_at), id: last.id.clone() });
        Ok((projects, next))
    }

    /// The project of this id.
    pub async fn find(&self, id: &str) -> Result<Option<Project>, StoreError> {
        let row = on!(self, |connection| {
            sqlx::query_as::<_, Row>(self.sql().find)
                .persistent(self.named)
                .bind(id)
                .fetch_optional(connection)
                .await
        })?;
        Ok(row.map(Project::from))
    }

    /// Gives a project another name, and answers it as it then is.
    pub async fn rename(&self, id: &str, name: &str) -> Result<Option<Project>, StoreError> {
        let row = on!(self, |connection| {
            sqlx::query_as::<_, Row>(self.sql().rename)
                .persistent(self.named)
                .bind(id)
                .bind(name)
                .fetch_optional(connection)
                .await
        })?;
        Ok(row.map(Project::from))
    }

    /// Deletes a project, and answers whether it was there.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        on!(self, |connection| {
            let deleted = sqlx::query(self.sql().delete)
                .persistent(self.named)
                .bind(id)
                .execute(connection)
                .await;
            deleted.map(|deleted| deleted.rows_affected() > 0)
        })
    }

    /// How many there are.
    pub async fn count(&self) -> Result<i64, StoreError> {
        on!(self, |connection| sqlx::query_scalar::<_, i64>(self.sql().count)
            .persistent(self.named)
            .fetch_one(connection)
            .await)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.prepare("SELECT 1").await
    }

    fn sql(&self) -> &'static Statements {
        match self.pool {
            Pool::Sqlite(_) => &SQLITE,
            Pool::Postgres(_) => &POSTGRES,
        }
    }

    async fn prepare(&self, statement: &'static str) -> Result<(), StoreError> {
        on!(self, |connection| sqlx::query(statement)
            .persistent(self.named)
            .execute(connection)
            .await
            .map(drop))
    }
}

impl Cursor {
    /// Reads what was given out as `next`.
    pub fn parse(text: &str) -> Option<Self> {
        let (created_at, id) = text.split_once('_')?;
        let id = Uuid::try_parse(id).ok()?.to_string();
        Some(Self { created_at: created_at.parse().ok()?, id })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.created_at, self.id)
    }
}

impl From<Row> for Project {
    fn from((id, name, owner_id, created_at): Row) -> Self {
        let created_at = UNIX_EPOCH + Duration::from_micros(created_at.unsigned_abs());
        Self { id, name, owner_id, created_at }
    }
}

fn micros(time: SystemTime) -> i64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

/// Whether the server takes nothing that is written any more: its address may lead to another by now.
fn is_demoted(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("25006" | "0A000"))
}

/// No statement here can fail by what was sent, so what fails is the database.
fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => StoreError::internal(error),
        error => StoreError::unavailable(error),
    }
}
