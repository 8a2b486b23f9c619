//! What the environment says, checked: each setting is a variable and a flag.

mod given;
mod table;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use tower_warden::{
    ForwardedHeader, Quota, TrustedProxies,
    audit::AuditTrail,
    user::{BcryptHasher, Email, Password, PasswordPolicy, StandardPolicy, mail::Mailbox},
};
use tracing_subscriber::EnvFilter;
use url::Url;

pub use self::given::{Given, NotGiven};
use crate::{app::Quotas, serve::Bounds};

/// The settings, usable as they are.
pub struct Settings {
    pub bind_addr: String,
    pub database_url: String,
    pub redis_url: Option<String>,
    pub keys: KeyFiles,
    pub secret_key: PathBuf,
    pub jwt_issuer: String,
    pub jwt_audience: String,
    pub access_token_ttl: Duration,
    pub refresh_token_ttl: Duration,
    pub refresh_leeway: Duration,
    pub verification_token_ttl: Duration,
    pub reset_token_ttl: Duration,
    pub admin: Option<(Email, Password)>,
    pub mail_dir: PathBuf,
    pub smtp_url: Option<String>,
    pub mail_from: Mailbox,
    pub public_url: Option<String>,
    pub verification_url: Option<String>,
    pub reset_url: Option<String>,
    pub email_change_url: Option<String>,
    pub quotas: Quotas,
    pub rate_limit_on_error: OnError,
    pub rate_limit_budget: Duration,
    pub hasher: BcryptHasher,
    pub cors_allowed_origins: Vec<http::HeaderValue>,
    pub connections: Bounds,
    pub metrics_addr: Option<String>,
    pub audit: AuditTrail,
    pub audit_retention: Duration,
    pub log_filter: EnvFilter,
    /// What is to be said before anything is served.
    pub warnings: Vec<String>,
}

/// Where the keys of access tokens are.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    pub private: PathBuf,
    pub public: PathBuf,
    /// Of keys that only verify.
    pub further: Vec<PathBuf>,
}

impl KeyFiles {
    /// Whether none is to be made.
    pub fn are_there(&self) -> bool {
        self.private.exists() || self.public.exists()
    }
}

/// What becomes of requests while the store of the limits fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Allow,
    Deny,
    Local,
}

/// A setting that can't be used. Says which and why, in one line.
#[derive(Debug)]
pub struct SettingError {
    name: &'static str,
    reason: String,
}

impl SettingError {
    pub fn new(name: &'static str, reason: impl fmt::Display) -> Self {
        Self { name, reason: reason.to_string().replace(['\r', '\n'], " ") }
    }

