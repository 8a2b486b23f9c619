//! What the environment says, checked: each setting is a variable and a flag.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::Parser;
use tower_warden::{
    ForwardedHeader, Quota, TrustedProxies,
    user::{BcryptHasher, Email, Password, mail::Mailbox},
};
use url::Url;

use crate::{app::Quotas, serve::Bounds};

/// Serves the API that README.md walks through: accounts, roles, projects, limits.
///
/// With nothing set it needs nothing installed. Durations read 500ms, 90s, 1m 30s, 15m, 24h, 7d;
/// limits N/DURATION, such as 100/1m.
#[derive(Parser)]
#[command(name = "server", version, max_term_width = 100)]
#[command(after_help = "A flag goes before its variable.")]
pub struct Flags {
    /// Address to serve on; port 0 picks a free one
    #[arg(long, env, hide_env_values = true, default_value = "127.0.0.1:3000")]
    bind_addr: String,
    /// sqlite:PATH, sqlite::memory: or postgres://…
    #[arg(long, env, hide_env_values = true, default_value = "sqlite:data/server.db")]
    database_url: String,
    /// redis://…, rediss://…, unix:///…; several, comma-separated: a Redis Cluster [default: limits
    /// are counted in this process]
    #[arg(long, env, hide_env_values = true)]
    redis_url: Option<String>,
    /// PEM file of the key that signs; generated with the other where both are missing
    #[arg(long, env, hide_env_values = true, default_value = "config/jwt-private.pem")]
    jwt_private_key: PathBuf,
    /// PEM file of the key that verifies
    #[arg(long, env, hide_env_values = true, default_value = "config/jwt-public.pem")]
    jwt_public_key: PathBuf,
    /// `iss` of access tokens
    #[arg(long, env, hide_env_values = true, default_value = "tower-warden")]
    jwt_issuer: String,
    /// `aud` of access tokens
    #[arg(long, env, hide_env_values = true, default_value = "api")]
    jwt_audience: String,
    /// How long an access token lives
    #[arg(long, env, hide_env_values = true, default_value = "15m")]
    access_token_ttl: String,
    /// How long a refresh token lives
    #[arg(long, env, hide_env_values = true, default_value = "7d")]
    refresh_token_ttl: String,
    /// How long the link in a verification mail works
    #[arg(long, env, hide_env_values = true, default_value = "24h")]
    verification_token_ttl: String,
    /// Address of an admin, created or promoted at start
    #[arg(long, env, hide_env_values = true)]
    admin_email: Option<String>,
    /// Password of that admin, where it is created
    #[arg(long, env, hide_env_values = true)]
    admin_password: Option<String>,
    /// Where mail goes as .eml files, when SMTP_URL is unset
    #[arg(long, env, hide_env_values = true, default_value = "data/mail")]
    mail_dir: PathBuf,
    /// smtp://… or smtps://…: where mail is sent
    #[arg(long, env, hide_env_values = true)]
    smtp_url: Option<String>,
    /// Sender of mail, also as Name <address>; its domain greets the mail server
    #[arg(long, env, hide_env_values = true, default_value = "no-reply@tower-warden.example")]
    mail_from: String,
    /// Base of the links in mail [default: the address served on]
    #[arg(long, env, hide_env_values = true)]
    public_url: Option<String>,
    /// CIDR list of proxies whose forwarding header is believed, or hops:N where they have no known
    /// addresses [default: none]
    #[arg(long, env, hide_env_values = true)]
    trusted_proxies: Option<String>,
    /// The one header that the proxies set: x-forwarded-for, forwarded, or one that holds a single
    /// address, such as x-real-ip
    #[arg(long, env, hide_env_values = true, default_value = "x-forwarded-for")]
    forwarded_header: String,
    /// Requests per client IP on routes without authentication
    #[arg(long, env, hide_env_values = true, default_value = "100/1m")]
    rate_limit_public: String,
    /// Requests per user without a plan
    #[arg(long, env, hide_env_values = true, default_value = "300/1m")]
    rate_limit_user: String,
    /// Failed logins per client IP
    #[arg(long, env, hide_env_values = true, default_value = "5/15m")]
    rate_limit_login: String,
    /// Requests per user of the plan `free`
    #[arg(long, env, hide_env_values = true, default_value = "60/1m")]
    rate_limit_free: String,
    /// Requests per user of the plan `paid`
    #[arg(long, env, hide_env_values = true, default_value = "600/1m")]
    rate_limit_paid: String,
    /// Requests per user of the plan `enterprise`
    #[arg(long, env, hide_env_values = true, default_value = "3000/1m")]
    rate_limit_enterprise: String,
    /// While the store of the limits fails: allow, deny, or local (count in process)
    #[arg(long, env, hide_env_values = true, default_value = "allow")]
    rate_limit_on_error: String,
    /// The longest that a request waits for the store of the limits
    #[arg(long, env, hide_env_values = true, default_value = "25ms")]
    rate_limit_budget: String,
    /// bcrypt cost of password hashes, 4 to 31
    #[arg(long, env, hide_env_values = true, default_value = "12")]
    bcrypt_cost: String,
    /// Comma-separated origins whose scripts may call [default: none]
    #[arg(long, env, hide_env_values = true)]
    cors_allowed_origins: Option<String>,
    /// The longest that a connection may take for the head of a request
    #[arg(long, env, hide_env_values = true, default_value = "10s")]
    header_timeout: String,
    /// The longest that the body of a request may take
    #[arg(long, env, hide_env_values = true, default_value = "30s")]
    body_timeout: String,
    /// How long a connection may be idle
    #[arg(long, env, hide_env_values = true, default_value = "75s")]
    idle_timeout: String,
    /// Connections at a time; 0 for any number
    #[arg(long, env, hide_env_values = true, default_value = "8192")]
    max_connections: String,
    /// Connections of one client, but for trusted proxies, at a time; 0 for any number
    #[arg(long, env, hide_env_values = true, default_value = "512")]
    max_connections_per_ip: String,
    /// An address of its own for GET /metrics, in Prometheus form [default: none]
    #[arg(long, env, hide_env_values = true)]
    metrics_addr: Option<String>,
    /// Log filter
    #[arg(long, env, hide_env_values = true, default_value = "info")]
    rust_log: String,
}

