//! What every [`TokenStore`] does. The cases are functions of a fresh store; [`token_contract!`]
//! makes tests of them for a wing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tower_warden::{
    Clock, ManualClock, SharedClock, TokenHash, UserId,
    store::memory::MemoryStore,
    token::{NewFamily, RevokeReason, RotateRequest, Rotation, TokenStore, token_expiry},
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
                used_tokens_are_kept_as_long_as_their_family
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
