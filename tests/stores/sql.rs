//! What the tests of both SQL wings share.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tower_warden::{
    Clock, ManualClock, Role, SharedClock, TokenHash, UserId,
    token::{NewFamily, RefreshToken, RotateRequest, TokenStore},
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
