//! How users come to be.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::sync::Semaphore;
use tower_warden::{
    Answer, Clock, Plan, Role,
    user::{
        ChangePasswordError, EnsuredAdmin, HashingPool, LinkMail, LoginError, Password,
        PasswordPolicy, RegisterError, ResetError, UserChange, UserService, VerifyError, Violation,
        mail::Outbox,
    },
};

use crate::support::{Log, PASSWORD, Register, StuckMailSender, TestStore, email, until};

#[tokio::test]
async fn new_user_is_an_unverified_viewer_without_a_plan() {
    let register = Register::new();
    let user = register.register(" Ada@Example.COM ").await;
    assert_eq!(user.email.as_str(), "ada@example.com");
    assert_eq!((user.role.clone(), user.plan.clone()), (Role::VIEWER, None));
    assert_eq!((user.email_verified, user.created_at), (false, register.clock.now()));
    assert_eq!(register.users.find(&user.id).await.unwrap(), Some(user.clone()));
    assert_eq!(register.users.count().await.unwrap(), 1);

    let mail = register.drawer.next().await;
    assert_eq!(*mail.to(), user.email);
    assert_eq!(mail.subject(), "Confirm your e-mail address");
}

#[tokio::test]
async fn weak_password_is_told_all_that_is_wrong_with_it() {
    let register = Register::new();
    let refused = register.users.register(&email("ada@example.com"), "correct".into()).await;
    let Err(RegisterError::WeakPassword(violations)) = refused else { panic!("{refused:?}") };
    let expected = [Violation::TooShort, Violation::NoUppercase, Violation::NoDigit];
    assert_eq!(violations, expected);
    assert_eq!(register.hasher.hashes.load(SeqCst), 0);
    assert_eq!(register.users.count().await.unwrap(), 0);
}

#[tokio::test]
async fn policy_can_be_replaced() {
    #[derive(Debug)]
    struct NotPassword;
    impl PasswordPolicy for NotPassword {
        fn violations(&self, password: &Password) -> Vec<Violation> {
            let common = Violation::Other { code: "common", detail: "must not be so common" };
            if password.expose() == "password" { vec![common] } else { vec![] }
        }
    }
    let users = Register::new().users.with_policy(NotPassword);
    let refused = users.register(&email("ada@example.com"), "password".into()).await;
    let Err(RegisterError::WeakPassword(violations)) = refused else { panic!("{refused:?}") };
    assert_eq!(violations[0].code(), "common");
    assert_eq!(violations[0].to_string(), "must not be so common");
    users.register(&email("ada@example.com"), "sesame".into()).await.unwrap();
}

#[tokio::test]
async fn policy_may_have_to_ask_somebody_wherever_a_password_is_set() {
    #[derive(Debug)]
    struct Leaked;
    impl PasswordPolicy for Leaked {
        fn violations(&self, _: &Password) -> Vec<Violation> {
            vec![]
        }

        fn ask(&self, password: &Password) -> Answer<Vec<Violation>> {
            let leaked = password.expose() == "leaked";
            Answer::pending(async move {
                tokio::task::yield_now().await;
                let violation = Violation::Other { code: "leaked", detail: "has leaked" };
                leaked.then_some(violation).into_iter().collect()
            })
        }
    }
    let users = Register::new().users.with_policy(Leaked);
    let refused = users.register(&email("ada@example.com"), "leaked".into()).await;
    assert!(matches!(refused, Err(RegisterError::WeakPassword(_))), "{refused:?}");
    let ada = users.register(&email("ada@example.com"), "sesame".into()).await.unwrap();
    let (_, secret) = users.reset_link(&ada.id).await.unwrap().unwrap();
    let refused = users.reset_password(secret.expose(), "leaked".into()).await;
    assert!(matches!(refused, Err(ResetError::WeakPassword(_))), "{refused:?}");
    let checked = users.check_password(&ada.id, "sesame".into()).await.unwrap();
    let refused = users.change_password(checked, "leaked".into(), None).await;
    assert!(matches!(refused, Err(ChangePasswordError::WeakPassword(_))), "{refused:?}");
}

