use super::*;
use crate::{
    Clock, ManualClock, Plan, Role,
    store::memory::MemoryStore,
    token::{
        InvalidRefresh, PresentedToken, RefreshError, RotateRequest, Rotation, SigningKey,
        VerifyingKey,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

fn key() -> SigningKey {
    let pem = include_bytes!("../../../tests/support/keys/ed25519-private.pem");
    SigningKey::from_pem(pem).unwrap()
}

fn service(clock: &ManualClock) -> TokenService {
    TokenService::new(KeySet::new(key()), "issuer", "api", MemoryStore::new())
        .with_clock(Arc::new(clock.clone()))
}

fn ada() -> Identity {
    Identity::new(UserId::from("ada"), Role::EDITOR)
}

async fn still_ada(id: UserId) -> Result<Option<Identity>, StoreError> {
    assert_eq!(id.as_str(), "ada");
    Ok(Some(ada()))
}

async fn refresh(service: &TokenService, pair: &TokenPair) -> Result<TokenPair, RefreshError> {
    service.refresh(pair.refresh_token().expose(), still_ada).await
}

fn reason(result: Result<TokenPair, RefreshError>) -> InvalidRefresh {
    match result {
        Err(RefreshError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_remembered_token_expires_on_time() {
    for capacity in [CACHE_CAPACITY, 0] {
        let clock = ManualClock::new();
        let service = service(&clock).with_cache_capacity(capacity);
        let pair = service.issue(&ada()).await.unwrap();
        assert_eq!(pair.expires_in(), 15 * MINUTE);
        for _ in 0..2 {
            assert_eq!(service.verify(pair.access_token()).unwrap().role(), &Role::EDITOR);
        }
        clock.advance(15 * MINUTE - Duration::from_nanos(1));
        assert!(service.verify(pair.access_token()).is_ok(), "{capacity}");
        clock.advance(Duration::from_nanos(1));
        for _ in 0..2 {
            let verified = service.verify(pair.access_token());
            assert!(matches!(verified, Err(TokenError::Expired)), "{capacity}");
        }
    }
}

#[tokio::test]
async fn what_resembles_a_remembered_token_is_not_taken_for_it() {
    let service = service(&ManualClock::new());
    let pair = service.issue(&ada()).await.unwrap();
    let token = pair.access_token();
    service.verify(token).unwrap();
    for forged in [&token[..token.len() - 1], &token[1..], &format!("{token}=")] {
        let verified = service.clone().verify(forged);
        assert!(matches!(verified, Err(TokenError::Invalid(_))), "{verified:?}");
        assert!(matches!(service.verify(forged), Err(TokenError::Invalid(_))), "nor remembered");
    }
}

#[tokio::test]
async fn an_access_token_lives_whole_seconds() {
    let clock = ManualClock::new();
    for (configured, granted) in [(0, 1), (500, 1), (1000, 1), (1001, 2)] {
        let service = service(&clock).with_access_ttl(Duration::from_millis(configured));
        let pair = service.issue(&ada()).await.unwrap();
        assert_eq!(pair.expires_in(), Duration::from_secs(granted));
        assert!(service.verify(pair.access_token()).is_ok());
    }
    let service = service(&clock).with_access_ttl(Duration::MAX).with_refresh_ttl(Duration::MAX);
    let service = service.with_leeway(Duration::MAX);
    let pair = service.with_session_ttl(Some(Duration::MAX)).issue(&ada()).await;
    assert!(pair.is_ok(), "no time is too long to be added to a date");
}

#[tokio::test]
async fn a_token_of_a_retired_key_is_verified_until_the_key_is_dropped() {
    let clock = ManualClock::new();
    let pair = service(&clock).issue(&ada()).await.unwrap();
    let new = || KeySet::new(SigningKey::generate_ed25519().unwrap());
    let old = include_bytes!("../../../tests/support/keys/ed25519-public.pem");
    let with_old = new().with_verifying_key(VerifyingKey::from_pem(old).unwrap());
    for (keys, good) in [(with_old, true), (new(), false)] {
        let service = TokenService::new(keys, "issuer", "api", MemoryStore::new())
            .with_clock(Arc::new(clock.clone()));
        assert_eq!(service.verify(pair.access_token()).is_ok(), good);
    }
}

#[tokio::test]
async fn what_a_lenient_clone_has_seen_a_strict_one_verifies_for_itself() {
    let clock = ManualClock::new();
    let strict = service(&clock);
    let token = strict.issue(&ada()).await.unwrap();
    let lenient = strict.clone().with_leeway(MINUTE);
    clock.advance(15 * MINUTE);
    lenient.verify(token.access_token()).unwrap();
    assert!(strict.verify(token.access_token()).is_err());
    let picky = lenient.clone().with_subjects(UserId::is_uuid);
    assert!(matches!(picky.verify(token.access_token()), Err(TokenError::Invalid("sub"))));
    let short = lenient.clone().with_access_ttl(MINUTE);
    assert!(matches!(short.verify(token.access_token()), Err(TokenError::Invalid("lifetime"))));
}

#[tokio::test]
async fn keys_change_while_the_service_runs() {
    let service = service(&ManualClock::new());
    let clone = service.clone();
    let old = service.issue(&ada()).await.unwrap();
    clone.verify(old.access_token()).unwrap();
    let new = SigningKey::generate_ed25519().unwrap();
    service.set_keys(KeySet::new(new).with_verifying_key(key().verifying_key().clone()));
    let next = clone.issue(&ada()).await.unwrap();
    for pair in [&old, &next] {
        clone.verify(pair.access_token()).unwrap();
    }
    service.set_keys(KeySet::new(SigningKey::generate_ed25519().unwrap()));
    for pair in [&old, &next] {
        let refused = clone.verify(pair.access_token());
        assert!(matches!(refused, Err(TokenError::Invalid("kid"))), "{refused:?}");
    }
    // The session is the store's, whoever signed its access tokens.
    refresh(&clone, &next).await.unwrap();
}

#[tokio::test]
async fn an_access_token_may_be_signed_without_a_session() {
    let service = service(&ManualClock::new());
    let token = service.issue_access(&ada()).unwrap();
    let caller = service.verify(token.expose()).unwrap();
    assert_eq!(caller.user_id(), ada().user_id());
    assert!(!format!("{token:?}").contains(token.expose()));
    let written = serde_json::to_value(&token).unwrap();
    assert_eq!((&written["token_type"], &written["expires_in"]), (&"Bearer".into(), &900.into()));
    assert_eq!(service.logout_all(ada().user_id()).await.unwrap(), 0, "there is no session");
    let nobody = Identity::new(UserId::from(""), Role::VIEWER);
    assert!(matches!(service.issue_access(&nobody), Err(TokenError::InvalidIdentity("user id"))));
}

#[tokio::test]
async fn role_and_plan_are_read_afresh_at_each_refresh() {
    let service = service(&ManualClock::new());
    let pair = service.issue(&ada()).await.unwrap();
    let promoted = |id| async { Ok(Some(Identity::new(id, Role::ADMIN).with_plan(Plan::PAID))) };
    let pair = service.refresh(pair.refresh_token().expose(), promoted).await.unwrap();
    let identity = service.verify(pair.access_token()).unwrap();
    assert_eq!((identity.role(), identity.plan()), (&Role::ADMIN, Some(&Plan::PAID)));
    let pair = refresh(&service, &pair).await.unwrap();
    assert_eq!(service.verify(pair.access_token()).unwrap().plan(), None);
}

#[tokio::test]
async fn a_session_keeps_its_id_and_the_time_of_its_login() {
    let clock = ManualClock::new();
    let service = service(&clock).with_refresh_ttl(20 * MINUTE).with_session_ttl(Some(30 * MINUTE));
    let login = clock.now();
    let pair = service.issue(&ada()).await.unwrap();
    let session = pair.session_id().to_owned();
    assert_eq!(pair.refresh_expires_at(), login + 20 * MINUTE);

    clock.advance(15 * MINUTE);
    let next = refresh(&service, &pair).await.unwrap();
    assert_eq!((next.session_id(), next.refresh_expires_at()), (&*session, login + 30 * MINUTE));
    for pair in [&pair, &next] {
        let caller = service.clone().with_leeway(20 * MINUTE).verify(pair.access_token()).unwrap();
        assert_eq!((caller.session_id(), caller.auth_time()), (Some(&*session), Some(login)));
    }
    assert_ne!(service.issue(&ada()).await.unwrap().session_id(), session);
}

#[tokio::test]
async fn a_pair_is_written_as_a_token_response() {
    let pair = service(&ManualClock::new()).issue(&ada()).await.unwrap();
    let expected = serde_json::json!({
        "access_token": pair.access_token(), "token_type": "Bearer", "expires_in": 900,
        "refresh_token": pair.refresh_token().expose(),
    });
    assert_eq!(serde_json::to_value(&pair).unwrap(), expected);
}

#[tokio::test]
async fn each_refusal_has_its_reason() {
    let clock = ManualClock::new();
    let service = service(&clock).with_session_ttl(Some(20 * MINUTE)).with_refresh_ttl(15 * MINUTE);
    let other = RefreshToken::random().unwrap();
    for unknown in ["", "a", other.expose(), &other.expose().to_uppercase()] {
        let refused = reason(service.refresh(unknown, still_ada).await);
        assert_eq!(refused, InvalidRefresh::Unknown);
    }

    let idle = service.issue(&ada()).await.unwrap();
    let first = service.issue(&ada()).await.unwrap();
    clock.advance(14 * MINUTE);
    let second = refresh(&service, &first).await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(reason(refresh(&service, &idle).await), InvalidRefresh::Expired);
    let third = refresh(&service, &second).await.unwrap();
    clock.advance(5 * MINUTE);
    assert_eq!(reason(refresh(&service, &third).await), InvalidRefresh::Expired, "the session is");

    assert_eq!(reason(refresh(&service, &first).await), InvalidRefresh::Reused);
    assert_eq!(reason(refresh(&service, &third).await), InvalidRefresh::Revoked);
}

#[tokio::test]
async fn the_session_of_a_user_who_is_gone_ends() {
    let service = service(&ManualClock::new());
    let pair = service.issue(&ada()).await.unwrap();
    let gone = service.refresh(pair.refresh_token().expose(), |_| async { Ok(None) }).await;
    assert_eq!(reason(gone), InvalidRefresh::NoUser);
    assert_eq!(reason(refresh(&service, &pair).await), InvalidRefresh::Revoked);
    let found = service.store.find_token(&pair.refresh_token().hash()).await.unwrap().unwrap();
    assert_eq!(found.family.revoked.unwrap().1, RevokeReason::NoUser, "nobody has logged out");
}

#[tokio::test]
async fn a_session_is_never_given_to_another_user() {
    let service = service(&ManualClock::new());
    let pair = service.issue(&ada()).await.unwrap();
    let eve = |_| async { Ok(Some(Identity::new(UserId::from("eve"), Role::ADMIN))) };
    let mixed_up = service.refresh(pair.refresh_token().expose(), eve).await;
    assert!(matches!(mixed_up, Err(RefreshError::InvalidIdentity("user id"))));
    refresh(&service, &pair).await.unwrap();
}

#[tokio::test]
async fn a_failure_on_the_way_burns_nothing() {
    let service = service(&ManualClock::new());
    let pair = service.issue(&ada()).await.unwrap();
    let failing = |_| async { Err(StoreError::unavailable("down")) };
    let failed = service.refresh(pair.refresh_token().expose(), failing).await;
    assert!(matches!(failed, Err(RefreshError::Store(error)) if error.is_unavailable()));

    let too_much = ("x".to_owned(), "x".repeat(8 * 1024).into());
    let overloaded = ada().with_claims([too_much].into_iter().collect());
    assert!(matches!(service.issue(&overloaded).await, Err(TokenError::Signing)));
    let nobody = |_| async { Ok(Some(Identity::new(UserId::from(""), Role::VIEWER))) };
    let failed = service.refresh(pair.refresh_token().expose(), nobody).await;
    assert!(matches!(failed, Err(RefreshError::InvalidIdentity("user id"))));
    let overload = |_| async { Ok(Some(overloaded)) };
    let failed = service.refresh(pair.refresh_token().expose(), overload).await;
    assert!(matches!(failed, Err(RefreshError::Signing)));

    refresh(&service, &pair).await.unwrap();
}

#[tokio::test]
async fn logout_ends_one_session_and_logout_all_every_one() {
    let service = service(&ManualClock::new());
    let mut pairs = Vec::new();
    for _ in 0..3 {
        pairs.push(service.issue(&ada()).await.unwrap());
    }
    service.logout("unknown").await.unwrap();
    service.logout(pairs[0].refresh_token().expose()).await.unwrap();
    assert_eq!(reason(refresh(&service, &pairs[0]).await), InvalidRefresh::Revoked);
    pairs[1] = refresh(&service, &pairs[1]).await.unwrap();

    assert_eq!(service.logout_all(ada().user_id()).await.unwrap(), 2);
    for pair in &pairs {
        assert_eq!(reason(refresh(&service, pair).await), InvalidRefresh::Revoked);
    }
}

#[tokio::test]
async fn sessions_that_have_ended_are_forgotten() {
    let clock = ManualClock::new();
    let service = service(&clock);
    let pair = service.issue(&ada()).await.unwrap();
    assert_eq!(service.delete_expired(10).await.unwrap(), 0);
    clock.advance(REFRESH_TTL + 20 * MINUTE);
    assert_eq!(service.delete_expired(10).await.unwrap(), 1);
    assert_eq!(reason(refresh(&service, &pair).await), InvalidRefresh::Unknown);
}

#[tokio::test]
async fn session_is_not_forgotten_while_an_access_token_of_it_may_be_good() {
    let clock = ManualClock::new();
    let service =
        service(&clock).with_access_ttl(60 * MINUTE).with_refresh_ttl(Duration::from_secs(1));
    let pair = service.issue(&ada()).await.unwrap();
    clock.advance(59 * MINUTE);
    assert_eq!(service.delete_expired(10).await.unwrap(), 0);
    assert!(service.verify(pair.access_token()).is_ok());
    service.logout_all(ada().user_id()).await.unwrap();
    assert!(matches!(service.verify(pair.access_token()), Err(TokenError::Revoked)));
}

/// A store in which another process replaces each token while it is looked up: after its family was read,
/// and before it was.
#[derive(Debug)]
struct OvertakenReads(MemoryStore);

#[async_trait::async_trait]
impl TokenStore for OvertakenReads {
    async fn open_family(&self, family: NewFamily) -> Result<Opening, StoreError> {
        self.0.open_family(family).await
    }

    async fn find_token(&self, token: &TokenHash) -> Result<Option<PresentedToken>, StoreError> {
        let mut found = TokenStore::find_token(&self.0, token).await?;
        if let Some(found) = &mut found {
            found.family.sealed = None;
        }
        Ok(found)
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        self.0.rotate(request).await
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        self.0.revoke_family(token, reason, clock).await
    }

    async fn revoke_user(
        &self,
        user: &UserId,
        keep: Option<&FamilyId>,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<u64, StoreError> {
        self.0.revoke_user(user, keep, reason, clock).await
    }

    async fn delete_expired_sessions(&self, _: SystemTime, _: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[tokio::test]
async fn token_that_is_replaced_while_it_is_read_is_replayed_within_its_leeway() {
    let store = OvertakenReads(MemoryStore::new());
    let service = TokenService::new(KeySet::new(key()), "issuer", "api", store)
        .with_refresh_leeway(MINUTE)
        .with_clock(Arc::new(ManualClock::new()));
    let pair = service.issue(&ada()).await.unwrap();
    let next = refresh(&service, &pair).await.unwrap();
    let again = refresh(&service, &pair).await.unwrap();
    assert_eq!(again.refresh_token().expose(), next.refresh_token().expose());
    let last = refresh(&service, &next).await.unwrap();
    assert_eq!(reason(refresh(&service, &pair).await), InvalidRefresh::Reused);
    assert_eq!(reason(refresh(&service, &last).await), InvalidRefresh::Revoked);
}

#[tokio::test]
async fn nothing_secret_is_printed_and_futures_may_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let service = service(&ManualClock::new());
    let pair = is_send(service.issue(&ada())).await.unwrap();
    let pair = is_send(service.refresh(pair.refresh_token().expose(), still_ada)).await.unwrap();
    service.verify(pair.access_token()).unwrap();
    let printed = format!("{pair:?} {service:?}");
    assert!(!printed.contains(&pair.access_token()[..20]), "{printed}");
    assert!(!printed.contains(&pair.refresh_token().expose()[..20]), "{printed}");
}
