//! Every setting: its variable, its default, and what it means.

/// A setting that is a variable and a flag.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub default: Option<&'static str>,
    pub about: &'static str,
    /// Whether `NAME_FILE` may name a file that holds the value.
    pub secret: bool,
}

const fn row(name: &'static str, default: &'static str, about: &'static str) -> Row {
    Row { name, default: Some(default), about, secret: false }
}

const fn unset(name: &'static str, about: &'static str) -> Row {
    Row { name, default: None, about, secret: false }
}

const fn secret(row: Row) -> Row {
    Row { secret: true, ..row }
}

pub const SETTINGS: &[Row] = &[
    row("BIND_ADDR", "127.0.0.1:3000", "Address to serve on; port 0 picks a free one"),
    secret(row(
        "DATABASE_URL",
        "sqlite:data/server.db",
        "sqlite:PATH, sqlite::memory: or postgres://…",
    )),
    secret(unset(
        "REDIS_URL",
        "redis://…, rediss://…, unix:///…; several, comma-separated: a Redis Cluster \
         [default: limits are counted in this process]",
    )),
    row(
        "JWT_PRIVATE_KEY",
        "config/jwt-private.pem",
        "PEM file of the key that signs; generated with the other where both are missing",
    ),
    row("JWT_PUBLIC_KEY", "config/jwt-public.pem", "PEM file of the key that verifies"),
    unset(
        "JWT_VERIFICATION_KEYS",
        "PEM files, comma-separated, of further public keys whose tokens are good [default: none]",
    ),
    row("JWT_ISSUER", "tower-warden", "`iss` of access tokens"),
    row("JWT_AUDIENCE", "api", "`aud` of access tokens"),
    row("ACCESS_TOKEN_TTL", "15m", "How long an access token lives"),
    row("REFRESH_TOKEN_TTL", "7d", "How long a refresh token lives"),
    row(
        "REFRESH_LEEWAY",
        "0s",
        "For how long a replaced refresh token, sent again, answers the same new one (60s at most)",
    ),
    row("VERIFICATION_TOKEN_TTL", "24h", "How long the link in a verification mail works"),
    row("RESET_TOKEN_TTL", "30m", "How long the link of a forgotten password works"),
    unset("ADMIN_EMAIL", "Address of an admin, created or promoted at start"),
    secret(unset("ADMIN_PASSWORD", "Password of that admin, where it is created")),
    row("MAIL_DIR", "data/mail", "Where mail goes as .eml files, when SMTP_URL is unset"),
    secret(unset("SMTP_URL", "smtp://… or smtps://…: where mail is sent")),
    unset(
        "MAIL_FROM",
        "Sender of mail, also as Name <address>; its domain greets the mail server \
         [default: no-reply@ and the host of PUBLIC_URL]",
    ),
    unset("PUBLIC_URL", "Base of the links in mail [default: the address served on]"),
    row(
        "SECRET_KEY",
        "config/secret.key",
        "File of the key that seals second-factor secrets, in hex; generated where it is missing. More \
         lines hold older keys, which still open",
    ),
    unset(
        "VERIFICATION_URL",
        "Page of a front end that confirms an address; ?token=… is added \
         [default: PUBLIC_URL/auth/verify]",
    ),
    unset("RESET_URL", "The same, that sets a new password [default: PUBLIC_URL/reset]"),
    unset(
        "EMAIL_CHANGE_URL",
        "The same, that confirms a new address [default: PUBLIC_URL/confirm-email]",
    ),
    unset(
        "TRUSTED_PROXIES",
        "CIDR list of proxies whose forwarding header is believed, or hops:N where they have no \
         known addresses [default: none]",
    ),
    row(
        "FORWARDED_HEADER",
        "x-forwarded-for",
        "The one header that the proxies set: x-forwarded-for, forwarded, or one that holds a \
         single address, such as x-real-ip",
    ),
    row("RATE_LIMIT_PUBLIC", "100/1m", "Requests per client IP on routes without authentication"),
    row("RATE_LIMIT_USER", "300/1m", "Requests per user without a plan"),
    row("RATE_LIMIT_LOGIN", "5/15m", "Failed logins per client IP"),
    row("RATE_LIMIT_ACCOUNT", "50/1h", "Failed logins per account, from all addresses together"),
    row("RATE_LIMIT_REGISTER", "100/1h", "Registrations and mails asked for, per client IP"),
    row("RATE_LIMIT_FREE", "60/1m", "Requests per user of the plan `free`"),
    row("RATE_LIMIT_PAID", "600/1m", "Requests per user of the plan `paid`"),
    row("RATE_LIMIT_ENTERPRISE", "3000/1m", "Requests per user of the plan `enterprise`"),
    row(
        "RATE_LIMIT_ON_ERROR",
        "allow",
        "While the store of the limits is gone: allow, deny, or local (count in process)",
    ),
    row(
        "RATE_LIMIT_BUDGET",
        "25ms",
        "The longest that a request waits for the store of the limits",
    ),
    row("BCRYPT_COST", "12", "bcrypt cost of password hashes, 4 to 31"),
    unset("CORS_ALLOWED_ORIGINS", "Comma-separated origins whose scripts may call [default: none]"),
    row(
        "HEADER_TIMEOUT",
        "10s",
        "The longest that a connection may take for the head of a request",
    ),
    row("BODY_TIMEOUT", "30s", "The longest that the body of a request may take"),
    row("IDLE_TIMEOUT", "75s", "How long a connection may be idle"),
    row("MAX_CONNECTIONS", "8192", "Connections at a time; 0 for any number"),
    row(
        "MAX_CONNECTIONS_PER_IP",
        "512",
        "Connections of one client, but for trusted proxies, at a time; 0 for any number",
    ),
    unset(
        "METRICS_ADDR",
        "An address of its own for GET /metrics, in Prometheus form, /health/live and \
         /health/ready [default: none]",
    ),
    row(
        "AUDIT",
        "table",
        "Where audit events go: table (audit_events, in the database), log (lines of the target \
         tower_warden::audit), both, comma-separated, or off",
    ),
    row("AUDIT_RETENTION", "400d", "How long the table keeps audit events"),
    row("RUST_LOG", "info", "Log filter"),
];
