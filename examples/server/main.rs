//! The example server: fifteen endpoints with accounts, roles and limits. `--help` explains the
//! settings, README.md walks through the API.

#![allow(unreachable_pub, reason = "a program has no callers")]

mod app;
mod operators;
mod report;
mod serve;
mod settings;

use std::{
    error::Error,
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use app::{App, Hardening, Limits, Pool, ProjectStore, app};
use report::Report;
use serve::serve;
use settings::{Given, KeyFiles, NotGiven, OnError, SettingError, Settings};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tower_warden::{
    ApiKeyService, SharedClock, StoreError, SystemClock, TokenService, UserId, UserService,
    api_key::ApiKeyStore,
    audit::AuditLog,
    limit::{FallbackStore, OnFailure, RateLimitStore},
    second_factor::{LoginSteps, PendingLoginStore, SealingKeys, SecondFactorStore, TotpService},
    store::{memory::MemoryRateLimitStore, postgres, redis::RedisRateLimitStore, sqlite},
    token::{Algorithm, KeySet, SigningKey, TokenStore, VerifyingKey},
    user::{
        HashingPool, InvalidLinkUrl, LinkMail, UserStore,
        mail::{FileMailSender, MailSender, Outbox, SmtpMailSender},
    },
};

#[tokio::main]
async fn main() -> ExitCode {
    let Ok(report) = Report::start() else { return ExitCode::FAILURE };
    let ended = match Given::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(given) => run(&given, &report).await,
        Err(NotGiven::Told(help)) => {
            // Whoever asked may have gone.
            let _ = write!(std::io::stdout(), "{help}");
            Ok(())
        }
        Err(NotGiven::Wrong(error)) => Err(error),
    };
    if let Err(error) = &ended {
        report.say(&format!("error: {error}"));
    }
    report.finish();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From settings to a server, and to its end.
async fn run(given: &Given, report: &Report) -> Result<(), SettingError> {
    let mut settings = Settings::from(given)?;
    let filter = std::mem::take(&mut settings.log_filter);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(report.clone())
        // It would be written to standard error, and wait for it.
        .log_internal_errors(false)
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a panic")));

    let listener = bind("BIND_ADDR", &settings.bind_addr).await?;
    let address = listener.local_addr().map_err(unusable("BIND_ADDR"))?;
    let operators = match &settings.metrics_addr {
        None => None,
        Some(address) => {
            let listener = bind("METRICS_ADDR", address).await?;
            Some((listener, operators::measure().map_err(unusable("METRICS_ADDR"))?))
        }
    };

    let clock = SystemClock::shared();
    let stores = Stores::open(&settings, &clock).await?;
    let audit = UserStore::audit_trail(&stores.accounts);
    let outbox = outbox(&settings)?;
    let users = users(&settings, &stores, outbox.clone(), address, &clock)?;
    let limits = limits(&settings, limit_store(&settings).await?, &clock);
    let keys = ApiKeyService::new(stores.accounts.clone()).with_clock(clock.clone());
    // Last: keys and an admin are made, and that is logged, only where nothing else is wrong. Keys that
    // are there are read before others are made.
    let (tokens, totp) = if settings.keys.are_there() {
        let tokens = tokens(&settings, &stores, &clock)?;
        (tokens, totp(&settings, &stores, &clock)?)
    } else {
        let further = further_keys(&settings.keys).map(drop);
        let totp = further.and_then(|()| totp(&settings, &stores, &clock))?;
        (tokens(&settings, &stores, &clock)?, totp)
    };
    if let Some((email, password)) = settings.admin.take() {
        users.ensure_admin(&email, password).await.map_err(unusable("ADMIN_EMAIL"))?;
    }
    let signing = tokens.clone();
    let login = LoginSteps::new(stores.accounts.clone(), totp.clone()).with_clock(clock.clone());
    let following = tokens.follow_revocations().await.map_err(unusable("DATABASE_URL"))?;
    tokens.revocations().listen({
        let keys = keys.clone();
        move |what| what.account().into_iter().for_each(|user| keys.forget(user))
    });
    let https = settings.public_url.as_ref().is_some_and(|url| url.starts_with("https:"));
    let hardening = Hardening::new(https);
    let app = app(App {
        users,
        tokens: tokens.clone(),
        keys: keys.clone(),
        totp,
        login: login.clone(),
        projects: stores.projects.clone(),
        limits,
        cors_allowed_origins: settings.cors_allowed_origins.clone(),
        https,
    });
    let bounds = settings.connections.clone().within_descriptors();
    if let Some((listener, metrics)) = operators {
        operators::answer(listener, metrics, stores.projects.clone(), hardening, &bounds);
    }
    let audit_retention = settings.audit_retention;
    tokio::spawn(clean_up(stores, tokens, keys, login, clock, audit_retention));

    for warning in &settings.warnings {
        report.say(&format!("warning: {warning}"));
    }
    let end = end().map_err(unusable("BIND_ADDR"))?;
    let hang_up = signal(SignalKind::hangup()).map_err(unusable("BIND_ADDR"))?;
    tokio::spawn(change_keys(hang_up, settings.keys.clone(), signing));
    // Whoever reads it may have gone.
    let _ = writeln!(std::io::stdout(), "listening on http://{address}");
    serve(listener, app, hardening, bounds, end).await;
    drop(following);
    outbox.close(Duration::from_secs(5)).await;
    audit.flush(Duration::from_secs(1)).await;
    Ok(())
}

/// SIGINT or SIGTERM.
fn end() -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("ending");
    })
}

