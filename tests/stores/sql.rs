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
    token::{FamilyId, NewFamily, RefreshToken, RevokeReason, RotateRequest, Rotation, TokenStore},
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

    // Many are forgotten in steps, all in one call; those that still matter stay.
    let count = 1050;
    for _ in 0..count {
        let token = login(&one, &UserId::from("bob"), clock).await;
        one.revoke_family(&token, RevokeReason::Logout, &shared).await.unwrap();
    }
    assert_eq!(one.delete_revocations(clock.now()).await.unwrap(), 0);
    assert_eq!(one.delete_revocations(clock.now() + HOUR).await.unwrap(), count);
}

/// The token of a session that a test has written by SQL.
pub(crate) fn numbered_hash(n: u32) -> TokenHash {
    TokenHash::of(&n.to_string())
}

/// As rows have it.
pub(crate) fn micros(clock: &ManualClock) -> i64 {
    let since = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

/// More sessions than are ended one by one, 0 to `count`, are Ada's: all of them end, in no time, but the
/// one that is kept, whose access tokens stay as well. Another server hears of it as it is.
pub(crate) async fn thousands_of_sessions_end_at_once<S: TokenStore + Clone>(
    [store, other]: [S; 2],
    count: u32,
    clock: &ManualClock,
) {
    let following = other.follow_revocations().await.unwrap();
    let (ada, shared): (_, SharedClock) = (UserId::from("ada"), Arc::new(clock.clone()));
    let kept = login(&store, &ada, clock).await;
    let kept_id = store.find_token(&kept).await.unwrap().unwrap().family.id;
    let end = async |keep: Option<&FamilyId>| {
        let begun = Instant::now();
        store.revoke_user(&ada, keep, RevokeReason::LogoutAll, &shared).await.unwrap();
        println!("{count} sessions end, but {keep:?}, in {:?}", begun.elapsed());
    };
    let is_revoked = |store: &S, session: &str| {
        let caller = Identity::new(ada.clone(), Role::VIEWER)
            .with_session_id(session)
            .with_issued_at(clock.now());
        store.revocations().is_revoked(&caller)
    };
    let live = async || store.sessions(&ada, clock.now()).await.unwrap();
    let rotate = async |token| store.rotate(rotation(token, random_hash(), clock)).await.unwrap();

    end(Some(&kept_id)).await;
    for n in [0, 1, 999, 1000, 1001, count / 2, count - 1] {
        assert_eq!(rotate(numbered_hash(n)).await, Rotation::Revoked, "{n}");
        assert!(is_revoked(&store, &format!("session {n}")), "{n}");
    }
    assert!(!is_revoked(&store, kept_id.as_str()), "it is kept, and so are its access tokens");
    let begun = Instant::now();
    while !is_revoked(&other, "session 0") {
        assert!(begun.elapsed() < Duration::from_secs(2), "it is not heard of");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!is_revoked(&other, kept_id.as_str()), "as the other server hears");
    let begun = Instant::now();
    let [session] = &live().await[..] else { panic!("one is live") };
    println!("{count} sessions that ended are passed over in {:?}", begun.elapsed());
    assert_eq!(session.family.id, kept_id);

    end(None).await;
    assert_eq!(rotate(kept).await, Rotation::Revoked);
    assert!(is_revoked(&store, kept_id.as_str()));
    assert_eq!(live().await, []);

    // What has ended is not to be kept: not one that ended one by one, nor one that did by the epoch.
    for n in [0, 999, count - 1] {
        end(Some(&FamilyId::from(format!("session {n}")))).await;
        assert_eq!(rotate(numbered_hash(n)).await, Rotation::Revoked, "{n}");
        assert_eq!(live().await, [], "{n}");
    }

    // And life goes on, with as many as there may be.
    let begun = Instant::now();
    let token = random_hash();
    let mut family = NewFamily::new(ada.clone(), token, clock.now(), clock.now() + HOUR);
    family.at_most = Some(100);
    store.open_family(family).await.unwrap();
    println!("a login beside {count} sessions that ended takes {:?}", begun.elapsed());
    assert_eq!(live().await.len(), 1);
    assert!(matches!(rotate(token).await, Rotation::Rotated { .. }));
    drop(following);
}

/// A session that was refreshed that often, and has ended, is forgotten in steps: who writes has a
/// turn between them. `tokens` rows of it are there but for the live one.
pub(crate) async fn a_very_long_session_is_forgotten_while_others_write<S>(
    store: S,
    tokens: u64,
    clock: &ManualClock,
) where
    S: TokenStore + Clone,
{
    const STEP: u32 = 1000;
    clock.advance(2 * HOUR);
    let (writer, writes) = (store.clone(), clock.clone());
    let writing = tokio::spawn(async move {
        let mut times: Vec<Duration> = Vec::new();
        loop {
            let begun = Instant::now();
            login(&writer, &UserId::random(), &writes).await;
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
            if writer.find_token(&numbered_hash(0)).await.unwrap().is_none() {
                times.sort();
                return times;
            }
        }
    });
    let (begun, mut longest, mut deleted, mut steps) = (Instant::now(), Duration::ZERO, 0, 0);
    loop {
        let step = Instant::now();
        let now = store.delete_expired_sessions(clock.now(), STEP).await.unwrap();
        longest = longest.max(step.elapsed());
        (deleted, steps) = (deleted + now, steps + 1);
        assert!(now <= u64::from(STEP));
        if now < u64::from(STEP) {
            break;
        }
        // As the server does.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(deleted, tokens + 1);
    let times = writing.await.unwrap();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{tokens} tokens forgotten in {:?}, the longest step {longest:?}; of {} logins meanwhile \
         the median took {middle:?}, the longest {last:?}",
        begun.elapsed(),
        times.len()
    );
    // Had they waited for all of it, there would be a few of them.
    assert!(times.len() > steps / 8, "{} logins in {steps} steps", times.len());
}
