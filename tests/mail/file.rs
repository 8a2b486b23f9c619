//! Mail as files.

use std::{fs, path::PathBuf};

use tower_warden::user::mail::{FileMailSender, MailSender};

use crate::{assert_is_message, email, message};

fn files(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn message_becomes_a_file_that_only_its_owner_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("data/mail");
    let sender = FileMailSender::new(&inner, email("no-reply@example.com")).unwrap();
    sender.send(&message()).await.unwrap();

    let [file] = &files(&inner)[..] else { panic!("{:?}", files(&inner)) };
    assert_eq!(file.extension().unwrap(), "eml");
    assert_is_message(&fs::read_to_string(file).unwrap());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[tokio::test]
async fn files_sort_by_time() {
    let directory = tempfile::tempdir().unwrap();
    let sender = FileMailSender::new(directory.path(), email("no-reply@example.com")).unwrap();
    let mut written = Vec::new();
    for _ in 0..20 {
        sender.send(&message()).await.unwrap();
        let new = files(directory.path()).into_iter().find(|file| !written.contains(file));
        written.push(new.unwrap());
    }
    assert_eq!(written, files(directory.path()));
}

#[tokio::test]
async fn directory_that_is_gone_may_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("mail");
    let sender = FileMailSender::new(&inner, email("no-reply@example.com")).unwrap();
    fs::remove_dir(&inner).unwrap();
    let error = sender.send(&message()).await.unwrap_err();
    assert!(!error.is_permanent());
    fs::create_dir(&inner).unwrap();
    sender.send(&message()).await.unwrap();
}

#[test]
fn directory_that_cannot_be_is_an_error_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(FileMailSender::new(file.path().join("mail"), email("a@example.com")).is_err());
}
