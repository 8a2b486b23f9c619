//! What goes wrong in databases when several do it at once, or leave in the middle. Each test takes
//! a store of either wing.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use portcullis::{
    Clock, ManualClock, Role, SharedClock, TokenHash, UserId,
    token::{FamilyId, NewFamily, RefreshToken, RotateRequest, Rotation, TokenStore},
    user::{Email, NewUser, PasswordHash, UpdateUserError, UserChange, UserStore},
};
use tokio::task::JoinSet;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn random_hash() -> TokenHash {
    RefreshToken::random().unwrap().hash()
}

/// Opens a family whose first token lives an hour.
pub(crate) async fn login(store: &dyn TokenStore, user: &UserId, clock: &ManualClock) -> TokenHash {
    let token = random_hash();
    let family = NewFamily {
        id: FamilyId::random(),
        user_id: user.clone(),
        token,
        created_at: clock.now(),
        token_expires_at: clock.now() + HOUR,
        expires_at: None,
    };
    store.open_family(family).await.unwrap();
    token
}

pub(crate) fn rotation(
    presented: TokenHash,
    successor: TokenHash,
    clock: &ManualClock,
) -> RotateRequest {
    let clock: SharedClock = Arc::new(clock.clone());
    RotateRequest { presented, successor, time_to_live: HOUR, clock }
}

pub(crate) async fn add_user(store: &dyn UserStore, email: &str, role: Role) -> UserId {
    let user = NewUser {
        id: UserId::random(),
        email: Email::parse(email).unwrap(),
        password_hash: PasswordHash::from("$2b$04$".to_owned()),
        role,
        created_at: ManualClock::new().now(),
        verification: None,
    };
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

pub(crate) async fn of_fifty_rotations_at_once_one_wins(store: Arc<dyn TokenStore>) {
    let clock = ManualClock::new();
    let token = login(&*store, &UserId::random(), &clock).await;
    let mut presentations = JoinSet::new();
    for _ in 0..50 {
        let (store, request) = (Arc::clone(&store), rotation(token, random_hash(), &clock));
        presentations.spawn(async move { store.rotate(request).await.unwrap() });
    }
    let outcomes = presentations.join_all().await;
    let count = |wanted: fn(&Rotation) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
    assert_eq!(count(|o| matches!(o, Rotation::Rotated { .. })), 1);
    assert_eq!(count(|o| matches!(o, Rotation::Reused { .. })), 1);
    assert_eq!(count(|o| *o == Rotation::Revoked), 48);
}

pub(crate) async fn logout_leaves_no_live_token_to_a_rotation(store: Arc<dyn TokenStore>) {
    let clock = ManualClock::new();
    let shared: SharedClock = Arc::new(clock.clone());
    for round in 0..50 {
        let user = UserId::random();
        let (token, successor) = (login(&*store, &user, &clock).await, random_hash());
        let logout = async {
            if round % 2 == 0 {
                assert!(store.revoke_family(&token, &shared).await.unwrap());
            } else {
                assert_eq!(store.revoke_user(&user, &shared).await.unwrap(), 1);
            }
        };
        let ((), rotated) = tokio::join!(logout, store.rotate(rotation(token, successor, &clock)));
        let expected = match rotated.unwrap() {
            Rotation::Rotated { .. } => Rotation::Revoked,
            Rotation::Revoked => Rotation::Unknown,
            other => panic!("{other:?}"),
        };
        let again = store.rotate(rotation(successor, random_hash(), &clock)).await.unwrap();
        assert_eq!(again, expected);
    }
}

pub(crate) async fn of_two_admins_demoted_at_once_one_stays(store: Arc<dyn UserStore>) {
    let mut admins = [
        add_user(&*store, "a@example.com", Role::ADMIN).await,
        add_user(&*store, "b@example.com", Role::ADMIN).await,
    ];
    for round in 0..50 {
        let demotion = || UserChange { role: Some(Role::VIEWER), ..UserChange::default() };
        let outcomes = tokio::join!(
            store.update(&admins[0], demotion()),
            store.update(&admins[1], demotion())
        );
        let demoted = match outcomes {
            (Ok(user), Err(UpdateUserError::LastAdmin))
            | (Err(UpdateUserError::LastAdmin), Ok(user)) => user,
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(demoted.role, Role::VIEWER);
        let promotion = UserChange { role: Some(Role::ADMIN), ..UserChange::default() };
        store.update(&demoted.id, promotion).await.unwrap();
        admins.reverse();
    }
}

/// Callers leave at every stage; each rotation is there in the end.
pub(crate) async fn a_caller_who_leaves_stops_nothing(store: Arc<dyn TokenStore>) {
    let clock = ManualClock::new();
    let user = UserId::random();
    let mut successors = Vec::new();
    for polls in (1..60).chain((100..4000).step_by(100)) {
        let (token, successor) = (login(&*store, &user, &clock).await, random_hash());
        leave_after(polls, store.rotate(rotation(token, successor, &clock))).await;
        successors.push(successor);
    }
    let all_there = async {
        for successor in &successors {
            while store.owner(successor).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_there).await.expect("a rotation was lost");
}
