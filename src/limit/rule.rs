//! Whom to count, and by which quota.

use std::{fmt, sync::Arc};

use super::{Charge, Key, LimiterName, Quota, store::Take};
use crate::{Identity, NoPeerAddr, Plan, RequestHead, Role, TrustedProxies};

/// One limiter: for each request it says whom to count, by which quota, and how much; or that the
/// request is none of its business.
///
/// ```
/// use tower_warden::{Plan, Quota, Role, Rule};
///
/// let callers = Rule::per_user("user", Quota::per_minute(300))
///     .with_plan(Plan::FREE, Quota::per_minute(60))
///     .with_plan(Plan::PAID, Quota::per_minute(600))
///     .exempt_role(Role::ADMIN);
/// let strangers = Rule::per_ip("ip", Quota::per_minute(100))
///     .when(|request| request.identity().is_none());
/// let by_api_key = Rule::by("key", |request| {
///     let key = request.headers.get("x-api-key")?.to_str().ok()?;
///     Some((key.into(), Quota::per_second(10)))
/// });
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rule {
    name: LimiterName,
    whom: Whom,
    applies: Option<Arc<Predicate>>,
    cost: Option<Arc<Cost>>,
    charge: Charge,
}

type Predicate = dyn Fn(&RequestHead<'_>) -> bool + Send + Sync;
type Cost = dyn Fn(&RequestHead<'_>) -> u32 + Send + Sync;
type Choose = dyn Fn(&RequestHead<'_>) -> Option<(Key, Quota)> + Send + Sync;

#[derive(Clone)]
enum Whom {
    ClientIp { quota: Quota, proxies: TrustedProxies },
    User { quota: Quota, plans: Vec<(Plan, Quota)>, exempt: Vec<Role> },
    Chosen(Arc<Choose>),
}

impl Rule {
    /// Counts by client address: IPv4, or IPv6 by /64. See [`TrustedProxies`].
    ///
    /// `name` tells this limiter from others, in the store and in the headers that clients see.
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn per_ip(name: impl AsRef<str>, quota: Quota) -> Self {
        Self::new(name, Whom::ClientIp { quota, proxies: TrustedProxies::none() })
    }

    /// Counts by user; says nothing of requests without an [`Identity`].
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn per_user(name: impl AsRef<str>, quota: Quota) -> Self {
        Self::new(name, Whom::User { quota, plans: Vec::new(), exempt: Vec::new() })
    }

    /// Counts whom the function says, by the quota it says; requests for which it says `None` are
    /// exempt. A key has one count, so what has quotas of its own needs a key of its own.
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn by(
        name: impl AsRef<str>,
        choose: impl Fn(&RequestHead<'_>) -> Option<(Key, Quota)> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, Whom::Chosen(Arc::new(choose)))
    }

    /// Client addresses are those that these proxies forward.
    ///
    /// # Panics
    /// Where the rule is not one [`per_ip`](Self::per_ip).
    pub fn behind(mut self, proxies: TrustedProxies) -> Self {
        let Whom::ClientIp { proxies: none, .. } = &mut self.whom else {
            panic!("{:?}: only a rule per IP is behind proxies", self.name);
        };
        *none = proxies;
        self
    }

    /// Users of this plan have another quota.
    ///
    /// # Panics
    /// Where the rule is not one [`per_user`](Self::per_user).
    pub fn with_plan(mut self, plan: Plan, quota: Quota) -> Self {
        let Whom::User { plans, .. } = &mut self.whom else {
            panic!("{:?}: only a rule per user has plans", self.name);
        };
        plans.push((plan, quota));
        self
    }

    /// Users with this role are not limited.
    ///
    /// # Panics
    /// Where the rule is not one [`per_user`](Self::per_user).
    pub fn exempt_role(mut self, role: Role) -> Self {
        let Whom::User { exempt, .. } = &mut self.whom else {
            panic!("{:?}: only a rule per user exempts roles", self.name);
        };
        exempt.push(role);
        self
    }

    /// Counts only requests like this; others are exempt.
    pub fn when(self, applies: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self { applies: Some(Arc::new(applies)), ..self }
    }

    /// How much a request weighs, 1 where nothing is said. One of cost 0 is admitted and not
    /// counted, and sees the headers all the same. One above the limit is never admitted.
    pub fn with_cost(self, cost: impl Fn(&RequestHead<'_>) -> u32 + Send + Sync + 'static) -> Self {
        Self { cost: Some(Arc::new(cost)), ..self }
    }

    /// Counts only some of the requests that were admitted.
    pub fn charging(self, charge: Charge) -> Self {
        Self { charge, ..self }
    }

    /// What tells this limiter from others.
    #[must_use]
    pub fn name(&self) -> LimiterName {
        self.name
    }

    pub(crate) fn charge(&self) -> &Charge {
        &self.charge
    }

    /// What to take for this request; nothing where it is exempt.
    pub(crate) fn take(&self, request: &RequestHead<'_>) -> Result<Option<Take>, NoPeerAddr> {
        if self.applies.as_ref().is_some_and(|applies| !applies(request)) {
            return Ok(None);
        }
        let choice = match &self.whom {
            Whom::ClientIp { quota, proxies } => {
                let client = proxies.client_ip(request.headers, request.extensions)?;
                Some((Key::from(client), *quota))
            }
            Whom::User { quota, plans, exempt } => request
                .identity()
                .filter(|caller| !exempt.contains(caller.role()))
                .map(|caller| (Key::from(caller.user_id()), quota_of(caller, plans, quota))),
            Whom::Chosen(choose) => choose(request),
        };
        Ok(choice.map(|(key, quota)| Take {
            limiter: self.name,
            key,
            quota,
            cost: self.cost.as_ref().map_or(1, |cost| cost(request)),
            hold: self.charge.on_trial(),
        }))
    }

    fn new(name: impl AsRef<str>, whom: Whom) -> Self {
        let name = LimiterName::new(name.as_ref()).unwrap_or_else(|invalid| panic!("{invalid}"));
        Self { name, whom, applies: None, cost: None, charge: Charge::every() }
    }
}

fn quota_of(caller: &Identity, plans: &[(Plan, Quota)], otherwise: &Quota) -> Quota {
    let theirs = plans.iter().rfind(|(plan, _)| Some(plan) == caller.plan());
    theirs.map_or(*otherwise, |(_, quota)| *quota)
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rule");
        debug.field("name", &self.name).field("charge", &self.charge);
        match &self.whom {
            Whom::ClientIp { quota, proxies } => {
                debug.field("per_ip", quota).field("behind", proxies)
            }
            Whom::User { quota, plans, exempt } => {
                debug.field("per_user", quota).field("plans", plans).field("exempt", exempt)
            }
            Whom::Chosen(_) => debug.field("by", &"…"),
        };
        debug.finish_non_exhaustive()
    }
}
