//! What every [`TokenStore`] does. The cases are functions of a fresh store; [`token_contract!`]
//! makes tests of them for a wing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tower_warden::{
    Clock, Identity, ManualClock, Role, SharedClock, TokenHash, UserId,
    store::memory::MemoryStore,
    token::{
        FamilyId, NewFamily, Opening, RenewRequest, RevokeReason, RotateRequest, Rotation, Sealing,
        SessionInfo, TokenStore, token_expiry,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs every case over a wing: a module name, the test attributes, the arguments that they give,
/// and from these a fresh store.
///
/// ```ignore
/// token_contract!(other, { #[tokio::test] #[ignore = "needs it"] }, () => open().await);
/// ```
macro_rules! token_contract {
    ($wing:ident, $attributes:tt, $arguments:tt => $store:expr) => {
        mod $wing {
            #[allow(unused_imports, reason = "a wing may need none of it")]
            use super::*;

            token_contract! { @each $attributes $arguments ($store)
                live_token_is_rotated_once
                second_presentation_revokes_the_family_and_its_newest_token
                oldest_of_a_long_chain_revokes_the_family
                expired_token_is_refused_and_revokes_nothing
                family_ends_whatever_is_refreshed
                unknown_token_changes_nothing
                any_generation_logs_out
                logout_all_revokes_that_user_only
                one_of_many_parallel_rotations_wins_and_the_family_is_revoked
                logout_that_races_a_refresh_leaves_no_live_token
                logout_all_that_races_a_refresh_leaves_no_live_token
                owner_is_told_whatever_the_state
                only_ended_families_are_forgotten
                no_more_is_forgotten_than_was_asked
                as_many_are_forgotten_as_was_asked
                used_tokens_are_kept_as_long_as_their_family
                sessions_are_listed_the_last_used_first
                only_ones_own_session_is_ended
                all_sessions_but_one_end
                the_oldest_idle_session_makes_room
                parent_within_the_leeway_gets_the_same_successor
                leeway_ends_by_its_time_and_when_the_child_is_used
                revocation_takes_the_seal_along
                whatever_ends_a_session_is_told
                a_long_session_is_forgotten_in_steps
                openings_that_race_the_end_of_all_leave_what_came_after
                renewed_session_forgets_what_was_out
            }
        }
    };
    (@each $attributes:tt $arguments:tt $store:tt $($case:ident)+) => {
        $(token_contract! { @one $attributes $arguments $store $case })+
    };
    (@one { $(#[$attribute:meta])+ } $arguments:tt ($store:expr) $case:ident) => {
        $(#[$attribute])+
        async fn $case $arguments {
            super::$case(Login::new($store)).await;
        }
    };
}

token_contract!(memory, { #[tokio::test(flavor = "multi_thread")] }, () => MemoryStore::new());

#[cfg(feature = "sqlite")]
token_contract!(
    sqlite,
    { #[tokio::test(flavor = "multi_thread")] },
    () => tower_warden::store::sqlite::SqliteStore::new(crate::sqlite::database().await)
);

#[cfg(feature = "postgres")]
token_contract!(
    postgres,
    {
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs PostgreSQL: run tests/run"]
    },
    () => tower_warden::store::postgres::PostgresStore::new(crate::postgres::database().await)
);

/// A store, and a clock to move. Tokens are named by numbers: hashes are all that a store sees.
#[derive(Clone)]
struct Login {
    store: Arc<dyn TokenStore>,
    clock: ManualClock,
}

impl Login {
    fn new(store: impl TokenStore) -> Self {
        Self { store: Arc::new(store), clock: ManualClock::new() }
    }

    fn shared_clock(&self) -> SharedClock {
        Arc::new(self.clock.clone())
    }

    /// Opens a family of Ada's whose tokens live for an hour.
    async fn open(&self, token: u32) {
        self.open_for("ada", token, None).await;
    }

    async fn open_for(&self, user: &str, token: u32, family_expires_at: Option<SystemTime>) {
        let now = self.clock.now();
        let end = token_expiry(now, HOUR, family_expires_at);
        let mut family = NewFamily::new(UserId::from(user), hash(token), now, end);
        family.expires_at = family_expires_at;
        self.store.open_family(family).await.unwrap();
    }

    async fn rotate(&self, presented: u32, successor: u32) -> Rotation {
        let clock = self.shared_clock();
        let request = RotateRequest::new(hash(presented), hash(successor), HOUR, clock);
        self.store.rotate(request).await.unwrap()
    }

    /// Replaces 0 by 1, 1 by 2, and so on.
    async fn chain(&self, length: u32) {
        self.open(0).await;
        for n in 0..length {
            assert!(is_rotated(&self.rotate(n, n + 1).await));
        }
    }

    async fn logout(&self, token: u32) -> bool {
        let (hash, reason) = (hash(token), RevokeReason::Logout);
        self.store.revoke_family(&hash, reason, &self.shared_clock()).await.unwrap()
    }

    async fn logout_all(&self, user: &str) -> u64 {
        let (user, reason) = (UserId::from(user), RevokeReason::LogoutAll);
        self.store.revoke_user(&user, None, reason, &self.shared_clock()).await.unwrap()
    }

    async fn owner(&self, token: u32) -> Option<String> {
        let found = self.store.find_token(&hash(token)).await.unwrap();
        found.map(|found| found.family.user_id.as_str().to_owned())
    }

    async fn delete_expired(&self, at_most: u32) -> u64 {
        self.store.delete_expired_sessions(self.clock.now(), at_most).await.unwrap()
    }
}

fn hash(token: u32) -> TokenHash {
    TokenHash::of(&token.to_string())
}

fn is_rotated(rotation: &Rotation) -> bool {
    matches!(rotation, Rotation::Rotated { .. })
}

fn is_reused(rotation: &Rotation) -> bool {
    matches!(rotation, Rotation::Reused { user_id, .. } if user_id.as_str() == "ada")
}

async fn live_token_is_rotated_once(login: Login) {
    login.open(0).await;
    let Rotation::Rotated { family } = login.rotate(0, 1).await else { panic!("0 is live") };
    let again = login.rotate(1, 2).await;
    assert_eq!(again, Rotation::Rotated { family: family.clone() }, "it stays one family");
    let reused = login.rotate(0, 3).await;
    assert_eq!(reused, Rotation::Reused { family, user_id: UserId::from("ada") });
    assert_eq!(login.rotate(3, 4).await, Rotation::Unknown, "no successor was kept");
}

async fn second_presentation_revokes_the_family_and_its_newest_token(login: Login) {
    login.chain(1).await;
    login.open(10).await;
    assert!(is_reused(&login.rotate(0, 2).await));
    for token in [0, 1] {
        assert_eq!(login.rotate(token, 3).await, Rotation::Revoked);
    }
    assert!(is_rotated(&login.rotate(10, 11).await), "another session of the user stays");
}

async fn oldest_of_a_long_chain_revokes_the_family(login: Login) {
    login.chain(5).await;
    assert!(is_reused(&login.rotate(0, 10).await));
    assert_eq!(login.rotate(5, 11).await, Rotation::Revoked);
}

async fn expired_token_is_refused_and_revokes_nothing(login: Login) {
    login.open(0).await;
    login.clock.advance(HOUR - Duration::from_secs(1));
    assert!(is_rotated(&login.rotate(0, 1).await));
    login.clock.advance(HOUR);
    assert_eq!(login.rotate(1, 2).await, Rotation::Expired);
    assert_eq!(login.rotate(1, 2).await, Rotation::Expired);
    assert!(is_reused(&login.rotate(0, 3).await), "what was replaced is told to be, for ever");
}

async fn family_ends_whatever_is_refreshed(login: Login) {
    let end = login.clock.now() + HOUR + HOUR / 2;
    login.open_for("ada", 0, Some(end)).await;
    login.clock.advance(HOUR / 2);
    assert!(is_rotated(&login.rotate(0, 1).await));
    login.clock.advance(HOUR / 2);
    assert!(is_rotated(&login.rotate(1, 2).await));
    login.clock.advance(HOUR / 2);
    assert_eq!(login.rotate(2, 3).await, Rotation::Expired);
}

async fn unknown_token_changes_nothing(login: Login) {
    login.open(0).await;
    assert_eq!(login.rotate(9, 1).await, Rotation::Unknown);
    assert_eq!(login.rotate(1, 2).await, Rotation::Unknown);
    assert!(!login.logout(9).await);
    assert_eq!(login.owner(9).await, None);
    assert_eq!(login.logout_all("eve").await, 0);
    assert!(is_rotated(&login.rotate(0, 1).await));
}

async fn any_generation_logs_out(login: Login) {
    for (start, presented) in [(0, 0), (10, 11), (20, 22)] {
        login.open(start).await;
        for n in start..start + 2 {
            assert!(is_rotated(&login.rotate(n, n + 1).await));
        }
        assert!(login.logout(presented).await);
        assert!(!login.logout(presented).await, "it was revoked before");
        for token in start..=start + 2 {
            assert_eq!(login.rotate(token, 99).await, Rotation::Revoked, "{presented} {token}");
        }
    }
}

async fn logout_all_revokes_that_user_only(login: Login) {
    login.open_for("ada", 0, None).await;
    login.open_for("ada", 10, None).await;
    login.open_for("ada", 20, None).await;
    login.open_for("eve", 30, None).await;
    assert!(is_rotated(&login.rotate(0, 1).await));
    assert!(login.logout(20).await);

    assert_eq!(login.logout_all("ada").await, 2, "one was revoked before");
    assert_eq!(login.logout_all("ada").await, 0);
    for token in [0, 1, 10, 20] {
        assert_eq!(login.rotate(token, 99).await, Rotation::Revoked, "{token}");
    }
    assert!(is_rotated(&login.rotate(30, 31).await));

    login.open_for("ada", 40, None).await;
    assert!(is_rotated(&login.rotate(40, 41).await), "a later login is a new session");
}

async fn one_of_many_parallel_rotations_wins_and_the_family_is_revoked(login: Login) {
    const MANY: u32 = 50;
    login.open(0).await;
    let rotations = (1..=MANY).map(|successor| {
        let login = login.clone();
        tokio::spawn(async move { (successor, login.rotate(0, successor).await) })
    });
    let mut winner = None;
    let mut reused = 0;
    for rotation in rotations.collect::<Vec<_>>() {
        match rotation.await.unwrap() {
            (successor, Rotation::Rotated { .. }) => {
                assert_eq!(winner.replace(successor), None, "a second one won");
            }
            (_, Rotation::Reused { .. }) => reused += 1,
            (_, other) => assert_eq!(other, Rotation::Revoked),
        }
    }
    assert_eq!(reused, 1, "who comes second revokes, who comes later finds it revoked");
    let winner = winner.expect("one wins");
    assert_eq!(login.rotate(winner, 99).await, Rotation::Revoked);
}

async fn logout_that_races_a_refresh_leaves_no_live_token(login: Login) {
    for start in (0..100).step_by(10) {
        login.open(start).await;
        let (refresh, logout) = (login.clone(), login.clone());
        let refresh = tokio::spawn(async move { refresh.rotate(start, start + 1).await });
        let logout = tokio::spawn(async move { logout.logout(start).await });
        let rotation = refresh.await.unwrap();
        assert!(logout.await.unwrap());
        let newest = if is_rotated(&rotation) { start + 1 } else { start };
        assert_eq!(login.rotate(newest, 999).await, Rotation::Revoked);
    }
}

async fn logout_all_that_races_a_refresh_leaves_no_live_token(login: Login) {
    for start in (0..100).step_by(10) {
        login.open(start).await;
        let (refresh, logout) = (login.clone(), login.clone());
        let refresh = tokio::spawn(async move { refresh.rotate(start, start + 1).await });
        let logout = tokio::spawn(async move { logout.logout_all("ada").await });
        let rotation = refresh.await.unwrap();
        assert_eq!(logout.await.unwrap(), 1);
        let newest = if is_rotated(&rotation) { start + 1 } else { start };
        assert_eq!(login.rotate(newest, 999).await, Rotation::Revoked);
    }
}

async fn owner_is_told_whatever_the_state(login: Login) {
    login.chain(1).await;
    for token in [0, 1] {
        assert_eq!(login.owner(token).await.as_deref(), Some("ada"), "replaced and live");
    }
    login.logout(0).await;
    login.clock.advance(2 * HOUR);
    assert_eq!(login.owner(1).await.as_deref(), Some("ada"), "revoked and expired");
}

async fn only_ended_families_are_forgotten(login: Login) {
    login.open(0).await;
    login.open(10).await;
    login.open(20).await;
    login.clock.advance(HOUR / 2);
    assert!(is_rotated(&login.rotate(10, 11).await));
    assert!(login.logout(20).await);
    assert_eq!(login.delete_expired(100).await, 0, "a revoked one has not ended");

    login.clock.advance(HOUR / 2 + Duration::from_secs(1));
    assert_eq!(login.delete_expired(100).await, 2);
    assert_eq!(login.delete_expired(100).await, 0);
    for token in [0, 20] {
        assert_eq!(login.owner(token).await, None);
        assert_eq!(login.rotate(token, 99).await, Rotation::Unknown);
    }
    assert!(is_rotated(&login.rotate(11, 12).await));
}

async fn no_more_is_forgotten_than_was_asked(login: Login) {
    for token in 0..5 {
        login.open(token).await;
    }
    login.clock.advance(2 * HOUR);
    assert_eq!(login.delete_expired(0).await, 0);
    assert_eq!(login.delete_expired(2).await, 2);
    assert_eq!(login.delete_expired(2).await, 2);
    assert_eq!(login.delete_expired(2).await, 1);
    assert_eq!(login.delete_expired(2).await, 0);
}

/// Callers go on while the answer is what they asked for: fewer means that there are no more.
async fn as_many_are_forgotten_as_was_asked(login: Login) {
    for token in 0..230 {
        login.open(token).await;
    }
    login.clock.advance(2 * HOUR);
    assert_eq!(login.delete_expired(120).await, 120);
    assert_eq!(login.delete_expired(1000).await, 110);
    assert_eq!(login.delete_expired(1000).await, 0);
}

fn info(n: u8) -> SessionInfo {
    SessionInfo::new().with_ip([192, 0, 2, n].into()).with_user_agent(format!("agent {n}"))
}

impl Login {
    async fn open_from(&self, user: &str, token: u32, at_most: Option<u32>) -> FamilyId {
        let now = self.clock.now();
        let mut family = NewFamily::new(UserId::from(user), hash(token), now, now + HOUR);
        family.info = info(1);
        family.amr = vec!["pwd".to_owned(), "otp".to_owned()];
        family.at_most = at_most;
        let id = family.id.clone();
        let opened = self.store.open_family(family).await.unwrap();
        assert!(matches!(opened, Opening::Opened { .. }));
        id
    }

    async fn sessions(&self, user: &str) -> Vec<FamilyId> {
        let sessions = self.store.sessions(&UserId::from(user), self.clock.now()).await.unwrap();
        sessions.into_iter().map(|session| session.family.id).collect()
    }

    /// With half an hour of leeway.
    async fn rotate_sealed(&self, presented: u32, successor: u32) -> Rotation {
        let clock = self.shared_clock();
        let mut request = RotateRequest::new(hash(presented), hash(successor), HOUR, clock);
        request.sealing = Some(Sealing::new([7; 64], HOUR / 2));
        self.store.rotate(request).await.unwrap()
    }
}

fn is_replayed(rotation: &Rotation) -> bool {
    matches!(rotation, Rotation::Replayed { successor, .. } if *successor.bytes == [7; 64])
}

async fn sessions_are_listed_the_last_used_first(login: Login) {
    let first = login.open_from("ada", 0, None).await;
    login.clock.advance(Duration::from_secs(1));
    let second = login.open_from("ada", 10, None).await;
    login.open_from("eve", 20, None).await;
    assert_eq!(login.sessions("ada").await, [second.clone(), first.clone()]);

    login.clock.advance(Duration::from_secs(1));
    let mut request = RotateRequest::new(hash(0), hash(1), HOUR, login.shared_clock());
    request.info = info(2);
    login.store.rotate(request).await.unwrap();
    let ada = UserId::from("ada");
    let sessions = login.store.sessions(&ada, login.clock.now()).await.unwrap();
    let [used, idle] = &sessions[..] else { panic!("{sessions:?}") };
    assert_eq!((&used.family.id, &idle.family.id), (&first, &second));
    assert_eq!((&used.family.info, &idle.family.info), (&info(2), &info(1)));
    assert_eq!(used.family.amr, ["pwd", "otp"]);
    assert_eq!(used.family.last_used_at, login.clock.now());
    assert_eq!(used.expires_at, login.clock.now() + HOUR);

    login.logout(10).await;
    assert_eq!(login.sessions("ada").await, [first]);
    login.clock.advance(HOUR);
    assert_eq!(login.sessions("ada").await, []);
}

async fn only_ones_own_session_is_ended(login: Login) {
    let id = login.open_from("ada", 0, None).await;
    let end = async |user: &str, id: &FamilyId| {
        login.store.end_session(&UserId::from(user), id, &login.shared_clock()).await.unwrap()
    };
    assert!(!end("eve", &id).await);
    assert!(!end("ada", &FamilyId::random()).await);
    assert!(end("ada", &id).await);
    assert!(!end("ada", &id).await, "it has ended");
    assert_eq!(login.rotate(0, 1).await, Rotation::Revoked);
}

async fn all_sessions_but_one_end(login: Login) {
    let kept = login.open_from("ada", 0, None).await;
    login.open_from("ada", 10, None).await;
    login.open_from("eve", 20, None).await;
    let (ada, clock) = (UserId::from("ada"), login.shared_clock());
    let reason = RevokeReason::LogoutAll;
    let ended = login.store.revoke_user(&ada, Some(&kept), reason, &clock).await.unwrap();
    assert_eq!(ended, 1);
    assert_eq!(login.sessions("ada").await, [kept]);
    assert_eq!(login.rotate(10, 11).await, Rotation::Revoked);
    for (token, successor) in [(0, 1), (1, 2), (20, 21)] {
        assert!(is_rotated(&login.rotate(token, successor).await), "{token}");
    }
    assert_eq!(login.logout_all("ada").await, 1, "it was kept that time only");
    assert_eq!(login.rotate(2, 3).await, Rotation::Revoked);
}

async fn the_oldest_idle_session_makes_room(login: Login) {
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(login.open_from("ada", n * 10, Some(3)).await);
        login.clock.advance(Duration::from_secs(1));
    }
    assert!(is_rotated(&login.rotate(0, 1).await));
    login.clock.advance(Duration::from_secs(1));
    ids.push(login.open_from("ada", 30, Some(3)).await);
    assert_eq!(login.rotate(10, 11).await, Rotation::Revoked, "it was idle for longest");
    assert_eq!(login.sessions("ada").await, [ids[3].clone(), ids[0].clone(), ids[2].clone()]);
    login.open_from("eve", 40, Some(1)).await;
    assert_eq!(login.sessions("ada").await.len(), 3, "another's sessions don't count");
}

async fn parent_within_the_leeway_gets_the_same_successor(login: Login) {
    login.open(0).await;
    assert!(is_rotated(&login.rotate_sealed(0, 1).await));
    let before = login.store.find_token(&hash(1)).await.unwrap().unwrap().family;
    login.clock.advance(HOUR / 2 - Duration::from_secs(1));
    for _ in 0..3 {
        let replayed = login.rotate_sealed(0, 9).await;
        assert!(is_replayed(&replayed), "{replayed:?}");
        let Rotation::Replayed { expires_at, .. } = replayed else { return };
        assert_eq!(expires_at, before.last_used_at + HOUR);
    }
    let after = login.store.find_token(&hash(1)).await.unwrap().unwrap().family;
    assert_eq!(after, before, "a replay extends and notes nothing");
    assert!(is_rotated(&login.rotate(1, 2).await));
}

async fn leeway_ends_by_its_time_and_when_the_child_is_used(login: Login) {
    login.open(0).await;
    assert!(is_rotated(&login.rotate_sealed(0, 1).await));
    login.clock.advance(HOUR / 2);
    assert!(is_reused(&login.rotate(0, 9).await), "from its end on");
    assert_eq!(login.rotate(1, 2).await, Rotation::Revoked);

    login.open(10).await;
    assert!(is_rotated(&login.rotate_sealed(10, 11).await));
    assert!(is_rotated(&login.rotate_sealed(11, 12).await));
    assert!(is_replayed(&login.rotate(11, 99).await), "the parent of the live one");
    assert!(is_reused(&login.rotate(10, 99).await), "its grandparent");
}

async fn revocation_takes_the_seal_along(login: Login) {
    login.open(0).await;
    assert!(is_rotated(&login.rotate_sealed(0, 1).await));
    login.logout(1).await;
    assert_eq!(login.rotate(0, 9).await, Rotation::Revoked);
    assert_eq!(login.store.find_token(&hash(0)).await.unwrap().unwrap().family.sealed, None);
}

async fn whatever_ends_a_session_is_told(login: Login) {
    let told = login.store.revocations();
    let ended = |id: &FamilyId| {
        let token = Identity::new(UserId::from("ada"), Role::VIEWER).with_session_id(id.as_str());
        told.is_revoked(&token)
    };
    let by_logout = login.open_from("ada", 0, None).await;
    let by_reuse = login.open_from("ada", 10, None).await;
    let by_choice = login.open_from("ada", 20, None).await;
    let by_all = login.open_from("ada", 30, None).await;
    let stays = login.open_from("eve", 40, None).await;
    login.logout(0).await;
    login.rotate(10, 11).await;
    login.rotate(10, 12).await;
    let (ada, clock) = (UserId::from("ada"), login.shared_clock());
    login.store.end_session(&ada, &by_choice, &clock).await.unwrap();
    assert!(!ended(&by_all));
    login.logout_all("ada").await;
    for id in [&by_logout, &by_reuse, &by_choice, &by_all] {
        assert!(ended(id));
    }
    let displaced = login.open_from("ada", 50, Some(1)).await;
    login.clock.advance(Duration::from_secs(1));
    login.open_from("ada", 60, Some(1)).await;
    assert!(ended(&displaced));
    assert!(!ended(&stays));
}

async fn a_long_session_is_forgotten_in_steps(login: Login) {
    login.chain(24).await;
    login.clock.advance(2 * HOUR);
    for left in [15, 5] {
        assert_eq!(login.delete_expired(10).await, 10, "{left}");
        assert_eq!(login.owner(24).await.as_deref(), Some("ada"), "the last one goes last");
    }
    assert_eq!(login.delete_expired(10).await, 5);
    assert_eq!(login.owner(24).await, None);
    assert_eq!(login.delete_expired(10).await, 0);
}

async fn openings_that_race_the_end_of_all_leave_what_came_after(login: Login) {
    for round in 0..10 {
        let user = format!("user {round}");
        let openings = (0..5).map(|n| {
            let (login, user) = (login.clone(), user.clone());
            tokio::spawn(async move { login.open_from(&user, 100 * round + n, Some(3)).await })
        });
        let openings: Vec<_> = openings.collect();
        let (all, of) = (login.clone(), user.clone());
        let ended = tokio::spawn(async move { all.logout_all(&of).await });
        for opened in openings {
            opened.await.unwrap();
        }
        ended.await.unwrap();
        // Each was opened before and has ended, or after and is live: never more than the cap.
        let live = login.sessions(&user).await.len();
        assert!(live <= 3, "{live}");
        login.logout_all(&user).await;
        assert_eq!(login.sessions(&user).await, []);
    }
}

async fn renewed_session_forgets_what_was_out(login: Login) {
    let id = login.open_from("ada", 0, None).await;
    let renew = async |user: &str, successor: u32| {
        let (user, clock) = (UserId::from(user), login.shared_clock());
        let request = RenewRequest::new(id.clone(), user, hash(successor), HOUR, clock);
        login.store.renew(request).await.unwrap()
    };
    assert!(renew("eve", 9).await.is_none());
    assert_eq!(renew("ada", 1).await.unwrap().family.id, id);
    assert!(is_rotated(&login.rotate(1, 2).await));
    assert!(is_reused(&login.rotate(0, 9).await));
    assert!(renew("ada", 3).await.is_none(), "it has ended");
}

async fn used_tokens_are_kept_as_long_as_their_family(login: Login) {
    login.open(0).await;
    for n in 0..5 {
        login.clock.advance(HOUR / 2);
        assert!(is_rotated(&login.rotate(n, n + 1).await));
        login.delete_expired(100).await;
    }
    // The oldest one ended an hour and a half ago, and was stolen all the same.
    assert!(is_reused(&login.rotate(0, 10).await));
    assert_eq!(login.rotate(5, 11).await, Rotation::Revoked);
}
