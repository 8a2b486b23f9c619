//! Whom to count, and by which quota.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    AccessList, Charge, Decision, Key, LimiterName, Penalty, Quota, access::Access,
    quota_source::QuotaSource, store::Take,
};
use crate::{
    Answer, Identity, NoPeerAddr, Plan, RequestHead, Role, SharedClock, StoreError, TrustedProxies,
    identity::Unknown,
};

/// One limiter: for each request it says whom to count, by which quota, and how much; or that the
/// request is none of its business.
///
/// ```
/// use tower_warden::{Key, Plan, Quota, Role, Rule};
///
/// let callers = Rule::per_user("user", Quota::per_minute(300))
///     .with_plan(Plan::FREE, Quota::per_minute(60))
///     .with_plan(Plan::PAID, Quota::per_minute(600))
///     .exempt_role(Role::ADMIN);
/// let strangers = Rule::per_ip("ip", Quota::per_minute(100))
///     .when(|request| request.identity().is_none());
/// // A request without a key is counted by address, with the same quota.
/// let by_tenant = Rule::by_key("tenant", Quota::per_second(10), |request| {
///     request.identity()?.claims().get("tenant")?.as_str().map(Key::from)
/// });
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rule {
    name: LimiterName,
    whom: Whom,
    applies: Option<Arc<Predicate>>,
    cost: Option<Arc<Cost>>,
    quotas: Option<QuotaSource>,
    access: Option<AccessList>,
    penalty: Option<Penalty>,
    charge: Charge,
    role: RoleOfRule,
}

