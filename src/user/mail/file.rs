//! Mail as files.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{MailError, MailSender, Mailbox, Message, rfc5322};

/// Writes each message to a directory as an RFC 5322 file, instead of sending it.
///
/// The names end in `.eml` and sort by time. A file is there with all it holds or not at all, and
/// only its owner may read it, since it may hold a token.
///
/// ```
/// use tower_warden::user::{Email, mail::{FileMailSender, MailSender, Message}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let sender = FileMailSender::new(directory, Email::parse("no-reply@example.com")?)?;
/// let letter = Message::new(Email::parse("ada@example.com")?, "Hello", "Hi Ada,\n");
/// sender.send(&letter).await?;
/// assert_eq!(std::fs::read_dir(directory)?.count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FileMailSender {
    directory: PathBuf,
    from: Mailbox,
}

impl FileMailSender {
    /// Mail into this directory, which is made, for its owner only, if it isn't there, from this
    /// sender.
    ///
    /// # Errors
    /// Where the directory can't be made.
    pub fn new(directory: impl Into<PathBuf>, from: impl Into<Mailbox>) -> io::Result<Self> {
        let directory = directory.into();
        let mut private = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut private, 0o700);
        private.recursive(true).create(&directory)?;
        Ok(Self { directory, from: from.into() })
    }
}

#[async_trait]
impl MailSender for FileMailSender {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        let (_, bytes) = rfc5322::render(message, &self.from)?;
        let directory = self.directory.clone();
        let written = spawn_blocking(move || write_at_once(&directory, &bytes)).await;
        written
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|error| MailError::temporary("the file could not be written", error))
    }
}

/// Writes under another name and renames, so that no reader finds half a message.
fn write_at_once(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let name = format!("{:016}-{}", since_epoch.as_micros(), Uuid::new_v4().simple());
    let half = directory.join(format!(".{name}.tmp"));
    let written = write_private(&half, bytes)
        .and_then(|()| fs::rename(&half, directory.join(format!("{name}.eml"))));
    if written.is_err() {
        let _ = fs::remove_file(&half);
    }
    written
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}
