//! Every setting of the program: what is no value, what can't be used, what is given by file, and
//! what only looks right.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    program::{Program, directory_with_keys, spawn},
    sessions::parts,
    support::{Api, PASSWORD},
};

#[allow(dead_code, unreachable_pub, reason = "as the program sees it")]
#[path = "../../examples/server/settings/table.rs"]
mod table;

fn key(name: &str) -> String {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/keys");
    keys.join(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn setting_that_cannot_be_used_ends_the_start_with_one_line() {
    let (weak, weak_public) = (key("rsa-1024-private.pem"), key("rsa-1024-public.pem"));
    let (curve_public, long) = (key("es256-public.pem"), "a".repeat(1_001));
    let (other, readme) = (key("other-rsa-private.pem"), key("README.md"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();

    let directory = directory_with_keys();
    fs::write(directory.path().join("file"), "").unwrap();
    // As it should be, so that nothing else is to be said of it.
    let curve = "es256-private.pem";
    fs::copy(key(curve), directory.path().join(curve)).unwrap();
    let owner_only = fs::Permissions::from_mode(0o600);
    fs::set_permissions(directory.path().join(curve), owner_only).unwrap();
    fs::write(directory.path().join("secret"), "hunter2\n").unwrap();
    let one_each = [
        ("BIND_ADDR", "nowhere"),
        ("BIND_ADDR", "127.0.0.1"),
        ("BIND_ADDR", "127.0.0.1:99999"),
        ("BIND_ADDR", &taken),
        ("DATABASE_URL", "mysql://127.0.0.1/x"),
        ("DATABASE_URL", "data/server.db"),
        ("DATABASE_URL", "sqlite:file/server.db"),
        ("DATABASE_URL", "sqlite:config"),
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/x"),
        ("DATABASE_URL_FILE", "secret"),
        ("DATABASE_URL_FILE", "missing"),
        ("DATABASE_URL_FILE", "file"),
        ("REDIS_URL", "http://127.0.0.1:1"),
        ("REDIS_URL", "127.0.0.1:6379"),
        ("REDIS_URL_FILE", "secret"),
        ("REDIS_URL_FILE", "missing"),
        ("SECRET_KEY", "file"),
        ("SECRET_KEY", "config"),
        ("JWT_PRIVATE_KEY", "missing.pem"),
        ("JWT_PUBLIC_KEY", "missing.pem"),
        ("JWT_PRIVATE_KEY", &other),
        ("JWT_PRIVATE_KEY", &readme),
        ("JWT_VERIFICATION_KEYS", "missing.pem"),
        ("JWT_VERIFICATION_KEYS", &curve_public),
        ("JWT_VERIFICATION_KEYS", "config/jwt-public.pem,file"),
        ("JWT_ISSUER", &long),
        ("JWT_AUDIENCE", &long),
        ("ACCESS_TOKEN_TTL", "15"),
        ("ACCESS_TOKEN_TTL", "0s"),
        ("ACCESS_TOKEN_TTL", "100y"),
        ("REFRESH_TOKEN_TTL", "-7d"),
        ("VERIFICATION_TOKEN_TTL", "soon"),
        ("RESET_TOKEN_TTL", "0s"),
        ("REFRESH_LEEWAY", "61s"),
        ("ADMIN_PASSWORD_FILE", "file"),
        ("MAIL_DIR", "file/mail"),
        ("MAIL_FROM", "nobody"),
        ("MAIL_FROM", "a@b.example\nBcc: c@d.example"),
        ("SMTP_URL", "http://u:hunter2@mail.example"),
        ("SMTP_URL_FILE", "secret"),
        ("PUBLIC_URL", "api.example"),
        ("PUBLIC_URL", "ftp://api.example"),
        ("PUBLIC_URL", "https://api.example/?a=b"),
        ("PUBLIC_URL", "https://api.example/#a"),
        ("PUBLIC_URL", "https://u:hunter2@api.example/"),
        ("VERIFICATION_URL", "https://app.example/#verify"),
        ("VERIFICATION_URL", "https://u:hunter2@app.example/verify"),
        ("RESET_URL", "app.example/reset"),
        ("EMAIL_CHANGE_URL", "ftp://app.example/"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, 10.0.0.0/33"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_PROXIES", "::/0"),
        ("TRUSTED_PROXIES", "hops:0"),
        ("FORWARDED_HEADER", "no header"),
        ("RATE_LIMIT_PUBLIC", "100"),
        ("RATE_LIMIT_PUBLIC", "0/1m"),
        ("RATE_LIMIT_USER", "-1/1m"),
        ("RATE_LIMIT_LOGIN", "5/0s"),
        ("RATE_LIMIT_ACCOUNT", "50"),
        ("RATE_LIMIT_REGISTER", "/1h"),
        ("RATE_LIMIT_FREE", "5/1500ms"),
        ("RATE_LIMIT_PAID", "5 per minute"),
        ("RATE_LIMIT_ENTERPRISE", "99999999999/1m"),
        ("RATE_LIMIT_ON_ERROR", "maybe"),
        ("RATE_LIMIT_BUDGET", "fast"),
        ("RATE_LIMIT_BUDGET", "1h"),
        ("BCRYPT_COST", "3"),
        ("BCRYPT_COST", "32"),
        ("BCRYPT_COST", "twelve"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example,b.example"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example/path"),
        ("CORS_ALLOWED_ORIGINS", "*"),
        ("CORS_ALLOWED_ORIGINS", "https://*.example.com"),
        ("CORS_ALLOWED_ORIGINS", "null"),
        ("HEADER_TIMEOUT", "0s"),
        ("BODY_TIMEOUT", "never"),
        ("IDLE_TIMEOUT", "1ms"),
        ("MAX_CONNECTIONS", "-1"),
        ("MAX_CONNECTIONS_PER_IP", "many"),
        ("METRICS_ADDR", "nowhere"),
        ("AUDIT", "everywhere"),
        ("AUDIT", "table,off"),
        ("AUDIT", ","),
        ("AUDIT_RETENTION", "0s"),
        ("METRICS_ADDR", &taken),
        ("RUST_LOG", "a=b=c"),
        ("RUST_LOG", "info,tower_warden=lots"),
    ];
    let tried: BTreeSet<_> =
        one_each.iter().map(|(name, _)| name.strip_suffix("_FILE").unwrap_or(name)).collect();
    for row in table::SETTINGS {
        let covered = tried.contains(row.name) || row.name.starts_with("ADMIN_");
        assert!(covered, "{} can't be wrong?", row.name);
    }
    let others = [
        ("JWT_PRIVATE_KEY", vec![("JWT_PRIVATE_KEY", &*weak), ("JWT_PUBLIC_KEY", &*weak_public)]),
        ("JWT_PRIVATE_KEY", vec![("JWT_PRIVATE_KEY", curve), ("JWT_PUBLIC_KEY", &*curve_public)]),
        ("ADMIN_PASSWORD", vec![("ADMIN_EMAIL", "root@example.com")]),
        ("ADMIN_PASSWORD", vec![("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", " ")]),
        ("ADMIN_EMAIL", vec![("ADMIN_PASSWORD", PASSWORD)]),
        ("ADMIN_EMAIL", vec![("ADMIN_PASSWORD_FILE", "secret")]),
        ("ADMIN_EMAIL", vec![("ADMIN_EMAIL", "root"), ("ADMIN_PASSWORD", PASSWORD)]),
        (
            "ADMIN_PASSWORD",
            vec![("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", "hunter2")],
        ),
        (
            "ADMIN_PASSWORD",
            vec![("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD_FILE", "secret")],
        ),
        ("TRUSTED_PROXIES", vec![("TRUSTED_PROXIES", "hops:2"), ("FORWARDED_HEADER", "x-real-ip")]),
    ];
    let both = table::SETTINGS.iter().filter(|row| row.secret).map(|row| {
        let file = format!("{}_FILE", row.name).leak();
        (row.name, vec![(row.name, "sqlite::memory:"), (&*file, "secret")])
    });
    let one_each = one_each
        .map(|(name, value)| (name.strip_suffix("_FILE").unwrap_or(name), vec![(name, value)]));
    // All at once: one of them waits for a database for 3 s.
    let starts: Vec<_> = one_each
        .into_iter()
        .chain(others)
        .chain(both)
        .map(|(name, settings)| {
            let program = spawn(directory.path(), &[], &settings);
            (name, settings, program)
        })
        .collect();
    for (name, settings, program) in starts {
        let output = program.wait_with_output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{settings:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{settings:?}");
        assert_eq!(stderr.lines().count(), 1, "{settings:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(name), "{settings:?}: {stderr}");
        assert!(!stderr.contains("hunter2"), "{settings:?}: {stderr}");
        if settings.iter().any(|(_, value)| *value == taken) {
            assert!(stderr.contains(&taken), "{stderr}");
        }
    }
}

/// Keys and an admin are made, which is logged, only where nothing else is wrong.
#[tokio::test]
async fn start_that_fails_has_made_no_keys_and_no_admin() {
    let admin = [("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", PASSWORD)];
    let weak = [("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", "weak")];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (curve_public, long) = (key("es256-public.pem"), "1000000".to_owned());
    for (name, value, made_before) in [
        ("JWT_VERIFICATION_KEYS", "nope.pem", &[][..]),
        ("JWT_VERIFICATION_KEYS", &*curve_public, &[]),
        ("JWT_PRIVATE_KEY", "nope.pem", &["config/jwt-public.pem"]),
        ("JWT_PUBLIC_KEY", &*curve_public, &["config/jwt-private.pem"]),
        ("SECRET_KEY", "broken", &["broken"]),
        ("SECRET_KEY", "broken/secret.key", &["broken"]),
        ("REDIS_URL", "http://127.0.0.1:1", &[]),
        ("SMTP_URL", "http://mail.example", &[]),
        ("MAIL_DIR", "broken/mail", &["broken"]),
        ("RESET_URL", "app.example", &[]),
        ("METRICS_ADDR", &*taken, &[]),
        ("ADMIN_PASSWORD", "weak", &[]),
        ("DATABASE_URL", "sqlite:broken", &["broken"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory_with_keys();
        fs::create_dir(directory.path().join("config")).unwrap();
        for path in made_before {
            let from = keys.path().join(path);
            let text = fs::read(&from).unwrap_or_else(|_| b"nonsense, but long enough\n".to_vec());
            fs::write(directory.path().join(path), text).unwrap();
        }
        let mut settings = vec![(name, value), ("MAX_CONNECTIONS", &*long)];
        settings.extend(if name == "ADMIN_PASSWORD" { &weak[..] } else { &admin[..] });
        let output = spawn(directory.path(), &[], &settings).wait_with_output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.lines().count()),
            (Some(1), 1),
            "{name}: {stderr}"
        );
        assert!(stderr.starts_with("error: ") && stderr.contains(name), "{stderr}");
        let config: Vec<_> = fs::read_dir(directory.path().join("config")).unwrap().collect();
        let there = made_before.iter().filter(|path| path.starts_with("config/")).count();
        assert_eq!(config.len(), there, "{name}: {config:?}");
    }
}

/// Mounted secrets (Kubernetes) have the mode that their platform gives them: it is told, once.
#[tokio::test]
async fn secret_that_others_can_read_is_told_of_once() {
    let directory = directory_with_keys();
    fs::write(directory.path().join("config/secret.key"), "ab".repeat(32)).unwrap();
    for file in ["jwt-private.pem", "secret.key"] {
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(directory.path().join("config").join(file), open).unwrap();
    }
    let told = Program::start(directory.path(), &[]).await.stop_and_tell().await;
    for file in ["config/jwt-private.pem", "config/secret.key"] {
        assert_eq!(told.matches(file).count(), 1, "{told}");
    }
    assert_eq!(told.matches("can be read by others").count(), 2, "{told}");

    for file in ["jwt-private.pem", "secret.key"] {
        let closed = fs::Permissions::from_mode(0o600);
        fs::set_permissions(directory.path().join("config").join(file), closed).unwrap();
    }
    let told = Program::start(directory.path(), &[]).await.stop_and_tell().await;
    assert!(!told.contains("can be read by others"), "{told}");
}

#[tokio::test]
async fn flag_that_is_none_is_one_line_too() {
    let directory = directory_with_keys();
    for arguments in [&["--no-such-flag"][..], &["stray"], &["--bind-addr"]] {
        let output = spawn(directory.path(), arguments, &[]).wait_with_output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(arguments[0]), "{stderr}");
    }
}

#[tokio::test]
async fn help_explains_each_setting_and_a_flag_goes_before_its_variable() {
    let directory = directory_with_keys();
    let run = async |arguments: &[&str], settings: &[(&str, &str)]| {
        spawn(directory.path(), arguments, settings).wait_with_output().await.unwrap()
    };
    let help = run(&["--help"], &[("DATABASE_URL", "hunter2")]).await;
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(!help.contains("hunter2"));
    for row in table::SETTINGS {
        let flag = format!("--{} ", row.name.to_lowercase().replace('_', "-"));
        let about = help.split("\n\n").find(|about| about.contains(&flag)).unwrap();
        let told = about.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(&format!("[env: {}]", row.name)), "{told}");
        let default = row.default.map(|default| format!("[default: {default}]"));
        assert!(default.is_none_or(|default| told.contains(&default)), "{told}");
        let file = format!("A file that holds {0} [env: {0}_FILE]", row.name);
        assert_eq!(help.contains(&file), row.secret, "{}", row.name);
    }
    let refused = run(&["--access-token-ttl", "x"], &[("ACCESS_TOKEN_TTL", "1m")]).await;
    assert!(String::from_utf8(refused.stderr).unwrap().contains("ACCESS_TOKEN_TTL"));
}

/// An empty flag, an empty variable, and one of white space.
#[tokio::test]
async fn empty_is_unset_for_every_setting() {
    for empty in ["", " \t\r\n"] {
        let directory = directory_with_keys();
        let names = table::SETTINGS.iter().map(|row| row.name).filter(|name| *name != "BIND_ADDR");
        let files = table::SETTINGS.iter().filter(|row| row.secret);
        let files: Vec<_> = files.map(|row| format!("{}_FILE", row.name)).collect();
        let mut settings: Vec<_> = names.map(|name| (name, empty)).collect();
        settings.extend(files.iter().map(|name| (&**name, empty)));
        let program = Program::start(directory.path(), &settings).await;
        let new = json!({"email": "ada@example.com", "password": PASSWORD});
        program.post("/auth/register", new).await.expect(201);
        program.stop().await;
        assert_eq!(made(&directory), made_by_default());
    }
    let directory = directory_with_keys();
    let flags = ["--database-url", " ", "--mail-dir", ""];
    let child = spawn(directory.path(), &flags, &[("MAIL_DIR", "elsewhere")]);
    Program::started(child).await.stop().await;
    assert!(directory.path().join("elsewhere").is_dir());
}

/// As a file with a trailing newline gives it.
#[tokio::test]
async fn white_space_around_a_value_is_no_part_of_it() {
    let directory = directory_with_keys();
    let padded: Vec<_> = table::SETTINGS
        .iter()
        .filter(|row| row.name != "BIND_ADDR")
        .filter_map(|row| Some((row.name, format!("\t {}\r\n", row.default?))))
        .collect();
    let mut settings: Vec<_> = padded.iter().map(|(name, value)| (*name, &**value)).collect();
    settings.extend([
        ("BIND_ADDR", " 127.0.0.1:0\n"),
        ("ADMIN_EMAIL", "root@example.com\n"),
        ("ADMIN_PASSWORD", "Correct-Horse-1\n"),
        ("PUBLIC_URL", "https://api.example\n"),
        ("MAIL_FROM", "The API <api@api.example>\n"),
        ("TRUSTED_PROXIES", " 10.0.0.0/8 , ::1\n"),
        ("CORS_ALLOWED_ORIGINS", " https://app.example , https://b.example\n"),
        ("METRICS_ADDR", " 127.0.0.1:0\n"),
        ("BCRYPT_COST", " 4\n"),
    ]);
    let program = Program::start(directory.path(), &settings).await;
    let root = json!({"email": "root@example.com", "password": PASSWORD});
    let token = program.post("/auth/login", root).await.expect(200).text("access_token");
    let [_, claims] = parts(&token);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("tower-warden"), &json!("api")));
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", new).await.expect(201);
    program.stop().await;
    assert_eq!(made(&directory), made_by_default());
    let letter = letter(&directory).await;
    assert!(letter.contains("From: \"The API\" <api@api.example>"), "{letter}");
}

/// How keys are changed without a 401: the new one is listed before it signs, the old one after.
#[tokio::test]
async fn tokens_of_further_keys_are_good() {
    let directory = directory_with_keys();
    let admin = [("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", PASSWORD)];
    let program = Program::start(directory.path(), &admin).await;
    let root = json!({"email": "root@example.com", "password": PASSWORD});
    let old = program.post("/auth/login", root.clone()).await.expect(200).text("access_token");
    program.stop().await;

    let other = tempfile::tempdir().unwrap();
    Program::start(other.path(), &[]).await.stop().await;
    let path = |name: &str| other.path().join("config").join(name).to_str().unwrap().to_owned();
    let (private, public) = (path("jwt-private.pem"), path("jwt-public.pem"));
    let changed = [("JWT_PRIVATE_KEY", &*private), ("JWT_PUBLIC_KEY", &*public)];
    let program = Program::start(directory.path(), &[&changed[..], &admin].concat()).await;
    program.get("/auth/me").bearer(&old).await.refused(401, "invalid_token");
    program.stop().await;

    let listed = [("JWT_VERIFICATION_KEYS", " config/jwt-public.pem ,")];
    let settings = [&changed[..], &listed, &admin].concat();
    let program = Program::start(directory.path(), &settings).await;
    program.get("/auth/me").bearer(&old).await.expect(200);
    let new = program.post("/auth/login", root).await.expect(200).text("access_token");
    program.get("/auth/me").bearer(&new).await.expect(200);
    let keys = program.get("/.well-known/jwks.json").await.expect(200).json();
    let key_ids: BTreeSet<_> =
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].to_string()).collect();
    let signed_by = |token: &str| parts(token)[0]["kid"].to_string();
    assert_eq!(key_ids, BTreeSet::from([signed_by(&old), signed_by(&new)]));

    // The same without an end: the old pair takes the place of the new one.
    for half in ["private", "public"] {
        let name = format!("jwt-{half}.pem");
        fs::copy(directory.path().join("config").join(&name), path(&name)).unwrap();
    }
    program.signal("HUP").await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while program.get("/auth/me").bearer(&new).await.status != 401 {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(20)).await;
    }
    program.get("/auth/me").bearer(&old).await.expect(200);
    // What can't be used changes nothing.
    fs::write(path("jwt-public.pem"), "nonsense").unwrap();
    program.signal("HUP").await;
    sleep(Duration::from_millis(300)).await;
    program.get("/auth/me").bearer(&old).await.expect(200);
    program.stop().await;
}

