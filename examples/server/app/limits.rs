//! Who may how often: the three limiters of the API.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use tower_warden::{
    Plan, Problem, Quota, RateLimitLayer, Refusal, RefusalHook, RefusalReason, RequestHead, Role,
    SharedClock, TrustedProxies,
    limit::{Charge, Exceeded, OnFailure, RateLimitStore, Rule},
};

/// The quotas, and where the counts are kept.
#[derive(Clone, Debug)]
pub struct Limits {
    pub store: Arc<dyn RateLimitStore>,
    pub on_failure: OnFailure,
    pub clock: SharedClock,
    pub quotas: Quotas,
}

/// Who may how often, and which proxies are believed about who it is.
#[derive(Clone, Debug)]
pub struct Quotas {
    pub proxies: TrustedProxies,
    pub public: Quota,
    pub user: Quota,
    pub login: Quota,
    pub free: Quota,
    pub paid: Quota,
    pub enterprise: Quota,
}

/// What the limiters are called.
pub const LIMITERS: [&str; 3] = ["ip", "login", "user"];

impl Limits {
    /// For routes without authentication.
    pub fn public(&self) -> RateLimitLayer {
        self.layer([self.by_address()])
    }

    /// For the login: beside the public limit, one on guesses.
    pub fn login(&self) -> RateLimitLayer {
        let guesses = Rule::per_ip("login", self.quotas.login)
            .behind(self.quotas.proxies.clone())
            .when(|request| request.method == Method::POST)
            .with_cost(weight)
            .charging(Charge::status(StatusCode::UNAUTHORIZED));
        self.layer([self.by_address(), guesses]).with_refusal(RefusalHook::new(word_login))
    }

    /// For routes with authentication: users by their plan, all others by their address.
    pub fn signed_in(&self) -> RateLimitLayer {
        let users = Rule::per_user("user", self.quotas.user)
            .with_plan(Plan::FREE, self.quotas.free)
            .with_plan(Plan::PAID, self.quotas.paid)
            .with_plan(Plan::ENTERPRISE, self.quotas.enterprise)
            .exempt_role(Role::ADMIN);
        let strangers = self.by_address().when(|request| request.identity().is_none());
        self.layer([users, strangers])
    }

    fn by_address(&self) -> Rule {
        Rule::per_ip("ip", self.quotas.public).behind(self.quotas.proxies.clone()).with_cost(weight)
    }

    fn layer(&self, rules: impl IntoIterator<Item = Rule>) -> RateLimitLayer {
        RateLimitLayer::new(Arc::clone(&self.store), rules)
            .with_on_failure(self.on_failure)
            .with_clock(Arc::clone(&self.clock))
    }
}

/// Of a login that is one too many: in minutes, as its limit is the longest.
fn word_login(refusal: &Refusal<'_>, problem: Problem) -> Problem {
    match refusal.reason {
        RefusalReason::Exceeded(Exceeded { limiter, retry_after: Some(wait), .. })
            if *limiter == "login" =>
        {
            let minutes = wait.div_ceil(60);
            let s = if minutes == 1 { "" } else { "s" };
            problem
                .with_code("too_many_login_attempts")
                .with_detail(format!("Too many login attempts. Try again in {minutes} minute{s}."))
        }
        _ => problem,
    }
}

/// A request that is refused for its headers isn't counted, but told how its limits stand.
fn weight(request: &RequestHead<'_>) -> u32 {
    let ambiguous = request.headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some();
    u32::from(!ambiguous)
}
