//! [`SessionCookies`]: sessions of browsers, in cookies.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue, header};

use super::{AuthError, Authenticate};
use crate::{Answer, Identity, RequestHead, SharedClock, SystemClock, token::TokenPair};

/// The tokens of a session in cookies, for browsers: out of reach of scripts, and sent by the browser
/// itself, for WebSockets and `EventSource` too, which can't send an `Authorization` header.
///
/// 1. Two cookies, `__Host-access` and `__Host-refresh` ([unless told otherwise](Self::with_names)):
///    `Secure`, `HttpOnly`, `SameSite=Strict`, of this very host (RFC 6265bis, section 4.1.3.2). The first
///    may be [left out](Self::without_access_token): then the page holds the access token in memory, sends it
///    as a Bearer token, and asks for a new one when it is loaded.
/// 2. A cookie comes with whatever request a browser makes, another site's too. So one is believed only
///    where the browser says that the request is of the same origin (`Sec-Fetch-Site`, or else
///    `Origin` is the host that was asked, by `https`), or of a [trusted](Self::with_trusted_origin) one. This
///    holds for every method: a WebSocket begins with `GET`. What is no browser says neither, and is
///    believed.
/// 3. Routes that change something without looking at these cookies (a login: so that nobody is logged
///    in as somebody else) want tower-http's `CsrfLayer` around them.
///
/// A proxy must pass `Host` and `Origin` on as they came; nginx needs `proxy_set_header Host $http_host;`
/// for that.
///
/// ```
/// use http::Request;
/// use tower_warden::{
///     Identity, RequestHead, RequireAuth, Role, TokenService, UserId,
///     auth::{FirstOf, SessionCookies},
/// };
/// # use tower_warden::{store::memory::MemoryStore, token::{KeySet, SigningKey}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let cookies = SessionCookies::new();
/// // At login, and at each refresh: these are the response's `Set-Cookie` headers.
/// let pair = tokens.issue(&Identity::new(UserId::from("ada"), Role::EDITOR)).await?;
/// let set = cookies.set(&pair)?;
/// assert!(set[0].to_str()?.starts_with("__Host-refresh="));
///
/// // Apps come with Bearer tokens, browsers with cookies.
/// let auth = RequireAuth::new(FirstOf::new().or(tokens.clone()).or(cookies.of(tokens)));
///
/// // At the refresh:
/// let sent = format!("__Host-refresh={}", pair.refresh_token().expose());
/// let request = Request::post("/refresh").header("cookie", sent).body(())?;
/// assert_eq!(cookies.refresh_token(&RequestHead::from(&request))?, pair.refresh_token().expose());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionCookies {
    access: bool,
    names: Names,
    /// Which hosts are sent them, too.
    domain: Option<Arc<str>>,
    same_site: &'static str,
    trusted: Vec<HeaderValue>,
    clock: SharedClock,
}

#[derive(Clone, Debug)]
struct Names {
    access: Arc<str>,
    refresh: Arc<str>,
}

/// Of one host, which no other can set (RFC 6265bis, section 4.1.3.2).
const OF_HOST: &str = "__Host-";
/// Of a domain; hosts of it that have TLS can set them.
const OF_DOMAIN: &str = "__Secure-";

/// What browsers keep of a cookie, at most, name and attributes apart (RFC 6265bis, section 5.6).
const LONGEST: usize = 4096;

/// An access token that no browser would keep: further claims make it too long.
///
/// ```
/// use tower_warden::{Identity, Role, UserId, auth::{CookieTooLong, SessionCookies}};
/// # use tower_warden::{TokenService, store::memory::MemoryStore, token::{KeySet, SigningKey}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let ada = Identity::new(UserId::from("ada"), Role::EDITOR).with_claim("notes", "x".repeat(4096));
/// let pair = tokens.issue(&ada).await?;
/// assert!(matches!(SessionCookies::new().set(&pair), Err(CookieTooLong { .. })));
/// assert!(SessionCookies::new().without_access_token().set(&pair).is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is too long for a cookie: browsers keep 4096 bytes")]
#[non_exhaustive]
pub struct CookieTooLong;

impl Default for SessionCookies {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionCookies {
    /// Both tokens in cookies, which other sites never send.
    pub fn new() -> Self {
        let clock = SystemClock::shared();
        let names = Names { access: "__Host-access".into(), refresh: "__Host-refresh".into() };
        Self { access: true, names, domain: None, same_site: "Strict", trusted: Vec::new(), clock }
    }

