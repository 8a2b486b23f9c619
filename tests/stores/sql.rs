//! What the tests of both SQL wings share.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tower_warden::{
    Clock, Identity, ManualClock, Role, SharedClock, TokenHash, UserId,
    token::{NewFamily, RefreshToken, RevokeReason, RotateRequest, TokenStore},
    user::{Email, NewUser, PasswordHash, UserStore},
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn random_hash() -> TokenHash {
    RefreshToken::random().unwrap().hash()
}

/// Opens a family whose first token lives an hour.
pub(crate) async fn login(store: &dyn TokenStore, user: &UserId, clock: &ManualClock) -> TokenHash {
    let token = random_hash();
    let family = NewFamily::new(user.clone(), token, clock.now(), clock.now() + HOUR);
    store.open_family(family).await.unwrap();
    token
}

pub(crate) fn rotation(
    presented: TokenHash,
    successor: TokenHash,
    clock: &ManualClock,
) -> RotateRequest {
    let clock: SharedClock = Arc::new(clock.clone());
    RotateRequest::new(presented, successor, HOUR, clock)
}

pub(crate) async fn add_user(store: &dyn UserStore, email: &str, role: Role) -> UserId {
    let hash = PasswordHash::from("$2b$04$".to_owned());
    let user = NewUser::new(Email::parse(email).unwrap(), hash, ManualClock::new().now());
    let user = user.with_role(role);
    store.create(user).await.unwrap().id
}

/// Polls a future so many times, and leaves.
async fn leave_after<F: Future>(polls: usize, future: F) {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Callers leave at every stage; each rotation is there in the end.
pub(crate) async fn a_caller_who_leaves_stops_nothing(store: &dyn TokenStore) {
    let clock = ManualClock::new();
    let user = UserId::random();
    let mut successors = Vec::new();
    for polls in (1..60).chain((100..4000).step_by(100)) {
        let (token, successor) = (login(store, &user, &clock).await, random_hash());
        leave_after(polls, store.rotate(rotation(token, successor, &clock))).await;
        successors.push(successor);
    }
    let all_there = async {
        for successor in &successors {
            while store.find_token(successor).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_there).await.expect("a rotation was lost");
}

/// Two servers on one database: what one ends the other knows within a second, and who starts later
/// at once. (PostgreSQL tells, SQLite is asked.)
pub(crate) async fn servers_hear_of_each_others_revocations<S: TokenStore + Clone>(
    [one, other, late]: [S; 3],
    clock: &ManualClock,
) {
    let following = other.follow_revocations().await.unwrap();
    let ada = UserId::from("ada");
    let token = login(&one, &ada, clock).await;
    let session = one.find_token(&token).await.unwrap().unwrap().family.id;
    let caller = Identity::new(ada, Role::VIEWER)
        .with_session_id(session.as_str())
        .with_issued_at(clock.now());
    let shared: SharedClock = Arc::new(clock.clone());
    assert!(!other.revocations().is_revoked(&caller));

    let begun = Instant::now();
    one.revoke_family(&token, RevokeReason::Logout, &shared).await.unwrap();
    assert!(one.revocations().is_revoked(&caller), "at once where it was done");
    while !other.revocations().is_revoked(&caller) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "it is not heard of");
    }
    assert!(other.revocations().staleness().unwrap() < Duration::from_secs(2));

    assert!(!late.revocations().is_revoked(&caller));
    let late_following = late.follow_revocations().await.unwrap();
    assert!(late.revocations().is_revoked(&caller), "known before the first request");
    drop((following, late_following));
    assert_eq!(one.delete_revocations(clock.now() + HOUR).await.unwrap(), 1);
}