    /// The same with all causes of an error, each once: some errors tell their cause's words too.
    pub fn caused(name: &'static str, error: &dyn std::error::Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !reason.ends_with(&words) {
                reason = format!("{reason}: {words}");
            }
            cause = error.source();
        }
        Self::new(name, reason)
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl Settings {
    /// Checks all settings that can be checked without using them.
    pub fn from(given: &Given) -> Result<Self, SettingError> {
        let lifetime = |name| {
            let (second, decade) = (Duration::from_secs(1), Duration::from_secs(3650 * 86_400));
            given.get(name, |text| duration_between(text, second, decade))
        };
        let patience = |name| {
            let (least, most) = (Duration::from_millis(100), Duration::from_secs(86_400));
            given.get(name, |text| duration_between(text, least, most))
        };
        let quota = |name| given.get(name, quota);
        let proxies = proxies(given)?;
        let public_url = given.parse("PUBLIC_URL", public_url)?;
        Ok(Self {
            connections: Bounds {
                header: patience("HEADER_TIMEOUT")?,
                body: patience("BODY_TIMEOUT")?,
                idle: patience("IDLE_TIMEOUT")?,
                connections: given.get("MAX_CONNECTIONS", number)?,
                per_ip: given.get("MAX_CONNECTIONS_PER_IP", number)?,
                proxies: proxies.clone(),
            },
            quotas: Quotas {
                proxies,
                public: quota("RATE_LIMIT_PUBLIC")?,
                user: quota("RATE_LIMIT_USER")?,
                login: quota("RATE_LIMIT_LOGIN")?,
                account: quota("RATE_LIMIT_ACCOUNT")?,
                register: quota("RATE_LIMIT_REGISTER")?,
                free: quota("RATE_LIMIT_FREE")?,
                paid: quota("RATE_LIMIT_PAID")?,
                enterprise: quota("RATE_LIMIT_ENTERPRISE")?,
            },
            rate_limit_on_error: given.get("RATE_LIMIT_ON_ERROR", on_error)?,
            rate_limit_budget: given.get("RATE_LIMIT_BUDGET", |text| {
                duration_between(text, Duration::from_millis(1), Duration::from_secs(5))
            })?,
            access_token_ttl: lifetime("ACCESS_TOKEN_TTL")?,
            refresh_token_ttl: lifetime("REFRESH_TOKEN_TTL")?,
            refresh_leeway: given.get("REFRESH_LEEWAY", |text| {
                duration_between(text, Duration::ZERO, Duration::from_secs(60))
            })?,
            verification_token_ttl: lifetime("VERIFICATION_TOKEN_TTL")?,
            reset_token_ttl: lifetime("RESET_TOKEN_TTL")?,
            verification_url: given.text("VERIFICATION_URL").map(str::to_owned),
            reset_url: given.text("RESET_URL").map(str::to_owned),
            email_change_url: given.text("EMAIL_CHANGE_URL").map(str::to_owned),
            admin: admin(given.text("ADMIN_EMAIL"), given.text("ADMIN_PASSWORD"))?,
            mail_from: match given.parse("MAIL_FROM", Mailbox::from_str)? {
                Some(from) => from,
                None => no_reply(public_url.as_ref())?,
            },
            warnings: warnings(given, public_url.as_ref()),
            public_url: public_url.map(|url| url.as_str().trim_end_matches('/').to_owned()),
            hasher: given.get("BCRYPT_COST", hasher)?,
            cors_allowed_origins: given.parse("CORS_ALLOWED_ORIGINS", origins)?.unwrap_or_default(),
            log_filter: given.get("RUST_LOG", |text| EnvFilter::try_new(text))?,
            secret_key: given.owned("SECRET_KEY").into(),
            jwt_issuer: given.get("JWT_ISSUER", claim)?,
            jwt_audience: given.get("JWT_AUDIENCE", claim)?,
            bind_addr: given.owned("BIND_ADDR"),
            database_url: given.owned("DATABASE_URL"),
            redis_url: given.text("REDIS_URL").map(str::to_owned),
            keys: KeyFiles {
                private: given.owned("JWT_PRIVATE_KEY").into(),
                public: given.owned("JWT_PUBLIC_KEY").into(),
                further: members(given.text("JWT_VERIFICATION_KEYS").unwrap_or_default())
                    .map(PathBuf::from)
                    .collect(),
            },
            mail_dir: given.owned("MAIL_DIR").into(),
            smtp_url: given.text("SMTP_URL").map(str::to_owned),
            audit: given.get("AUDIT", audit)?,
            audit_retention: lifetime("AUDIT_RETENTION")?,
            metrics_addr: given.text("METRICS_ADDR").map(str::to_owned),
        })
    }
}

/// What can be used, and is most likely not what was meant.
fn warnings(given: &Given, public_url: Option<&Url>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |name: &str, words: &str| warnings.push(format!("{name}: {words}"));
    let is_unset = |name| given.text(name).is_none();
    let everywhere = ["0.0.0.0:", "[::]:"];
    if public_url.is_none()
        && everywhere.iter().any(|any| given.owned("BIND_ADDR").starts_with(any))
    {
        warn("PUBLIC_URL", "is unset: the links in mail lead to this machine, for itself only");
    }
    if !is_unset("SMTP_URL") && is_unset("MAIL_FROM") && no_reply_domain(public_url).is_none() {
        let words = "is unset, and so is PUBLIC_URL, or it has no domain: mail servers refuse a \
                     sender at localhost.localdomain";
        warn("MAIL_FROM", words);
    }
    if is_unset("TRUSTED_PROXIES") && given.owned("FORWARDED_HEADER") != "x-forwarded-for" {
        warn("FORWARDED_HEADER", "has no effect while TRUSTED_PROXIES is unset");
    }
    let duration = |name| given.get(name, humantime::parse_duration).ok();
    let (access, refresh) = (duration("ACCESS_TOKEN_TTL"), duration("REFRESH_TOKEN_TTL"));
    if access > Some(Duration::from_secs(86_400)) {
        warn("ACCESS_TOKEN_TTL", "is over a day; a short one is renewed by the refresh token");
    }
    if refresh < access {
        warn(
            "REFRESH_TOKEN_TTL",
            "is below ACCESS_TOKEN_TTL: a session ends before its access tokens",
        );
    }
    if given.get("BCRYPT_COST", str::parse).is_ok_and(|cost: u32| cost > 15) {
        warn("BCRYPT_COST", "is over 15: each login takes seconds, and few can be answered");
    }
    warnings
}