type Predicate = dyn Fn(&RequestHead<'_>) -> bool + Send + Sync;
type Cost = dyn Fn(&RequestHead<'_>) -> Answer<u32> + Send + Sync;
type Choose = dyn Fn(&RequestHead<'_>) -> Option<(Key, Quota)> + Send + Sync;

#[derive(Clone)]
enum Whom {
    ClientIp {
        quota: Quota,
        proxies: TrustedProxies,
        prefix: u8,
        only_ipv6: bool,
    },
    User {
        quota: Quota,
        plans: Vec<(Plan, Quota)>,
        exempt: Vec<Role>,
        /// Whether it was said that nobody asks who calls.
        told: Arc<AtomicBool>,
    },
    Chosen {
        choose: Arc<Choose>,
        otherwise: Otherwise,
        proxies: TrustedProxies,
    },
}

/// Who has no key.
#[derive(Clone, Copy, Debug)]
enum Otherwise {
    ClientIp(Quota),
    Refused,
    Exempt,
}

/// What a rule does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleOfRule {
    /// Counts, and refuses.
    Enforces,
    /// Refuses, and leaves it to a handler to count.
    Guards,
    /// Counts, and refuses nobody.
    Observes,
}

/// Why the store isn't asked.
#[derive(Debug)]
pub(super) enum NotAsked {
    NoPeer(NoPeerAddr),
    NoKey(LimiterName),
    Denied(LimiterName),
    /// It has to wait for having knocked too often.
    Waits(LimiterName, Decision),
}

/// What to ask the store, nothing where the request is exempt.
pub(super) type Asked = Result<Option<Take>, NotAsked>;

impl Rule {
    /// Counts by client address: IPv4, or IPv6 by /64. See [`TrustedProxies`].
    ///
    /// `name` tells this limiter from others, in the store and in the headers that clients see.
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn per_ip(name: impl AsRef<str>, quota: Quota) -> Self {
        let proxies = TrustedProxies::none();
        Self::new(name, Whom::ClientIp { quota, proxies, prefix: 64, only_ipv6: false })
    }

    /// Counts IPv6 clients by a wider net, and says nothing of IPv4: beside a rule
    /// [`per_ip`](Self::per_ip), as who is given a /48 has 65,536 networks of /64.
    ///
    /// ```
    /// use tower_warden::{Quota, Rule};
    /// let rules = [
    ///     Rule::per_ip("ip", Quota::per_minute(100)),
    ///     Rule::per_ipv6_net("net", 48, Quota::per_minute(2_000)),
    /// ];
    /// ```
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`], or the prefix is not one from 1 to 64.
    pub fn per_ipv6_net(name: impl AsRef<str>, prefix: u8, quota: Quota) -> Self {
        let proxies = TrustedProxies::none();
        Self::new(name, Whom::ClientIp { quota, proxies, prefix: 64, only_ipv6: true })
            .with_ipv6_prefix(prefix)
    }

    /// Counts by user. **Requests without an [`Identity`] are not limited by this rule**: put its layer
    /// inside of [`RequireAuth`](crate::RequireAuth) or
    /// [`identify_only`](crate::RequireAuth::identify_only), and give strangers a rule of their own.
    /// In the wrong order it limits nobody; a warning in the log says so, and a missing `RateLimit` header: see
    /// [the order of layers](crate::guide::order_of_layers).
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn per_user(name: impl AsRef<str>, quota: Quota) -> Self {
        Self::new(
            name,
            Whom::User { quota, plans: Vec::new(), exempt: Vec::new(), told: Arc::default() },
        )
    }

    /// Counts by the key that the function finds in a request: a tenant, a claim. **What anyone may write
    /// limits nobody**: take it from the [identity](RequestHead::identity), or from a header that your
    /// gateway sets in place of what its clients sent. Who makes up a key has a quota of its own.
    ///
    /// Where it finds none, the client's address is counted instead, by the same quota, so that what
    /// is left out is no way around the limit. [`or_per_ip`](Self::or_per_ip),
    /// [`or_refuse`](Self::or_refuse) and [`or_exempt`](Self::or_exempt) choose otherwise.
    ///
    /// ```
    /// use tower_warden::{Key, Quota, Rule};
    /// let tenants = Rule::by_key("tenant", Quota::per_minute(1_000), |request| {
    ///     request.identity()?.claims().get("tenant")?.as_u64().map(Key::from)
    /// });
    /// ```
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`].
    pub fn by_key(
        name: impl AsRef<str>,
        quota: Quota,
        key: impl Fn(&RequestHead<'_>) -> Option<Key> + Send + Sync + 'static,
    ) -> Self {
        Self::by(name, move |request| Some((key(request)?, quota))).or_per_ip(quota)
    }

    /// Counts whom the function says, by the quota it says. **Requests for which it says `None` are
    /// exempt**, unless [`or_per_ip`](Self::or_per_ip) or [`or_refuse`](Self::or_refuse) follows. A key
    /// has one count, so what has quotas of its own needs a key of its own.
    ///
    /// ```
    /// use tower_warden::{Key, Quota, Rule};
    /// let by_method = Rule::by("method", |request| {
    ///     let quota = if request.method == "GET" { Quota::per_minute(600) } else { Quota::per_minute(30) };
    ///     let caller = request.identity()?.user_id();
    ///     Some((Key::from(format!("{}:{caller}", request.method)), quota))
    /// })
    /// .or_refuse();
    /// ```
    ///
    /// # Panics
    /// Where `name` is no [`LimiterName`]; one that comes from a configuration is made by
    /// [`LimiterName::new`] first.
    pub fn by(
        name: impl AsRef<str>,
        choose: impl Fn(&RequestHead<'_>) -> Option<(Key, Quota)> + Send + Sync + 'static,
    ) -> Self {
        let (otherwise, proxies) = (Otherwise::Exempt, TrustedProxies::none());
        Self::new(name, Whom::Chosen { choose: Arc::new(choose), otherwise, proxies })
    }

    /// Requests without a key are counted by client address, with this quota.
    ///
    /// # Panics
    /// Where the rule is not one [`by_key`](Self::by_key) or [`by`](Self::by).
    pub fn or_per_ip(self, quota: Quota) -> Self {
        self.or(Otherwise::ClientIp(quota))
    }

    /// Requests without a key are refused with 400.
    ///
    /// # Panics
    /// Where the rule is not one [`by_key`](Self::by_key) or [`by`](Self::by).
    pub fn or_refuse(self) -> Self {
        self.or(Otherwise::Refused)
    }

    /// Requests without a key are not limited.
    ///
    /// # Panics
    /// Where the rule is not one [`by_key`](Self::by_key) or [`by`](Self::by).
    pub fn or_exempt(self) -> Self {
        self.or(Otherwise::Exempt)
    }

    fn or(mut self, chosen: Otherwise) -> Self {
        let Whom::Chosen { otherwise, .. } = &mut self.whom else {
            panic!("{:?}: only a rule by key knows who has none", self.name);
        };
        *otherwise = chosen;
        self
    }

    /// Client addresses are those that these proxies forward. Without this the peer of the connection
    /// is counted: behind a proxy that is the proxy, and all of its clients share one limit.
    ///
    /// # Panics
    /// Where the rule is one [`per_user`](Self::per_user).
    pub fn behind(mut self, trusted: TrustedProxies) -> Self {
        match &mut self.whom {
            Whom::ClientIp { proxies, .. } | Whom::Chosen { proxies, .. } => *proxies = trusted,
            Whom::User { .. } => panic!("{:?}: a rule per user knows no addresses", self.name),
        }
        self
    }

    /// IPv6 clients count by the net of so many bits, instead of 64.
    ///
    /// # Panics
    /// Where the rule is not one [`per_ip`](Self::per_ip), or the prefix is not one from 1 to 64.
    pub fn with_ipv6_prefix(mut self, bits: u8) -> Self {
        assert!((1..=64).contains(&bits), "{:?}: an IPv6 prefix has from 1 to 64 bits", self.name);
        let Whom::ClientIp { prefix, .. } = &mut self.whom else {
            panic!("{:?}: only a rule per IP has a prefix", self.name);
        };
        *prefix = bits;
        self
    }

    /// Users of this plan have another quota. Users without a plan, and of plans that are not named,
    /// have the rule's own. A user has one count, whatever the plan.
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

    /// Counts only requests like this; others are exempt. Called twice, both conditions must hold.
    pub fn when(
        mut self,
        applies: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.applies = Some(match self.applies.take() {
            None => Arc::new(applies),
            Some(before) => Arc::new(move |request| before(request) && applies(request)),
        });
        self
    }

    /// How much a request weighs, 1 where nothing is said. A request of cost 0 is admitted and not
    /// counted, but its response has the headers. One that weighs more than the limit is never admitted.
    pub fn with_cost(self, cost: impl Fn(&RequestHead<'_>) -> u32 + Send + Sync + 'static) -> Self {
        self.with_cost_from(move |request| Answer::Ready(cost(request)))
    }

    /// The same, where the cost may have to be waited for. What is awaited keeps nothing of the
    /// request: take from it what is needed first.
    ///
    /// ```
    /// use tower_warden::{Answer, Quota, Rule};
    /// # async fn price_of(path: String) -> u32 { path.len() as u32 }
    /// let rule = Rule::per_ip("ip", Quota::per_minute(1_000)).with_cost_from(|request| {
    ///     let path = request.uri.path().to_owned();
    ///     Answer::pending(async move { price_of(path).await })
    /// });
    /// ```
    pub fn with_cost_from(
        self,
        cost: impl Fn(&RequestHead<'_>) -> Answer<u32> + Send + Sync + 'static,
    ) -> Self {
        Self { cost: Some(Arc::new(cost)), ..self }
    }

    /// The quota of a key is looked up, in a database say, and remembered for so long; zero looks it
    /// up for each request. `None` means the rule's own quota, and so does a failure, unless a former
    /// answer is known: that counts until the next one. At most one look-up a key is under way while a
    /// former answer is there; 10,000 keys are remembered.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_warden::{Key, Quota, Rule, StoreError};
    /// # async fn quota_of(key: Key) -> Result<Option<u32>, StoreError> { Ok(Some(5)) }
    /// let rule = Rule::per_user("user", Quota::per_minute(60))
    ///     .with_quota_from(Duration::from_secs(30), async |key| {
    ///         let limit = quota_of(key).await?;
    ///         Ok(limit.map(Quota::per_minute))
    ///     });
    /// ```
    pub fn with_quota_from<F>(
        self,
        keep_for: Duration,
        find: impl Fn(Key) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Option<Quota>, StoreError>> + Send + 'static,
    {
        Self { quotas: Some(QuotaSource::new(keep_for, find)), ..self }
    }

    /// Counts only some of the requests that were admitted.
    pub fn charging(self, charge: Charge) -> Self {
        Self { charge, ..self }
    }

    /// Those that this list allows are exempt, and those that it denies are refused with 403,
    /// whatever the quota.
    pub fn with_access(self, list: AccessList) -> Self {
        Self { access: Some(list), ..self }
    }

    /// Clients that keep asking after refusals wait longer and longer.
    pub fn with_penalty(self, penalty: Penalty) -> Self {
        Self { penalty: Some(penalty), ..self }
    }

    /// Counts and reports, and refuses nobody: to find the right quota before it is enforced.
    ///
    /// What would have been refused is told by the metric `tower_warden_limit_decisions_total`
    /// (`outcome="would_refuse"`) and by a log event of level `debug`. Clients see nothing of it: no
    /// header names this limiter. The rules that are enforced are asked first; what they refuse this
    /// one doesn't count. Who has no key, is denied by a list or waits by a penalty would have been
    /// refused, too, and isn't counted; a penalty is never begun or made longer by this rule.
    pub fn observing(self) -> Self {
        Self { role: RoleOfRule::Observes, ..self }
    }

    /// Refuses where nothing is left, and counts nothing: for a limit that a handler counts, by a
    /// [`RateLimiter`](crate::RateLimiter) of the same name, quota and store, once it knows more than
    /// the head of the request. Asks the store in a call of its own.
    pub fn guarding(self) -> Self {
        Self { role: RoleOfRule::Guards, ..self }
    }

    /// What tells this limiter from others.
    #[must_use]
    pub fn name(&self) -> LimiterName {
        self.name
    }

    pub(super) fn charge(&self) -> &Charge {
        &self.charge
    }

    pub(super) fn penalty(&self) -> Option<&Penalty> {
        self.penalty.as_ref()
    }

    pub(super) fn role(&self) -> RoleOfRule {
        self.role
    }

    /// What to take for this request.
    pub(super) fn ask(&self, request: &RequestHead<'_>, clock: &SharedClock) -> Answer<Asked> {
        match self.take(request) {
            Ok(Some(take)) if !self.is_plain() => self.refine(take, request, clock),
            asked => Answer::Ready(asked),
        }
    }

    /// Whether whom it counts, and by which quota, is all that there is to it: [`take`](Self::take)
    /// tells all.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.cost.is_none()
            && self.quotas.is_none()
            && self.access.is_none()
            && self.penalty.is_none()
    }

    /// What to take for this request, as far as whom it counts tells.
    // With all that it calls: what is found goes from hand to hand in registers, which saves a third.
    #[inline(always)]
    pub(super) fn take(&self, request: &RequestHead<'_>) -> Asked {
        if self.applies.as_ref().is_some_and(|applies| !applies(request)) {
            return Ok(None);
        }
        let Some((key, quota)) = self.choose(request)? else { return Ok(None) };
        let mut take = Take::new(self.name, key, quota);
        take.hold = self.charge.on_trial() && self.role != RoleOfRule::Guards;
        Ok(Some(take))
    }

    #[inline(always)]
    fn choose(&self, request: &RequestHead<'_>) -> Result<Option<(Key, Quota)>, NotAsked> {
        let address = |proxies: &TrustedProxies| {
            proxies.client_ip(request.headers, request.extensions).map_err(NotAsked::NoPeer)
        };
        match &self.whom {
            Whom::ClientIp { quota, proxies, prefix, only_ipv6 } => {
                let client = address(proxies)?.with_ipv6_prefix(*prefix);
                let counts = client.is_ipv6() || !only_ipv6;
                Ok(counts.then(|| (Key::from(client), *quota)))
            }
            Whom::User { quota, plans, exempt, told } => {
                let Some(caller) = request.identity() else {
                    self.tell_of_nobody(request, told);
                    return Ok(None);
                };
                let counts = !exempt.contains(caller.role());
                let quota = || quota_of(caller, plans, quota);
                Ok(counts.then(|| (Key::from(caller.user_id()), quota())))
            }
            Whom::Chosen { choose, otherwise, proxies } => match (choose(request), otherwise) {
                (Some(choice), _) => Ok(Some(choice)),
                (None, Otherwise::ClientIp(quota)) => {
                    Ok(Some((Key::from(address(proxies)?), *quota)))
                }
                (None, Otherwise::Refused) => Err(NotAsked::NoKey(self.name)),
                (None, Otherwise::Exempt) => Ok(None),
            },
        }
    }

    /// Once: a layer in the wrong order would limit nobody otherwise, and nobody would hear of it.
    #[cold]
    fn tell_of_nobody(&self, request: &RequestHead<'_>, told: &AtomicBool) {
        if request.extensions.get::<Unknown>().is_none() && !told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                limiter = %self.name,
                "nothing outside of a limit per user has asked who calls, so it limits nobody: put its layer \
                 inside of `RequireAuth` or of its form `identify_only`"
            );
        }
    }

    #[cold]
    fn refine(
        &self,
        mut take: Take,
        request: &RequestHead<'_>,
        clock: &SharedClock,
    ) -> Answer<Asked> {
        match self.access.as_ref().and_then(|list| list.of(&take.key)) {
            Some(Access::Allowed) => return Answer::Ready(Ok(None)),
            Some(Access::Denied) => return Answer::Ready(Err(NotAsked::Denied(self.name))),
            None => {}
        }
        let knock = |penalty: &Penalty| {
            let now = clock.monotonic();
            match self.role {
                RoleOfRule::Observes => penalty.wait(&take.key, take.quota, now),
                RoleOfRule::Enforces | RoleOfRule::Guards => {
                    penalty.knock(&take.key, take.quota, now)
                }
            }
        };
        if let Some(decision) = self.penalty.as_ref().and_then(knock) {
            return Answer::Ready(Err(NotAsked::Waits(self.name, decision)));
        }
        let cost = self.cost.as_ref().map_or(Answer::Ready(1), |cost| cost(request));
        let quota = match &self.quotas {
            Some(quotas) => quotas.quota(&take.key, take.quota, clock),
            None => Answer::Ready(take.quota),
        };
        match (cost, quota) {
            (Answer::Ready(cost), Answer::Ready(quota)) => {
                (take.cost, take.quota) = (cost, quota);
                Answer::Ready(Ok(Some(take)))
            }
            (cost, quota) => Answer::pending(async move {
                (take.cost, take.quota) = (cost.await, quota.await);
                Ok(Some(take))
            }),
        }
    }

    fn new(name: impl AsRef<str>, whom: Whom) -> Self {
        let name = LimiterName::new(name.as_ref()).unwrap_or_else(|invalid| panic!("{invalid}"));
        Self {
            name,
            whom,
            applies: None,
            cost: None,
            quotas: None,
            access: None,
            penalty: None,
            charge: Charge::every(),
            role: RoleOfRule::Enforces,
        }
    }
}

/// One rule is the rules of a layer.
impl IntoIterator for Rule {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
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
            Whom::ClientIp { quota, proxies, prefix, .. } => {
                debug.field("per_ip", quota).field("ipv6_prefix", prefix).field("behind", proxies)
            }
            Whom::User { quota, plans, exempt, .. } => {
                debug.field("per_user", quota).field("plans", plans).field("exempt", exempt)
            }
            Whom::Chosen { otherwise, .. } => debug.field("by", &"…").field("or", otherwise),
        };
        debug.field("role", &self.role).finish_non_exhaustive()
    }
}
