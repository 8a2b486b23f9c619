//! Passwords and codes that are tried: so many wrong ones by client address, and so many by account.
//!
//! An attempt is taken before it is looked at, once the body has come whole, and given back unless it
//! was wrong; so parallel guesses can't slip through, and who hangs up has used one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::Response,
};
use http::request::Parts;
use tokio::time::timeout;
use tower_warden::{
    ClientIp, Problem, RateLimiter, StoreError, TokenHash, UserId,
    limit::{RateLimited, Standing},
    user::Email,
};

use super::{
    App,
    error::Answer,
    limits::{Limits, word_attempts},
};

/// What says of an attempt that it was wrong.
const WRONG: [&str; 4] = ["invalid_credentials", "invalid_code", "wrong_password", "wrong_code"];

/// For handlers that look at a password or a code; an extractor. [`tell`] belongs around them, and one of
/// the layers of [`Limits`] that guard.
pub struct Guesses {
    app: App,
    client: ClientIp,
    said: Said,
}

/// How the limits stand, on its way to the response.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<Standing>>>);

impl Guesses {
    /// Looks at a password or a code of the account that has this address; of nobody knows which,
    /// where there is none. Refused where too many were wrong. What comes of it counts where it says
    /// that it was wrong.
    pub async fn check<T>(
        &self,
        account: Option<&str>,
        look: impl Future<Output = Answer<T>>,
    ) -> Answer<T> {
        let [by_address, by_account] = self.app.limits.guesses();
        // Taken at once: who hangs up while it is found out whose account that is has used it.
        let of_address = by_address.ask(self.client).reserve().await.map_err(worded)?;
        let mut of_account = None;
        if let Some(account) = account {
            match by_account.ask(hashed(account)).reserve().await {
                Ok(reserved) => of_account = Some((reserved, account)),
                Err(_) if self.is_owner(account).await => {}
                Err(refused) => {
                    // What one limiter refuses the other does not count.
                    self.say(of_address.give_back().await);
                    return Err(worded(refused));
                }
            }
        }
        let outcome = look.await;
        let wrong = outcome.as_ref().is_err_and(|problem| WRONG.contains(&problem.code()));
        match of_account {
            // Whose it is matters only where it would count.
            Some((reserved, account)) if wrong && self.is_owner(account).await => {
                drop(reserved.give_back().await);
            }
            Some((reserved, _)) => self.say(reserved.settle(|_| wrong).await),
            None => {}
        }
        self.say(of_address.settle(|_| wrong).await);
        outcome
    }

    fn say(&self, standing: Standing) {
        self.said.0.lock().unwrap_or_else(PoisonError::into_inner).push(standing);
    }

    /// Whether the account has a live session from this client: a stranger's guesses must not lock its
    /// owner out.
    ///
    /// Whatever goes wrong with that, or takes long, the login goes on, and counts. Where there is no
    /// such account, as much is asked.
    async fn is_owner(&self, account: &str) -> bool {
        let Ok(email) = Email::parse(account) else { return false };
        let (app, client) = (self.app.clone(), self.client);
        let found = tokio::spawn(async move {
            let user = app.users.find_by_email(&email).await.ok()?;
            let id = user.map_or_else(UserId::random, |user| user.id);
            let sessions = app.tokens.sessions(&id).await.ok()?;
            let ips = sessions.iter().filter_map(|session| session.family.info.ip());
            Some(ips.map(ClientIp::from).any(|ip| ip == client))
        });
        matches!(timeout(Duration::from_millis(500), found).await, Ok(Ok(Some(true))))
    }
}

/// Forgets the wrong attempts at this account: its owner has proved to be its owner.
pub async fn forgive(limits: &Limits, account: &Email) -> Result<(), StoreError> {
    let [_, by_account]: [RateLimiter; 2] = limits.guesses();
    by_account.reset(hashed(account.as_str())).await
}

impl FromRequestParts<App> for Guesses {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let proxies = &app.limits.quotas.proxies;
        let client = proxies.client_ip(&parts.headers, &parts.extensions).map_err(|error| {
            tracing::error!(%error, "can't tell who guesses");
            Problem::internal()
        })?;
        let said = parts.extensions.get().cloned().unwrap_or_default();
        Ok(Self { app: app.clone(), client, said })
    }
}

/// Says in the response how the limits on guesses stand, where they were asked.
pub async fn tell(mut request: Request, next: Next) -> Response {
    let said = Said::default();
    request.extensions_mut().insert(said.clone());
    let mut response = next.run(request).await;
    for standing in said.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        standing.write(&mut response);
    }
    response
}

/// The address that was tried, as it would be kept; hashed, as what is tried may be anything.
fn hashed(account: &str) -> String {
    let canonical = Email::parse(account).map(|email| email.to_string());
    let canonical = canonical.unwrap_or_else(|_| account.trim().to_ascii_lowercase());
    let hash = TokenHash::of(&canonical);
    hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn worded(refused: RateLimited) -> Problem {
    match refused.exceeded().cloned() {
        Some(exceeded) => word_attempts(&exceeded, refused.into()),
        None => refused.into(),
    }
}