    /// The same by other names than `access` and `refresh`, where several services share a host. The
    /// prefix `__Host-` stands before them all the same.
    ///
    /// ```
    /// use tower_warden::auth::SessionCookies;
    /// let cookies = SessionCookies::new().with_names("shop-access", "shop-refresh").clear();
    /// assert!(cookies[0].to_str()?.starts_with("__Host-shop-refresh=;"));
    /// # Ok::<(), http::header::ToStrError>(())
    /// ```
    ///
    /// # Panics
    /// Where one is empty, or holds anything else than letters, digits, `-` and `_`, or both are one.
    pub fn with_names(self, access: &str, refresh: &str) -> Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let valid = |name: &str| !name.is_empty() && name.bytes().all(plain);
        assert!(
            valid(access) && valid(refresh) && access != refresh,
            "cookies have two names, of letters, digits, - and _"
        );
        let prefix = if self.domain.is_some() { OF_DOMAIN } else { OF_HOST };
        let name = |name| format!("{prefix}{name}").into();
        Self { names: Names { access: name(access), refresh: name(refresh) }, ..self }
    }

    /// The same with cookies that browsers send to all hosts of this domain, where the front end and
    /// several services share a session. They are weaker: each of these hosts sees the tokens, and may set
    /// others in their place, so the prefix is `__Secure-` instead of `__Host-`. Pages at other hosts than
    /// the one that is asked need [`with_trusted_origin`](Self::with_trusted_origin).
    ///
    /// ```
    /// use tower_warden::auth::SessionCookies;
    /// let cookies = SessionCookies::new().with_domain("shop.example").clear();
    /// assert!(cookies[0].to_str()?.starts_with("__Secure-refresh=; Domain=shop.example; Path=/;"));
    /// # Ok::<(), http::header::ToStrError>(())
    /// ```
    ///
    /// # Panics
    /// Where it can be no domain.
    pub fn with_domain(self, domain: &str) -> Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        let valid = domain.starts_with(|c: char| c.is_ascii_alphanumeric());
        assert!(valid && domain.bytes().all(plain), "a domain is a name such as shop.example");
        let name = |name: &str| match name.strip_prefix(OF_HOST) {
            Some(name) => format!("{OF_DOMAIN}{name}").into(),
            None => name.into(),
        };
        let names = Names { access: name(&self.names.access), refresh: name(&self.names.refresh) };
        Self { names, domain: Some(domain.into()), ..self }
    }

    /// The same with the refresh token alone in a cookie.
    pub fn without_access_token(self) -> Self {
        Self { access: false, ..self }
    }

    /// The same with `SameSite=Lax`: who follows a link from elsewhere is signed in at once.
    pub fn lax(self) -> Self {
        Self { same_site: "Lax", ..self }
    }

    /// The same, with cookies believed that come with requests of this origin, too
    /// (`https://app.example`): a page of yours at another host of the same site.
    ///
    /// # Panics
    /// Where it can be no origin.
    pub fn with_trusted_origin(mut self, origin: &str) -> Self {
        let valid = authority(origin.as_bytes()).is_some_and(|host| !host.contains(&b'/'));
        let value = HeaderValue::try_from(origin).ok().filter(|_| valid);
        assert!(value.is_some(), "an origin is a scheme and a host, such as https://app.example");
        self.trusted.extend(value);
        self
    }

    /// Where time comes from.
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// The values of `Set-Cookie` that begin a session, or go on with it.
    ///
    /// # Errors
    /// [`CookieTooLong`] for an access token of more than 4 KiB.
    pub fn set(&self, pair: &TokenPair) -> Result<Vec<HeaderValue>, CookieTooLong> {
        let ends = pair.refresh_expires_at().duration_since(self.clock.now()).unwrap_or_default();
        let refresh =
            self.cookie(&self.names.refresh, pair.refresh_token().expose(), ends.as_secs())?;
        let mut cookies = vec![refresh];
        if self.access {
            let seconds = pair.expires_in().as_secs();
            cookies.push(self.cookie(&self.names.access, pair.access_token(), seconds)?);
        }
        Ok(cookies)
    }

    /// The values of `Set-Cookie` that end it in the browser. The session itself is ended by
    /// [`logout`](crate::TokenService::logout).
    #[must_use]
    pub fn clear(&self) -> Vec<HeaderValue> {
        let Names { access, refresh } = &self.names;
        [refresh, access].into_iter().filter_map(|name| self.cookie(name, "", 0).ok()).collect()
    }

    /// The refresh token that a request brings.
    ///
    /// # Errors
    /// [`AuthError::Missing`], [`AuthError::Ambiguous`] for two of them; [`AuthError::CrossSite`]
    /// where another site made the request.
    pub fn refresh_token<'a>(&self, request: &RequestHead<'a>) -> Result<&'a str, AuthError> {
        self.find(request, &self.names.refresh)
    }

    /// Knows callers by the access token in their cookie, where this authenticator knows them by a
    /// Bearer token. A request that has an `Authorization` header is none of its business.
    pub fn of(&self, tokens: impl Authenticate) -> CookieAuthenticator {
        CookieAuthenticator { cookies: Arc::new(self.clone()), tokens: Arc::new(tokens) }
    }

    fn cookie(&self, name: &str, value: &str, age: u64) -> Result<HeaderValue, CookieTooLong> {
        if name.len() + value.len() > LONGEST {
            return Err(CookieTooLong);
        }
        let same_site = self.same_site;
        let domain = match &self.domain {
            Some(domain) => format!(" Domain={domain};"),
            None => String::new(),
        };
        let cookie = format!(
            "{name}={value};{domain} Path=/; Max-Age={age}; Secure; HttpOnly; SameSite={same_site}"
        );
        // Tokens are base64url and hex, with dots: always a header.
        let mut cookie = HeaderValue::try_from(cookie).map_err(|_| CookieTooLong)?;
        cookie.set_sensitive(true);
        Ok(cookie)
    }

    fn find<'a>(&self, request: &RequestHead<'a>, name: &str) -> Result<&'a str, AuthError> {
        let mut found = cookies(request.headers).filter(|(found, _)| *found == name);
        let value = match (found.next(), found.next()) {
            (Some((_, value)), None) if !value.is_empty() => value,
            (Some(_), Some(_)) => return Err(AuthError::Ambiguous("session cookie")),
            _ => return Err(AuthError::Missing),
        };
        match self.is_own(request) {
            true => Ok(value),
            false => Err(AuthError::CrossSite),
        }
    }

    /// Whether a page of ours made the request, as far as a browser says.
    fn is_own(&self, request: &RequestHead<'_>) -> bool {
        let origin = request.headers.get(header::ORIGIN);
        if origin.is_some_and(|origin| self.trusted.contains(origin)) {
            return true;
        }
        match (request.headers.get("sec-fetch-site"), origin) {
            (Some(site), _) => matches!(site.as_bytes(), b"same-origin" | b"none"),
            (None, Some(origin)) => {
                let asked = request.uri.authority().map(|host| host.as_str().as_bytes());
                let asked = asked.or(request.headers.get(header::HOST).map(HeaderValue::as_bytes));
                asked.is_some_and(|asked| is_page_of(origin.as_bytes(), asked))
            }
            (None, None) => true,
        }
    }
}