#[tokio::test]
async fn taken_address_is_refused_before_anything_is_hashed() {
    let register = Register::new();
    register.register("ada@example.com").await;
    let again = register.users.register(&email("ADA@example.com"), PASSWORD.into()).await;
    assert!(matches!(again, Err(RegisterError::EmailTaken)), "{again:?}");
    assert_eq!(register.hasher.hashes.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_registrations_at_once_one_wins_and_gets_the_only_mail() {
    let register = Register::new();
    register.store.overlooked.store(20, SeqCst); // none of them sees another beforehand
    let attempts: Vec<_> = (0..20)
        .map(|_| {
            let users = register.users.clone();
            tokio::spawn(
                async move { users.register(&email("ada@example.com"), PASSWORD.into()).await },
            )
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, RegisterError::EmailTaken), "{error:?}"),
        }
    }
    register.outbox.close(Duration::from_secs(10)).await;
    assert_eq!((won, register.drawer.len()), (1, 1));
}

#[tokio::test]
async fn stuck_mail_server_does_not_delay_the_answer() {
    let register = Register::new();
    let hashing = HashingPool::new(register.hasher.clone()).unwrap();
    let mail = LinkMail::verification("https://example.com/auth/verify").unwrap();
    let outbox = Outbox::new(StuckMailSender);
    let users = UserService::new(register.store.clone(), hashing, mail, outbox.clone());
    users.register(&email("ada@example.com"), PASSWORD.into()).await.unwrap();
    assert_eq!(outbox.waiting(), 1);
}

#[tokio::test]
async fn who_hangs_up_while_the_account_is_made_gets_the_mail_all_the_same() {
    let go_on = Arc::new(Semaphore::new(0));
    let register = Register::over(TestStore { go_on: go_on.clone(), ..TestStore::default() }, 4);
    let users = register.users.clone();
    let attempt =
        tokio::spawn(
            async move { users.register(&email("ada@example.com"), PASSWORD.into()).await },
        );
    until(|| register.store.creating.load(SeqCst) == 1).await;
    attempt.abort();
    assert!(attempt.await.unwrap_err().is_cancelled());

    go_on.add_permits(1);
    register.users.verify_email(&register.mailed_token().await).await.unwrap();
}

#[tokio::test]
async fn database_that_is_gone_is_told_apart() {
    let register = Register::new();
    register.store.gone.store(true, SeqCst);
    let refused = register.users.register(&email("ada@example.com"), PASSWORD.into()).await;
    assert!(matches!(&refused, Err(RegisterError::Store(e)) if e.is_unavailable()), "{refused:?}");
}

#[tokio::test]
async fn admin_is_created_verified_and_without_mail() {
    let register = Register::new();
    let admin = register.users.ensure_admin(&email("root@example.com"), PASSWORD.into()).await;
    let (admin, how) = admin.unwrap();
    assert_eq!(how, EnsuredAdmin::Created);
    assert_eq!((admin.role, admin.email_verified), (Role::ADMIN, true));
    register.users.authenticate("root@example.com", PASSWORD.into()).await.unwrap();
    assert_eq!(register.outbox.waiting() + register.drawer.len(), 0);
}

#[tokio::test]
async fn user_who_is_there_is_promoted_and_keeps_password_and_plan() {
    let register = Register::new();
    let user = register.register_verified("ada@example.com").await;
    let change = UserChange::new().with_plan(Some(Plan::PAID));
    register.users.update(&user.id, change).await.unwrap();
    for expected in [EnsuredAdmin::Promoted, EnsuredAdmin::Unchanged] {
        let other = Password::from("Another-Horse-2");
        let (admin, how) = register.users.ensure_admin(&user.email, other).await.unwrap();
        assert_eq!(how, expected);
        assert_eq!((&admin.id, admin.role), (&user.id, Role::ADMIN));
        assert_eq!((admin.email_verified, admin.plan), (true, Some(Plan::PAID)));
    }
    register.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
}

