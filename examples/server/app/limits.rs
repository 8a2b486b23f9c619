//! Who may how often: the limiters that stand in front of routes. Those that a handler asks, once it
//! knows whose password is tried, are in [`guesses`](super::guesses).

use std::sync::Arc;

use http::{Method, StatusCode, header};
use tower_warden::{
    Plan, Problem, ProblemCode, Quota, RateLimitLayer, RateLimiter, Refusal, RefusalHook,
    RefusalReason, RequestHead, Role, Rule, SharedClock, TrustedProxies,
    limit::{Charge, Exceeded, OnFailure, RateLimitStore},
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
    pub account: Quota,
    pub register: Quota,
    pub free: Quota,
    pub paid: Quota,
    pub enterprise: Quota,
}

/// What the limiters are called.
pub const LIMITERS: [&str; 5] = ["ip", "login", "account", "register", "user"];

const TOO_MANY_ATTEMPTS: &str = "too_many_login_attempts";

impl Limits {
    /// For routes without authentication.
    pub fn public(&self) -> RateLimitLayer {
        self.layer(self.by_address())
    }

    /// For the registration: what makes no account counts for nothing.
    pub fn registering(&self) -> RateLimitLayer {
        let made = Charge::status(StatusCode::CREATED);
        self.layer([self.by_address(), self.registrations().charging(made)])
    }

    /// For routes without authentication by which a mail is asked for.
    pub fn mailing(&self) -> RateLimitLayer {
        self.layer([self.by_address(), self.registrations()])
    }

    /// For routes without authentication at which a password or a code is tried
    /// ([`Guesses`](super::guesses::Guesses)).
    pub fn login(&self) -> RateLimitLayer {
        let by_address = self.by_address().charging(unless_refused_within());
        self.layer([by_address, self.guard()]).with_refusal(RefusalHook::new(word))
    }

    /// For routes with authentication: users by their plan, all others by their address.
    pub fn signed_in(&self) -> RateLimitLayer {
        self.layer(self.callers())
    }

    /// For those of them at which a password or a code is tried.
    pub fn guarded(&self) -> RateLimitLayer {
        let callers = self.callers().map(|rule| rule.charging(unless_refused_within()));
        let guard = self.guard().when(|request| request.identity().is_some());
        self.layer(callers.into_iter().chain([guard])).with_refusal(RefusalHook::new(word))
    }

    /// For those of these that send a mail as well.
    pub fn guarded_mailing(&self) -> RateLimitLayer {
        let callers = self.callers().into_iter().chain([self.registrations()]);
        let rules = callers.map(|rule| rule.charging(unless_refused_within()));
        let guard = self.guard().when(|request| request.identity().is_some());
        self.layer(rules.chain([guard])).with_refusal(RefusalHook::new(word))
    }

    /// Wrong passwords and codes by client address, and by account.
    pub fn guesses(&self) -> [RateLimiter; 2] {
        [("login", self.quotas.login), ("account", self.quotas.account)].map(|(name, quota)| {
            RateLimiter::new(Arc::clone(&self.store), name, quota)
                .with_on_failure(self.on_failure)
                .with_clock(Arc::clone(&self.clock))
        })
    }

    fn callers(&self) -> [Rule; 2] {
        let users = Rule::per_user("user", self.quotas.user)
            .with_plan(Plan::FREE, self.quotas.free)
            .with_plan(Plan::PAID, self.quotas.paid)
            .with_plan(Plan::ENTERPRISE, self.quotas.enterprise)
            .exempt_role(Role::ADMIN);
        let strangers = self.by_address().when(|request| request.identity().is_none());
        [users, strangers]
    }

    fn by_address(&self) -> Rule {
        Rule::per_ip("ip", self.quotas.public).behind(self.quotas.proxies.clone())
    }

    fn registrations(&self) -> Rule {
        Rule::per_ip("register", self.quotas.register)
            .behind(self.quotas.proxies.clone())
            .when(|request| request.method == Method::POST && has_one_authorization(request))
    }

    /// Refuses whom nothing is left. An attempt is taken only once the body has come whole.
    fn guard(&self) -> Rule {
        Rule::per_ip("login", self.quotas.login)
            .behind(self.quotas.proxies.clone())
            .when(|request| request.method == Method::POST && has_one_authorization(request))
            .guarding()
    }

    fn layer(&self, rules: impl IntoIterator<Item = Rule>) -> RateLimitLayer {
        RateLimitLayer::new(Arc::clone(&self.store), rules)
            .with_on_failure(self.on_failure)
            .with_clock(Arc::clone(&self.clock))
    }
}

/// What the limits on guesses refuse, no other counts.
fn unless_refused_within() -> Charge {
    let code = |ProblemCode(code): &ProblemCode| *code == TOO_MANY_ATTEMPTS;
    Charge::when(move |response| !response.extensions.get().is_some_and(code))
}

fn word(refusal: &Refusal<'_>, problem: Problem) -> Problem {
    match refusal.reason {
        RefusalReason::Exceeded(exceeded) => word_attempts(exceeded, problem),
        _ => problem,
    }
}

/// Of a guess that is one too many: in minutes, as its limits are the longest.
pub fn word_attempts(exceeded: &Exceeded, problem: Problem) -> Problem {
    match exceeded {
        Exceeded { limiter, retry_after: Some(wait), .. }
            if *limiter == "login" || *limiter == "account" =>
        {
            let minutes = wait.div_ceil(60);
            let s = if minutes == 1 { "" } else { "s" };
            problem
                .with_code(TOO_MANY_ATTEMPTS)
                .with_detail(format!("Too many login attempts. Try again in {minutes} minute{s}."))
        }
        _ => problem,
    }
}

/// With two it is refused for its headers, and counts by address only.
fn has_one_authorization(request: &RequestHead<'_>) -> bool {
    request.headers.get_all(header::AUTHORIZATION).iter().nth(1).is_none()
}
