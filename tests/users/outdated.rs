//! Passwords that were found right, of accounts that are otherwise by then.

use tower_warden::user::{
    ChangePasswordError, CheckPasswordError, EmailChangeError, UpdateUserError, UserChange,
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
