//! How addresses are proved.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tower_warden::user::VerifyError;

use crate::support::{PASSWORD, Register};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

async fn refused(register: &Register, token: &str) -> bool {
    let checked = register.users.check_verification(token).await;
    let verified = register.users.verify_email(token).await;
    assert_eq!(checked.is_ok(), verified.is_ok());
    match verified {
        Ok(user) => !user.email_verified,
        Err(VerifyError::InvalidToken) => true,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn mailed_link_works_once() {
    let register = Register::new();
    let user = register.register("ada@example.com").await;
    let token = register.mailed_token().await;
    for _ in 0..3 {
        register.users.check_verification(&token).await.unwrap();
    }
    assert!(!register.users.find(&user.id).await.unwrap().unwrap().email_verified);

    assert!(register.users.verify_email(&token).await.unwrap().email_verified);
    assert!(refused(&register, &token).await);
    register.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
}

#[tokio::test]
async fn other_text_verifies_nobody() {
    let register = Register::new();
    register.register("ada@example.com").await;
    let token = register.mailed_token().await;
    let (upper, longer) = (token.to_uppercase(), format!("{token}0"));
    for text in ["", "0", &"0".repeat(64), &token[1..], &longer, &upper, "\u{660}", "' OR 1=1"] {
        assert!(refused(&register, text).await || text == token, "{text}");
    }
    assert!(!refused(&register, &token).await);
}

#[tokio::test]
async fn link_works_until_exactly_its_end() {
    for (after, works) in [(DAY - MILLISECOND, true), (DAY, false), (30 * DAY, false)] {
        let register = Register::new();
        register.register("ada@example.com").await;
        let token = register.mailed_token().await;
        register.clock.advance(after);
        assert_eq!(!refused(&register, &token).await, works, "after {after:?}");
    }
}

#[tokio::test]
async fn lifetime_of_links_can_be_chosen() {
    let mut register = Register::new();
    register.users = register.users.with_verification_ttl(MINUTE);
    register.register("ada@example.com").await;
    let token = register.mailed_token().await;
    register.clock.advance(MINUTE);
    assert!(refused(&register, &token).await);
}

#[tokio::test]
async fn link_is_sent_again_at_most_once_a_minute_and_ends_the_old_one() {
    let register = Register::new();
    register.register("ada@example.com").await;
    let mut token = register.mailed_token().await;
    for (advance, sent) in [
        (Duration::ZERO, false),
        (MINUTE - MILLISECOND, false),
        (MILLISECOND, true),
        (MINUTE - MILLISECOND, false),
        (MILLISECOND, true),
    ] {
        register.clock.advance(advance);
        register.users.resend_verification(" Ada@Example.COM").await.unwrap();
        register.settle().await;
        assert_eq!(register.outbox.waiting() + register.drawer.len() == 1, sent);
        if sent {
            let old = std::mem::replace(&mut token, register.mailed_token().await);
            assert!(refused(&register, &old).await);
        }
    }
    assert!(!refused(&register, &token).await);
}

#[tokio::test]
async fn resending_tells_nothing_of_who_is_registered() {
    let register = Register::new();
    register.register_verified("ada@example.com").await;
    register.clock.advance(DAY);
    for address in ["ada@example.com", "eve@example.com", "no address", ""] {
        register.users.resend_verification(address).await.unwrap();
        assert_eq!(register.outbox.waiting() + register.drawer.len(), 0, "{address}");
    }
}

#[tokio::test]
async fn database_that_is_gone_is_not_an_invalid_token() {
    let register = Register::new();
    register.register("ada@example.com").await;
    let token = register.mailed_token().await;
    register.store.gone.store(true, SeqCst);
    let checked = register.users.check_verification(&token).await;
    assert!(matches!(checked, Err(VerifyError::Store(_))), "{checked:?}");
    let verified = register.users.verify_email(&token).await;
    assert!(matches!(verified, Err(VerifyError::Store(_))), "{verified:?}");
    assert!(register.users.resend_verification("ada@example.com").await.is_err());

    register.store.gone.store(false, SeqCst);
    assert!(!refused(&register, &token).await);
}

#[tokio::test(start_paused = true)]
async fn known_and_unknown_addresses_are_answered_after_the_same_time() {
    let register = Register::new();
    register.register("ada@example.com").await;
    register.register_verified("bob@example.com").await;
    for address in ["ada@example.com", "bob@example.com", "nobody@example.com"] {
        let begun = tokio::time::Instant::now();
        register.users.forgot_password(address).await.unwrap();
        assert_eq!(begun.elapsed(), 20 * MILLISECOND, "{address}");
        register.users.resend_verification(address).await.unwrap();
        assert_eq!(begun.elapsed(), 40 * MILLISECOND, "{address}");
    }
}