/// All that belongs to accounts, and projects, in one database.
#[derive(Clone)]
struct Stores {
    accounts: Arc<dyn Accounts>,
    projects: ProjectStore,
}

trait Accounts:
    UserStore + TokenStore + ApiKeyStore + SecondFactorStore + PendingLoginStore + AuditLog
{
}

impl<S> Accounts for S where
    S: UserStore + TokenStore + ApiKeyStore + SecondFactorStore + PendingLoginStore + AuditLog
{
}

impl Stores {
    async fn open(settings: &Settings, clock: &SharedClock) -> Result<Self, SettingError> {
        let (url, audit) = (settings.database_url.as_str(), settings.audit.clone());
        let failed = unusable("DATABASE_URL");
        let (accounts, pool): (Arc<dyn Accounts>, _) = if url.starts_with("sqlite:") {
            let pool = sqlite::connect(url).await.map_err(&failed)?;
            sqlite::migrate(&pool).await.map_err(&failed)?;
            let store =
                sqlite::SqliteStore::new(pool.clone()).with_clock(clock.clone()).with_audit(audit);
            (Arc::new(store), Pool::Sqlite(pool))
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = postgres::connect(url).await.map_err(&failed)?;
            postgres::migrate(&pool).await.map_err(&failed)?;
            let store = postgres::PostgresStore::new(pool.clone())
                .with_clock(clock.clone())
                .with_audit(audit);
            (Arc::new(store), Pool::Postgres(pool))
        } else {
            let reason = "is none of sqlite:PATH, sqlite::memory:, postgres://…";
            return Err(SettingError::new("DATABASE_URL", reason));
        };
        let projects = ProjectStore::new(pool, clock.clone()).await.map_err(&failed)?;
        Ok(Self { accounts, projects })
    }
}

fn tokens(
    settings: &Settings,
    stores: &Stores,
    clock: &SharedClock,
) -> Result<TokenService, SettingError> {
    let (issuer, audience) = (settings.jwt_issuer.as_str(), settings.jwt_audience.as_str());
    let store = Arc::clone(&stores.accounts);
    Ok(TokenService::new(keys(&settings.keys)?, issuer, audience, store)
        .with_subjects(UserId::is_uuid)
        .with_access_ttl(settings.access_token_ttl)
        .with_refresh_ttl(settings.refresh_token_ttl)
        .with_refresh_leeway(settings.refresh_leeway)
        .with_clock(clock.clone()))
}

fn keys(files: &KeyFiles) -> Result<KeySet, SettingError> {
    let pair = "JWT_PRIVATE_KEY, JWT_PUBLIC_KEY";
    let further = further_keys(files)?;
    if files.public.exists() {
        rsa_key(pair, &files.public)?;
    }
    let key = SigningKey::load_or_generate_rsa(&files.private, &files.public);
    let keys = KeySet::new(key.map_err(unusable(pair))?);
    Ok(further.into_iter().fold(keys, KeySet::with_verifying_key))
}

/// Those that signed before, or will.
fn further_keys(files: &KeyFiles) -> Result<Vec<VerifyingKey>, SettingError> {
    files.further.iter().map(|path| rsa_key("JWT_VERIFICATION_KEYS", path)).collect()
}

/// A public key. The crate knows others as well; clients of this API are promised RS256.
fn rsa_key(name: &'static str, path: &Path) -> Result<VerifyingKey, SettingError> {
    let wrong = |reason: &dyn std::fmt::Display| {
        SettingError::new(name, format!("{}: {reason}", path.display()))
    };
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let key = VerifyingKey::from_pem(&pem).map_err(|error| wrong(&error))?;
    if key.algorithm() != Algorithm::Rs256 {
        return Err(wrong(&"is no RSA key"));
    }
    Ok(key)
}

/// Reads the key files anew at each SIGHUP. Where they can't be used, or are gone, the keys stay.
async fn change_keys(mut asked: Signal, files: KeyFiles, tokens: TokenService) {
    while asked.recv().await.is_some() {
        // Both gone would be taken for a first start.
        let new = match files.private.exists() {
            true => keys(&files),
            false => Err(SettingError::new("JWT_PRIVATE_KEY", "is gone")),
        };
        match new {
            Ok(keys) => {
                tokens.set_keys(keys);
                tracing::info!("the keys were read anew");
            }
            Err(error) => tracing::error!(%error, "the keys stay as they were"),
        }
    }
}