/// What a host is called in the default of `MAIL_FROM`.
fn no_reply_domain(public_url: Option<&Url>) -> Option<&str> {
    let domain = public_url?.domain()?;
    Email::parse(&format!("no-reply@{domain}")).is_ok().then_some(domain)
}

fn no_reply(public_url: Option<&Url>) -> Result<Mailbox, SettingError> {
    let domain = no_reply_domain(public_url).unwrap_or("localhost.localdomain");
    let address = Email::parse(&format!("no-reply@{domain}"));
    address.map(Mailbox::from).map_err(|error| SettingError::new("MAIL_FROM", error))
}

fn duration_between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration such as 90s or 15m: {error}"))?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
    Err(format!("{text:?} is not between {least} and {most}"))
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no number such as 512"))
}

fn quota(text: &str) -> Result<Quota, String> {
    let wrong = || format!("{text:?} is no limit such as 100/1m");
    let (limit, window) = text.split_once('/').ok_or_else(wrong)?;
    let limit = u32::from_str(limit).map_err(|_| wrong())?;
    let window = humantime::parse_duration(window).map_err(|_| wrong())?;
    if window.subsec_nanos() != 0 {
        return Err(format!("{text:?} is not in whole seconds"));
    }
    Quota::new(limit, window).map_err(|error| format!("{text:?}: {error}"))
}

fn proxies(given: &Given) -> Result<TrustedProxies, SettingError> {
    let header = given.get("FORWARDED_HEADER", ForwardedHeader::from_str)?;
    let trusted = |list: &str| TrustedProxies::parse(header, list);
    Ok(given.parse("TRUSTED_PROXIES", trusted)?.unwrap_or_default())
}

/// The members of a comma-separated list.
fn members(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|member| !member.is_empty())
}

fn on_error(text: &str) -> Result<OnError, &'static str> {
    match text {
        "allow" => Ok(OnError::Allow),
        "deny" => Ok(OnError::Deny),
        "local" => Ok(OnError::Local),
        _ => Err("is none of allow, deny, local"),
    }
}

fn audit(text: &str) -> Result<AuditTrail, &'static str> {
    const WRONG: &str = "is none of table, log, off";
    if text == "off" {
        return Ok(AuditTrail::new());
    }
    if members(text).next().is_none() {
        return Err(WRONG);
    }
    members(text).try_fold(AuditTrail::new(), |trail, member| match member {
        "table" => Ok(trail.with_table()),
        "log" => Ok(trail.with_log()),
        _ => Err(WRONG),
    })
}

fn admin(
    email: Option<&str>,
    password: Option<&str>,
) -> Result<Option<(Email, Password)>, SettingError> {
    match (email, password) {
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(SettingError::new("ADMIN_PASSWORD", "is unset, but ADMIN_EMAIL is not"))
        }
        (None, Some(_)) => {
            Err(SettingError::new("ADMIN_EMAIL", "is unset, but ADMIN_PASSWORD is not"))
        }
        (Some(email), Some(password)) => {
            let email =
                Email::parse(email).map_err(|error| SettingError::new("ADMIN_EMAIL", error))?;
            let password = Password::from(password);
            let violations = StandardPolicy.violations(&password);
            if !violations.is_empty() {
                let reasons: Vec<_> = violations.iter().map(ToString::to_string).collect();
                return Err(SettingError::new("ADMIN_PASSWORD", reasons.join(", ")));
            }
            Ok(Some((email, password)))
        }
    }
}

fn public_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    let bare = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !bare {
        return Err("is no http:// or https:// URL without query and fragment");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password, which would stand in every link");
    }
    Ok(url)
}

/// What stands in every access token, which is to fit into a header.
fn claim(text: &str) -> Result<String, &'static str> {
    if text.len() > 1_000 { Err("is over 1000 bytes") } else { Ok(text.to_owned()) }
}

fn hasher(cost: &str) -> Result<BcryptHasher, String> {
    let cost = cost.parse().map_err(|_| "is no number from 4 to 31".to_owned())?;
    BcryptHasher::new(cost).map_err(|error| error.to_string())
}

fn origins(list: &str) -> Result<Vec<http::HeaderValue>, String> {
    let origin = |text: &str| {
        let wrong = || format!("{text:?} is no origin such as https://app.example.com");
        let url = Url::parse(text).map_err(|_| wrong())?;
        let origin = url.origin().ascii_serialization();
        let bare = text.strip_suffix('/').unwrap_or(text).eq_ignore_ascii_case(&origin);
        // Browsers send names, never patterns.
        if !bare || !url.has_host() || text.contains('*') {
            return Err(wrong());
        }
        http::HeaderValue::try_from(origin).map_err(|_| wrong())
    };
    members(list).map(origin).collect()
}