#[tokio::test]
async fn secrets_come_by_file() {
    let directory = directory_with_keys();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("database", "sqlite:other.db\n");
    write("password", "Correct-Horse-1\r\n");
    let settings = [
        ("DATABASE_URL_FILE", "database"),
        ("ADMIN_EMAIL", "root@example.com"),
        ("ADMIN_PASSWORD_FILE", "password"),
    ];
    let program = Program::start(directory.path(), &settings).await;
    let root = json!({"email": "root@example.com", "password": PASSWORD});
    program.post("/auth/login", root).await.expect(200);
    program.stop().await;
    assert!(directory.path().join("other.db").exists());
}

#[tokio::test]
async fn what_is_made_is_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::start(directory.path(), &[]).await;
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", new).await.expect(201);
    let mut found = BTreeSet::new();
    walk(directory.path(), &mut |path| {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let expected = match path.file_name().unwrap().to_str().unwrap() {
            "jwt-public.pem" => 0o644,
            _ if path.is_dir() => 0o700,
            _ => 0o600,
        };
        assert_eq!(mode, expected, "{path:?}: {mode:o}");
        found.insert(path.strip_prefix(directory.path()).unwrap().to_owned());
    });
    for path in ["data/server.db", "data/mail", "config/jwt-private.pem", "config/jwt-public.pem"] {
        assert!(found.contains(Path::new(path)), "{found:?}");
    }
    program.stop().await;
}