#[tokio::test]
async fn account_that_was_never_verified_is_nobodys_and_gets_the_admins_password() {
    let register = Register::new();
    let eve = register.register("root@example.com").await; // a stranger
    let link = register.mailed_token().await;
    let admin = "Another-Horse-2";
    let (root, how) = register.users.ensure_admin("root@example.com", admin.into()).await.unwrap();
    assert_eq!((how, &root.id), (EnsuredAdmin::TakenOver, &eve.id));
    let stranger = register.users.authenticate("root@example.com", PASSWORD.into()).await;
    assert!(matches!(stranger, Err(LoginError::InvalidCredentials)), "{stranger:?}");
    let verified = register.users.verify_email(&link).await;
    assert!(matches!(verified, Err(VerifyError::InvalidToken)), "{verified:?}");
    register.users.authenticate("root@example.com", admin.into()).await.unwrap();
    assert!(Log::text().contains("an account whose address was never verified is an admin's now"));
}

#[tokio::test]
async fn suspended_account_is_made_no_admin() {
    let register = Register::new();
    let user = register.register_verified("ada@example.com").await;
    register.users.suspend(&user.id).await.unwrap();
    let refused = register.users.ensure_admin("ada@example.com", PASSWORD.into()).await;
    assert!(matches!(refused, Err(RegisterError::Suspended)), "{refused:?}");
    assert_eq!(register.users.find(&user.id).await.unwrap().unwrap().role, Role::VIEWER);
}

#[tokio::test]
async fn address_of_an_account_whose_link_ended_is_registered_anew() {
    let register = Register::new();
    let eve = register.register("ada@example.com").await; // a stranger
    let link = register.mailed_token().await;
    register.clock.advance(Duration::from_secs(24 * 60 * 60 - 1));
    let early = register.users.register("ada@example.com", PASSWORD.into()).await;
    assert!(matches!(early, Err(RegisterError::EmailTaken)), "{early:?}");

    register.clock.advance(Duration::from_secs(1));
    let password = "Another-Horse-2";
    let ada = register.users.register("ada@example.com", password.into()).await.unwrap();
    assert_ne!(ada.id, eve.id);
    assert_eq!(register.users.find(&eve.id).await.unwrap(), None);
    assert!(register.users.verify_email(&link).await.is_err());
    register.users.verify_email(&register.mailed_token().await).await.unwrap();
    register.users.authenticate("ada@example.com", password.into()).await.unwrap();
}

#[tokio::test]
async fn weak_admin_password_is_an_error_also_for_who_is_there() {
    let register = Register::new();
    let ada = email("ada@example.com");
    for there in [false, true] {
        let refused = register.users.ensure_admin(&ada, "weak".into()).await;
        assert!(matches!(refused, Err(RegisterError::WeakPassword(_))), "{there}: {refused:?}");
        assert_eq!(register.users.count().await.unwrap(), u64::from(there));
        if !there {
            register.register("ada@example.com").await;
        }
    }
}

#[tokio::test]
async fn admin_whom_another_server_creates_meanwhile_is_no_error() {
    let register = Register::new();
    let root = email("root@example.com");
    let (first, _) = register.users.ensure_admin(&root, PASSWORD.into()).await.unwrap();
    let (second, how) = register.users.ensure_admin(&root, PASSWORD.into()).await.unwrap();
    assert_eq!((first, how), (second, EnsuredAdmin::Unchanged));
}

#[tokio::test]
async fn logs_name_users_by_identifier_and_nothing_else() {
    let register = Register::new();
    let user = register.register("ada@example.com").await;
    let token = register.mailed_token().await;
    let _ = register.users.authenticate("ada@example.com", PASSWORD.into()).await;
    let _ = register.users.authenticate("eve@example.com", "Wrong-Horse-1".into()).await;
    register.users.verify_email(&token).await.unwrap();
    let _ = register.users.authenticate("ada@example.com", "Wrong-Horse-1".into()).await;
    register.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();

    let log = Log::text(); // that of the other tests too
    assert_eq!(log.matches(user.id.as_str()).count(), 5, "{log}");
    for secret in ["ada@", "eve@", PASSWORD, "Wrong-Horse-1", &token, "$2b$"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
