//! The login in two steps: a password, then a code of an authenticator app or a recovery code.
//!
//! Run it: `cargo run --example second_factor`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tower_warden::{
    Clock, Identity, ManualClock, TokenService,
    second_factor::{LoginSteps, SealingKey, SealingKeys, SecondStepError, TotpService},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenPair},
    user::{Email, NewUser, PasswordHash, UserStore},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A clock that is moved: codes change every half minute.
    let clock = ManualClock::at(SystemTime::now());
    let store = MemoryStore::new();
    let ada = add_user(&store).await?;
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", store.clone())
        .with_clock(Arc::new(clock.clone()));
    // A server loads it from a file: SealingKeys::load_or_generate("config/secret.key").
    let sealing = SealingKeys::new(SealingKey::random()?);
    let totp =
        TotpService::new(store.clone(), sealing, "Example").with_clock(Arc::new(clock.clone()));
    let login = LoginSteps::new(store, totp.clone()).with_clock(Arc::new(clock.clone()));

    // Ada sets it up: she scans the QR code of the URI, and types what the app shows.
    let setup = totp.begin(ada.user_id(), "ada@example.com").await?;
    println!("as a QR code: {}", setup.uri());
    let recovery_codes = totp.confirm(ada.user_id(), &setup.code_at(clock.now())).await?;
    for code in &recovery_codes {
        println!("to keep in a safe place: {}", code.expose());
    }

    // A login: the password was right (`UserService::authenticate`), and a second step is due.
    clock.advance(Duration::from_secs(30));
    let step = login.begin(&ada).await?.ok_or("no second factor")?;
    let code = setup.code_at(clock.now());
    let pair = second_step(&login, &tokens, &ada, step.expose(), &code).await?;
    println!("logged in by {:?}", tokens.verify(pair.access_token())?.amr());

    // The same code a second time, seen over her shoulder; and a recovery code.
    let step = login.begin(&ada).await?.ok_or("no second factor")?;
    let again = login.finish(step.expose(), &code, async |_| Ok(Some(ada.clone()))).await;
    println!("the same code again: {again:?}");
    assert!(matches!(again, Err(SecondStepError::InvalidCode)));
    let recovery_code = recovery_codes[0].expose();
    second_step(&login, &tokens, &ada, step.expose(), recovery_code).await?;
    println!("logged in by a recovery code");
    Ok(())
}

/// What the second request of a login does. A limiter for wrong codes belongs before it.
async fn second_step(
    login: &LoginSteps,
    tokens: &TokenService,
    user: &Identity,
    login_token: &str,
    code: &str,
) -> Result<TokenPair, Box<dyn std::error::Error>> {
    // Who the user is now: in earnest `UserService::find`.
    let current = async |_| Ok(Some(user.clone()));
    let caller = login.finish(login_token, code, current).await?;
    Ok(tokens.issue(&caller.with_amr(["pwd", "otp"])).await?)
}

/// Somebody who has registered: see the example `server`.
async fn add_user(store: &MemoryStore) -> Result<Identity, Box<dyn std::error::Error>> {
    let email = Email::parse("ada@example.com")?;
    let hash = PasswordHash::from("$2b$12$…".to_owned());
    let user = NewUser::new(email, hash, SystemTime::now());
    Ok(Identity::from(&store.create(user).await?))
}