/// The settings, usable as they are.
pub struct Settings {
    pub bind_addr: String,
    pub database_url: String,
    pub redis_url: Option<String>,
    pub jwt_private_key: PathBuf,
    pub jwt_public_key: PathBuf,
    pub jwt_issuer: String,
    pub jwt_audience: String,
    pub access_token_ttl: Duration,
    pub refresh_token_ttl: Duration,
    pub verification_token_ttl: Duration,
    pub admin: Option<(Email, Password)>,
    pub mail_dir: PathBuf,
    pub smtp_url: Option<String>,
    pub mail_from: Mailbox,
    pub public_url: Option<String>,
    pub quotas: Quotas,
    pub rate_limit_on_error: OnError,
    pub rate_limit_budget: Duration,
    pub hasher: BcryptHasher,
    pub cors_allowed_origins: Vec<http::HeaderValue>,
    pub connections: Bounds,
    pub metrics_addr: Option<String>,
    pub log_filter: tracing_subscriber::EnvFilter,
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

impl Flags {
    /// Checks all settings that can be checked without using them.
    pub fn check(self) -> Result<Settings, SettingError> {
        let quota =
            |name, text: &str| quota(text).map_err(|reason| SettingError::new(name, reason));
        let lifetime = |name, text: &str| {
            let (second, decade) = (Duration::from_secs(1), Duration::from_secs(3650 * 86_400));
            duration_between(text, second, decade).map_err(|reason| SettingError::new(name, reason))
        };
        let patience = |name, text: &str| {
            let (least, most) = (Duration::from_millis(100), Duration::from_secs(86_400));
            duration_between(text, least, most).map_err(|reason| SettingError::new(name, reason))
        };
        let proxies = proxies(&self.trusted_proxies, &self.forwarded_header)?;
        Ok(Settings {
            connections: Bounds {
                header: patience("HEADER_TIMEOUT", &self.header_timeout)?,
                body: patience("BODY_TIMEOUT", &self.body_timeout)?,
                idle: patience("IDLE_TIMEOUT", &self.idle_timeout)?,
                connections: number("MAX_CONNECTIONS", &self.max_connections)?,
                per_ip: number("MAX_CONNECTIONS_PER_IP", &self.max_connections_per_ip)?,
                proxies: proxies.clone(),
            },
            quotas: Quotas {
                proxies,
                public: quota("RATE_LIMIT_PUBLIC", &self.rate_limit_public)?,
                user: quota("RATE_LIMIT_USER", &self.rate_limit_user)?,
                login: quota("RATE_LIMIT_LOGIN", &self.rate_limit_login)?,
                free: quota("RATE_LIMIT_FREE", &self.rate_limit_free)?,
                paid: quota("RATE_LIMIT_PAID", &self.rate_limit_paid)?,
                enterprise: quota("RATE_LIMIT_ENTERPRISE", &self.rate_limit_enterprise)?,
            },
            rate_limit_on_error: on_error(&self.rate_limit_on_error)?,
            rate_limit_budget: duration_between(
                &self.rate_limit_budget,
                Duration::from_millis(1),
                Duration::from_secs(5),
            )
            .map_err(|reason| SettingError::new("RATE_LIMIT_BUDGET", reason))?,
            access_token_ttl: lifetime("ACCESS_TOKEN_TTL", &self.access_token_ttl)?,
            refresh_token_ttl: lifetime("REFRESH_TOKEN_TTL", &self.refresh_token_ttl)?,
            verification_token_ttl: lifetime(
                "VERIFICATION_TOKEN_TTL",
                &self.verification_token_ttl,
            )?,
            admin: admin(set(self.admin_email), set(self.admin_password))?,
            mail_from: Mailbox::from_str(&self.mail_from)
                .map_err(|error| SettingError::new("MAIL_FROM", error))?,
            public_url: set(self.public_url).map(|text| public_url(&text)).transpose()?,
            hasher: hasher(&self.bcrypt_cost)?,
            cors_allowed_origins: origins(self.cors_allowed_origins.as_deref().unwrap_or(""))?,
            log_filter: tracing_subscriber::EnvFilter::try_new(&self.rust_log)
                .map_err(|error| SettingError::new("RUST_LOG", error))?,
            jwt_issuer: not_empty("JWT_ISSUER", self.jwt_issuer)?,
            jwt_audience: not_empty("JWT_AUDIENCE", self.jwt_audience)?,
            bind_addr: self.bind_addr,
            database_url: self.database_url,
            redis_url: set(self.redis_url),
            jwt_private_key: self.jwt_private_key,
            jwt_public_key: self.jwt_public_key,
            mail_dir: self.mail_dir,
            smtp_url: set(self.smtp_url),
            metrics_addr: set(self.metrics_addr),
        })
    }
}

/// A variable that is empty is one that is not set.
fn set(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

fn not_empty(name: &'static str, text: String) -> Result<String, SettingError> {
    if text.trim().is_empty() { Err(SettingError::new(name, "is empty")) } else { Ok(text) }
}

fn duration_between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim())
        .map_err(|error| format!("{text:?} is no duration such as 90s or 15m: {error}"))?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
    Err(format!("{text:?} is not between {least} and {most}"))
}