/// Whether an origin is this host, whose cookies are `Secure`: a page of it without TLS may be of
/// whoever sits on the network, but on this very machine.
fn is_page_of(origin: &[u8], host: &[u8]) -> bool {
    authority(origin) == Some(host) && (origin.starts_with(b"https://") || is_this_machine(host))
}

/// Whether browsers keep `Secure` cookies of this host without TLS.
fn is_this_machine(host: &[u8]) -> bool {
    let name = match host.iter().rposition(|b| *b == b':') {
        Some(at) if host[at + 1..].iter().all(u8::is_ascii_digit) => &host[..at],
        _ => host,
    };
    let address = std::str::from_utf8(name).ok().map(|name| name.trim_matches(['[', ']']));
    let loopback = address.and_then(|name| name.parse::<std::net::IpAddr>().ok());
    loopback.is_some_and(|ip| ip.is_loopback())
        || name == b"localhost"
        || name.ends_with(b".localhost")
}

/// `https://app.example:8443`: what comes after the scheme.
fn authority(origin: &[u8]) -> Option<&[u8]> {
    let at = origin.windows(3).position(|three| three == b"://")?;
    Some(&origin[at + 3..]).filter(|host| !host.is_empty())
}

/// All cookies of a request (RFC 6265, section 4.2.1).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// Knows callers by the access token in their cookie: what [`SessionCookies::of`] makes.
///
/// ```
/// use tower_warden::{RequireAuth, TokenService, auth::{FirstOf, SessionCookies}};
///
/// /// Browsers come with a cookie, everything else with a Bearer token.
/// fn either(tokens: TokenService) -> RequireAuth {
///     RequireAuth::new(FirstOf::new().or(SessionCookies::new().of(tokens.clone())).or(tokens))
/// }
/// ```
#[derive(Clone)]
pub struct CookieAuthenticator {
    cookies: Arc<SessionCookies>,
    tokens: Arc<dyn Authenticate>,
}

impl Authenticate for CookieAuthenticator {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        if request.headers.contains_key(header::AUTHORIZATION) {
            return Answer::Ready(Err(AuthError::Missing));
        }
        let token = match self.cookies.find(&request, &self.cookies.names.access) {
            Ok(token) => token,
            Err(error) => return Answer::Ready(Err(error)),
        };
        let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}")) else {
            return Answer::Ready(Err(AuthError::Invalid("no token")));
        };
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
        self.tokens.authenticate(RequestHead { headers: &headers, ..request })
    }
}

impl fmt::Debug for CookieAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CookieAuthenticator").field(&self.tokens).finish()
    }
}