fn totp(
    settings: &Settings,
    stores: &Stores,
    clock: &SharedClock,
) -> Result<TotpService, SettingError> {
    let keys = SealingKeys::load_or_generate(&settings.secret_key);
    let (keys, issuer) = (keys.map_err(unusable("SECRET_KEY"))?, settings.jwt_issuer.as_str());
    Ok(TotpService::new(stores.accounts.clone(), keys, issuer).with_clock(clock.clone()))
}

fn users(
    settings: &Settings,
    stores: &Stores,
    outbox: Outbox,
    address: SocketAddr,
    clock: &SharedClock,
) -> Result<UserService, SettingError> {
    let base = settings.public_url.clone().unwrap_or_else(|| served_on(address));
    type Mail = fn(&str) -> Result<LinkMail, InvalidLinkUrl>;
    let page = |name, set: &Option<String>, path, mail: Mail| match set {
        Some(url) => mail(url).map_err(unusable(name)),
        None => mail(&format!("{base}{path}")).map_err(unusable("PUBLIC_URL")),
    };
    let verification = page(
        "VERIFICATION_URL",
        &settings.verification_url,
        "/auth/verify",
        LinkMail::verification,
    )?;
    let reset = page("RESET_URL", &settings.reset_url, "/reset", LinkMail::reset)?;
    let change = &settings.email_change_url;
    let change = page("EMAIL_CHANGE_URL", change, "/confirm-email", LinkMail::email_change)?;
    let hashing = HashingPool::new(settings.hasher).map_err(unusable("BCRYPT_COST"))?;
    Ok(UserService::new(Arc::clone(&stores.accounts), hashing, verification, outbox)
        .with_reset_mail(reset)
        .with_email_change_mail(change)
        .with_verification_ttl(settings.verification_token_ttl)
        .with_reset_ttl(settings.reset_token_ttl)
        .with_clock(clock.clone()))
}

/// A URL of this address; of one that stands for all, that of this machine.
fn served_on(mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}")
}

fn outbox(settings: &Settings) -> Result<Outbox, SettingError> {
    let from = settings.mail_from.clone();
    let sender: Arc<dyn MailSender> = match &settings.smtp_url {
        Some(url) => Arc::new(SmtpMailSender::new(url, from).map_err(unusable("SMTP_URL"))?),
        None => {
            Arc::new(FileMailSender::new(&settings.mail_dir, from).map_err(unusable("MAIL_DIR"))?)
        }
    };
    Ok(Outbox::new(sender))
}

async fn limit_store(settings: &Settings) -> Result<Arc<dyn RateLimitStore>, SettingError> {
    let Some(url) = &settings.redis_url else {
        return Ok(Arc::new(MemoryRateLimitStore::new()));
    };
    let redis = RedisRateLimitStore::connect(url).await.map_err(unusable("REDIS_URL"))?;
    let store = FallbackStore::new(redis, MemoryRateLimitStore::new());
    let store = store.with_budget(settings.rate_limit_budget);
    Ok(Arc::new(match settings.rate_limit_on_error {
        OnError::Local => store.with_local_outages(),
        OnError::Allow | OnError::Deny => store,
    }))
}

fn limits(settings: &Settings, store: Arc<dyn RateLimitStore>, clock: &SharedClock) -> Limits {
    Limits {
        store,
        on_failure: match settings.rate_limit_on_error {
            OnError::Deny => OnFailure::Deny,
            OnError::Allow | OnError::Local => OnFailure::Allow,
        },
        clock: clock.clone(),
        quotas: settings.quotas.clone(),
    }
}

/// What has ended is forgotten every minute: a thousand rows at a time, with a
/// pause for others who write, until all are.
async fn clean_up(
    stores: Stores,
    tokens: TokenService,
    keys: ApiKeyService,
    login: LoginSteps,
    clock: SharedClock,
    audit_retention: Duration,
) {
    let mut interval = tokio::time::interval(Duration::from_secs(60));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = clock.now();
        let (accounts, old) = (&stores.accounts, now - audit_retention);
        let ended = [
            all_of(|at_most| tokens.delete_expired(at_most)).await,
            all_of(|at_most| accounts.delete_events(old, at_most)).await,
            all_of(|at_most| accounts.delete_expired_links(now, at_most)).await,
            all_of(|at_most| keys.delete_revoked(at_most)).await,
            all_of(|at_most| login.delete_expired(at_most)).await,
        ];
        for error in ended.into_iter().filter_map(Result::err) {
            tracing::warn!(error = &error as &dyn Error, "what has ended could not be forgotten");
        }
    }
}

async fn all_of<F>(step: impl Fn(u32) -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    const AT_MOST: u32 = 1000;
    const PAUSE: Duration = Duration::from_millis(20);
    while step(AT_MOST).await? == u64::from(AT_MOST) {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn bind(name: &'static str, address: &str) -> Result<TcpListener, SettingError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| SettingError::new(name, format!("{address}: {error}")))
}

fn unusable<E: Error>(name: &'static str) -> impl Fn(E) -> SettingError {
    move |error| SettingError::caused(name, &error)
}
