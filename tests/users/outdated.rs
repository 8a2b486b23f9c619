//! Passwords that were found right, of accounts that are otherwise by then.

use async_trait::async_trait;
use tower_warden::{
    Identity, Role, StoreError, TokenService, UserId, UserService,
    second_factor::{LoginSteps, SecondFactor, SecondStepError},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenError},
    user::{
        BcryptHasher, ChangePasswordError, CheckPasswordError, EmailChangeError, HashingPool,
        UpdateUserError, UserChange,
    },
};

use crate::support::{PASSWORD, Register};

/// The check comes first, then the reset, then what the password was asked for.
#[tokio::test]
async fn password_that_was_reset_meanwhile_takes_nothing_along() {
    let register = Register::new();
    let user = register.register_verified("ada@example.com").await;
    let check = || register.users.check_password(&user.id, PASSWORD.into());
    let (to_move, to_delete) = (check().await.unwrap(), check().await.unwrap());

    let (_, secret) = register.users.reset_link(&user.id).await.unwrap().unwrap();
    register.users.reset_password(secret.expose(), "Brand-New-Pass-1".into()).await.unwrap();
    assert!(register.drawer.next().await.subject().contains("password"));

    let moved = register.users.change_email_checked(to_move, "eve@example.com").await;
    assert!(matches!(moved, Err(EmailChangeError::Outdated)), "{moved:?}");
    register.settle().await;
    assert_eq!(register.drawer.len(), 0, "a link went out");
    let deleted = register.users.delete_checked(to_delete).await;
    assert!(matches!(deleted, Err(UpdateUserError::Outdated)), "{deleted:?}");

    let checked = register.users.check_password(&user.id, "Brand-New-Pass-1".into()).await;
    register.users.delete_checked(checked.unwrap()).await.unwrap();
}

/// No password is wrong of an account that is no more.
#[tokio::test]
async fn account_that_is_gone_or_suspended_says_so() {
    for suspended in [false, true] {
        let register = Register::new();
        let user = register.register_verified("ada@example.com").await;
        let check = || register.users.check_password(&user.id, PASSWORD.into());
        let checked = check().await.unwrap();
        match suspended {
            true => {
                let change = UserChange::new().with_suspended(true);
                drop(register.users.update(&user.id, change).await.unwrap());
            }
            false => drop(register.users.delete(&user.id).await.unwrap()),
        }
        let set = register.users.change_password(checked, "Brand-New-Pass-1".into(), None).await;
        assert!(matches!(set, Err(ChangePasswordError::Gone)), "{set:?}");
        for password in [PASSWORD, "Wrong-Horse-1"] {
            let checked = register.users.check_password(&user.id, password.into()).await;
            assert!(matches!(checked, Err(CheckPasswordError::Gone)), "{checked:?}");
        }
    }
}

/// Everybody's second factor.
#[derive(Debug)]
struct Watchword;

#[async_trait]
impl SecondFactor for Watchword {
    async fn is_on(&self, _: &UserId) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn check(&self, _: &UserId, code: &str) -> Result<bool, StoreError> {
        Ok(code == "swordfish")
    }
}

/// Who knew the old password opens no session with it, whenever the reset comes.
#[tokio::test]
async fn password_that_is_reset_during_the_second_step_opens_no_session() {
    #[derive(Debug, PartialEq)]
    enum Reset {
        Never,
        BeforeTheUserIsRead,
        BeforeTheCode,
        AfterIt,
    }
    use Reset::{AfterIt, BeforeTheCode, BeforeTheUserIsRead, Never};
    for when in [Never, BeforeTheUserIsRead, BeforeTheCode, AfterIt] {
        let store = MemoryStore::new();
        let hashing = HashingPool::new(BcryptHasher::new(4).unwrap()).unwrap();
        let users = UserService::without_mail(store.clone(), hashing);
        let steps = LoginSteps::new(store.clone(), Watchword);
        let keys = KeySet::new(SigningKey::generate_ed25519().unwrap());
        let tokens = TokenService::new(keys, "issuer", "api", store);
        users.create_verified("ada@example.com", PASSWORD.into(), Role::VIEWER).await.unwrap();

        let user = users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
        let token = steps.begin(&Identity::from(&user)).await.unwrap().unwrap();
        let reset_if = async |now: Reset| {
            if when == now {
                let (_, secret) = users.reset_link(&user.id).await.unwrap().unwrap();
                users.reset_password(secret.expose(), "Brand-New-Pass-1".into()).await.unwrap();
            }
        };
        let current = async |id: UserId| {
            reset_if(BeforeTheUserIsRead).await;
            let user = users.find(&id).await?;
            reset_if(BeforeTheCode).await;
            Ok(user.map(|user| Identity::from(&user)))
        };
        let finished = steps.finish(token.expose(), "swordfish", current).await;
        if matches!(when, BeforeTheUserIsRead | BeforeTheCode) {
            assert!(matches!(finished, Err(SecondStepError::InvalidCode)), "{when:?}");
            continue;
        }
        reset_if(AfterIt).await;
        let issued = tokens.issue(&finished.unwrap()).await;
        match when {
            AfterIt => assert!(matches!(issued, Err(TokenError::Overtaken)), "{issued:?}"),
            _ => drop(issued.unwrap()),
        }
    }
}