#[tokio::test]
async fn what_only_looks_right_is_warned_of() {
    let directory = directory_with_keys();
    for (about, settings) in [
        ("", vec![("RUST_LOG", "off")]),
        ("PUBLIC_URL", vec![("BIND_ADDR", "0.0.0.0:0")]),
        ("PUBLIC_URL", vec![("BIND_ADDR", "[::]:0")]),
        ("MAIL_FROM", vec![("SMTP_URL", "smtp://127.0.0.1:1")]),
        ("FORWARDED_HEADER", vec![("FORWARDED_HEADER", "forwarded")]),
        ("ACCESS_TOKEN_TTL", vec![("ACCESS_TOKEN_TTL", "30d"), ("REFRESH_TOKEN_TTL", "30d")]),
        ("REFRESH_TOKEN_TTL", vec![("REFRESH_TOKEN_TTL", "5m")]),
        ("BCRYPT_COST", vec![("BCRYPT_COST", "16")]),
    ] {
        let settings = [&settings[..], &[("RUST_LOG", "off")]].concat();
        let program = Program::start(directory.path(), &settings).await;
        let stderr = program.stop_and_tell().await;
        let warning = format!("warning: {about}: ");
        let expected = if about.is_empty() { 0 } else { 1 };
        assert_eq!(stderr.lines().count(), expected, "{settings:?}: {stderr}");
        assert!(about.is_empty() || stderr.starts_with(&warning), "{settings:?}: {stderr}");
    }
}

