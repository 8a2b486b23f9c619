//! Files that are made where there are none: whole or not at all, by one of many processes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file under a name of its own, until it is published; removed when dropped.
pub(crate) struct Draft<'a> {
    path: PathBuf,
    target: &'a Path,
}

impl<'a> Draft<'a> {
    pub(crate) fn write(target: &'a Path, contents: &str, mode: u32) -> io::Result<Self> {
        let directory = target.parent().unwrap_or(Path::new(""));
        private_directories().create(directory)?;
        let draft = Self { path: directory.join(format!(".{}", uuid::Uuid::new_v4())), target };
        let mut file = options(mode).write(true).create_new(true).open(&draft.path)?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
        Ok(draft)
    }

    /// The target appears, whole, unless it is there already; answers whether it did. A rename
    /// would replace what another process has just published; a link doesn't.
    pub(crate) fn publish(&self) -> io::Result<bool> {
        match fs::hard_link(&self.path, self.target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // One that can't be removed does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// A secret that others can read is none. It is told and not refused: mounted secrets (Kubernetes) have
/// the mode that their platform gives them, and a program that doesn't start protects nobody.
#[cfg(unix)]
pub(crate) fn warn_if_readable_by_others(secret: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let mode = fs::metadata(secret).map_or(0, |file| file.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %secret.display(),
            mode = %format_args!("{mode:o}"),
            "a secret key can be read by others; it should be readable by its owner only (0600)"
        );
    }
}

#[cfg(not(unix))]
pub(crate) fn warn_if_readable_by_others(_: &Path) {}

/// For their owner only, where there are none yet.
fn private_directories() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(unix)]
fn options(mode: u32) -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(mode);
    options
}

#[cfg(not(unix))]
fn options(_mode: u32) -> OpenOptions {
    OpenOptions::new()
}