fn number(name: &'static str, text: &str) -> Result<usize, SettingError> {
    let reason = || format!("{text:?} is no number such as 512");
    text.trim().parse().map_err(|_| SettingError::new(name, reason()))
}

fn quota(text: &str) -> Result<Quota, String> {
    let wrong = || format!("{text:?} is no limit such as 100/1m");
    let (limit, window) = text.split_once('/').ok_or_else(wrong)?;
    let limit = u32::from_str(limit.trim()).map_err(|_| wrong())?;
    let window = humantime::parse_duration(window.trim()).map_err(|_| wrong())?;
    if window.subsec_nanos() != 0 {
        return Err(format!("{text:?} is not in whole seconds"));
    }
    Quota::new(limit, window).map_err(|error| format!("{text:?}: {error}"))
}

fn proxies(networks: &Option<String>, header: &str) -> Result<TrustedProxies, SettingError> {
    let header = ForwardedHeader::from_str(header)
        .map_err(|error| SettingError::new("FORWARDED_HEADER", error))?;
    TrustedProxies::parse(header, networks.as_deref().unwrap_or(""))
        .map_err(|error| SettingError::new("TRUSTED_PROXIES", error))
}

/// The members of a comma-separated list.
fn members(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|member| !member.is_empty())
}

fn on_error(text: &str) -> Result<OnError, SettingError> {
    match text.trim() {
        "allow" => Ok(OnError::Allow),
        "deny" => Ok(OnError::Deny),
        "local" => Ok(OnError::Local),
        _ => Err(SettingError::new("RATE_LIMIT_ON_ERROR", "is none of allow, deny, local")),
    }
}

fn admin(
    email: Option<String>,
    password: Option<String>,
) -> Result<Option<(Email, Password)>, SettingError> {
    match (email, password) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(SettingError::new("ADMIN_PASSWORD", "is unset, but ADMIN_EMAIL is")),
        (None, Some(_)) => Err(SettingError::new("ADMIN_EMAIL", "is unset, but ADMIN_PASSWORD is")),
        (Some(email), Some(password)) => {
            let email =
                Email::parse(&email).map_err(|error| SettingError::new("ADMIN_EMAIL", error))?;
            Ok(Some((email, Password::from(password))))
        }
    }
}

fn public_url(text: &str) -> Result<String, SettingError> {
    let wrong = |reason| SettingError::new("PUBLIC_URL", reason);
    let url = Url::parse(text.trim()).map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https")
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong("is no http:// or https:// URL without query and fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn hasher(cost: &str) -> Result<BcryptHasher, SettingError> {
    let wrong = |reason: &dyn fmt::Display| SettingError::new("BCRYPT_COST", reason);
    let cost = cost.trim().parse().map_err(|_| wrong(&"is no number from 4 to 31"))?;
    BcryptHasher::new(cost).map_err(|error| wrong(&error))
}

fn origins(list: &str) -> Result<Vec<http::HeaderValue>, SettingError> {
    let origin = |text: &str| {
        let wrong = || {
            let reason = format!("{text:?} is no origin such as https://app.example.com");
            SettingError::new("CORS_ALLOWED_ORIGINS", reason)
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let origin = url.origin().ascii_serialization();
        let bare = text.strip_suffix('/').unwrap_or(text).eq_ignore_ascii_case(&origin);
        if !bare || !url.has_host() {
            return Err(wrong());
        }
        http::HeaderValue::try_from(origin).map_err(|_| wrong())
    };
    members(list).map(origin).collect()
}