#[tokio::test]
async fn links_lead_to_an_address_that_can_be_opened() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[("BIND_ADDR", "0.0.0.0:0")]).await;
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", new).await.expect(201);
    program.stop().await;
    let sent = letter(&directory).await;
    assert!(sent.contains("\nhttp://127.0.0.1:"), "{sent}");

    let directory = directory_with_keys();
    let public = [("PUBLIC_URL", "https://api.example/base/")];
    let program = Program::start(directory.path(), &public).await;
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    let reply = program.post("/auth/register", new).await.expect(201);
    assert!(reply.header("strict-transport-security").is_some());
    program.stop().await;
    let letter = letter(&directory).await;
    assert!(letter.contains("\nhttps://api.example/base/auth/verify?token="), "{letter}");
    assert!(letter.contains("From: no-reply@api.example"), "{letter}");
}

/// What the program makes where it finds keys: paths, but for the names of letters.
fn made(directory: &TempDir) -> BTreeSet<PathBuf> {
    let mut made = BTreeSet::new();
    walk(directory.path(), &mut |path| {
        let path = path.strip_prefix(directory.path()).unwrap();
        if path.extension().is_none_or(|extension| extension != "eml") {
            made.insert(path.to_owned());
        }
    });
    made.retain(|path| !path.to_str().unwrap().contains("server.db-"));
    made
}

fn made_by_default() -> BTreeSet<PathBuf> {
    let paths = [
        "config",
        "config/jwt-private.pem",
        "config/jwt-public.pem",
        "config/secret.key",
        "data",
        "data/mail",
        "data/server.db",
    ];
    paths.into_iter().map(PathBuf::from).collect()
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        visit(&path);
        if path.is_dir() {
            walk(&path, visit);
        }
    }
}

/// The one letter that is written, sooner or later.
pub(crate) async fn letter(directory: &TempDir) -> String {
    letter_about(directory, "").await
}

/// The one letter whose subject has these words.
pub(crate) async fn letter_about(directory: &TempDir, words: &str) -> String {
    let mail = directory.path().join("data/mail");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let files = fs::read_dir(&mail).unwrap().map(|entry| entry.unwrap().path());
        let letters = files
            .filter(|path| path.extension().is_some_and(|name| name == "eml"))
            .map(|path| fs::read_to_string(path).unwrap())
            .filter(|text| text.lines().any(|l| l.starts_with("Subject:") && l.contains(words)));
        match letters.collect::<Vec<_>>().as_slice() {
            [letter] => return letter.clone(),
            letters => assert!(letters.is_empty() && Instant::now() < deadline, "{letters:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
