//! Set up, confirm, ask, turn off.

use std::{fmt, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{
    RecoveryCode, SealingKeys, SecondFactor, SecondFactorError, SecondFactorStore, StoredTotp,
    TotpBegun, recovery,
    totp::{Code, TotpSecret},
};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent},
};

const RECOVERY_CODES: usize = 10;

/// Codes of an authenticator app (TOTP, RFC 6238), and recovery codes. Cheap to clone; not a
/// `tower::Service`. See the [module's docs](super).
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::second_factor::{SecondFactor, SecondFactorError, SealingKey, SealingKeys, TotpService};
/// # use tower_warden::{store::memory::MemoryStore, user::{Email, NewUser, PasswordHash, UserStore}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// # let hash = PasswordHash::from("$2b$12$…".to_owned());
/// # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, std::time::SystemTime::now());
/// # let ada = store.create(ada).await?.id;
/// let totp = TotpService::new(store, SealingKeys::new(SealingKey::random()?), "Example");
/// let setup = totp.begin(&ada, "ada@example.com").await?;
/// assert!(setup.uri().starts_with("otpauth://totp/Example:ada%40example.com?secret="));
/// assert!(!totp.is_on(&ada).await?); // not before a code has come back
///
/// let recovery = totp.confirm(&ada, &setup.code_at(SystemTime::now())).await?;
/// assert!(totp.is_on(&ada).await?);
/// let wrong = totp.disable(&ada, "no code").await;
/// assert!(matches!(wrong, Err(SecondFactorError::WrongCode)));
/// totp.disable(&ada, recovery[0].expose()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TotpService {
    store: Arc<dyn SecondFactorStore>,
    keys: Arc<SealingKeys>,
    issuer: Arc<str>,
    clock: SharedClock,
}

/// What a user's authenticator app is told: by a QR code of the URI, or by typing the secret. Wiped
/// when dropped.
///
/// ```
/// # use tower_warden::{UserId, second_factor::{SecondFactorError, TotpService}};
/// async fn offer(totp: &TotpService, user: &UserId) -> Result<String, SecondFactorError> {
///     let setup = totp.begin(user, "ada@example.com").await?;
///     Ok(format!("Scan a QR code of {}, or type {}", setup.uri(), setup.secret()))
/// }
/// ```
pub struct TotpSetup {
    shared: TotpSecret,
    secret: Zeroizing<String>,
    uri: Zeroizing<String>,
}

impl TotpSetup {
    /// The secret in base 32.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The `otpauth://` URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// What the app shows at that time: for tests, which have no app.
    #[must_use]
    pub fn code_at(&self, time: SystemTime) -> String {
        self.shared.code_at(time)
    }
}

impl fmt::Debug for TotpSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSetup(…)")
    }
}

impl TotpService {
    /// Keeps second factors in this store, their secrets sealed by these keys. The issuer is what
    /// authenticator apps show above the code.
    #[must_use]
    pub fn new(
        store: impl SecondFactorStore,
        keys: SealingKeys,
        issuer: impl Into<String>,
    ) -> Self {
        Self {
            clock: store.clock(),
            store: Arc::new(store),
            keys: Arc::new(keys),
            issuer: issuer.into().into(),
        }
    }

    /// Where time comes from, if not from the store's clock.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// Makes a secret for a user who has just given the password. Nothing is on before a code of it
    /// [confirms](Self::confirm) that it has arrived. `account` is what the app shows beside the code.
    ///
    /// # Errors
    /// [`SecondFactorError::AlreadyOn`], [`SecondFactorError::NoUser`], [`SecondFactorError::Store`].
    pub async fn begin(
        &self,
        user: &UserId,
        account: &str,
    ) -> Result<TotpSetup, SecondFactorError> {
        let secret = TotpSecret::random()?;
        let sealed = self.keys.seal(secret.as_bytes(), user)?;
        match self.store.begin_totp(user, &sealed).await? {
            TotpBegun::Pending => {}
            TotpBegun::AlreadyOn => return Err(SecondFactorError::AlreadyOn),
            TotpBegun::NoUser => return Err(SecondFactorError::NoUser),
        }
        let text = secret.base32();
        let uri = Zeroizing::new(uri(&self.issuer, account, &text));
        Ok(TotpSetup { shared: secret, secret: text, uri })
    }

    /// Turns the second factor on, if the code is one of the secret that is pending; answers ten
    /// recovery codes, for the user to see this once.
    ///
    /// # Errors
    /// [`SecondFactorError::NotPending`], [`SecondFactorError::WrongCode`],
    /// [`SecondFactorError::Store`].
    pub async fn confirm(
        &self,
        user: &UserId,
        code: &str,
    ) -> Result<Vec<RecoveryCode>, SecondFactorError> {
        let found = self.store.find_totp(user).await?;
        let pending =
            found.filter(|found| found.on_since.is_none()).ok_or(SecondFactorError::NotPending)?;
        let (secret, _) = self.open(&pending, user)?;
        let now = self.clock.now();
        let step = Code::parse(&without_spaces(code)).and_then(|code| secret.step_of(code, now));
        let step = step.ok_or_else(|| self.wrong_code(user))?;
        let codes: Result<Vec<_>, _> =
            (0..RECOVERY_CODES).map(|_| RecoveryCode::random()).collect();
        let codes = codes?;
        let hashes: Vec<TokenHash> = codes.iter().map(|code| code.hash(user)).collect();
        if !self.store.confirm_totp(user, &pending.secret, step, &hashes, now).await? {
            return Err(SecondFactorError::NotPending);
        }
        tracing::info!(%user, "second factor on");
        Ok(codes)
    }

    /// Turns the second factor off, for a user who gives the password and this code.
    ///
    /// # Errors
    /// [`SecondFactorError::WrongCode`], also where none is on; [`SecondFactorError::Store`].
    pub async fn disable(&self, user: &UserId, code: &str) -> Result<(), SecondFactorError> {
        if !self.check(user, code).await? {
            return Err(self.wrong_code(user));
        }
        self.remove(user).await?;
        Ok(())
    }

    /// Turns the second factor off without a code, as an admin does for a user who has lost it;
    /// answers whether one was on. The user should be told.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn remove(&self, user: &UserId) -> Result<bool, StoreError> {
        let removed = self.store.remove_totp(user).await?;
        if removed {
            tracing::info!(%user, "second factor off");
        }
        Ok(removed)
    }

    /// Of somebody who is signed in.
    fn wrong_code(&self, user: &UserId) -> SecondFactorError {
        let event = AuditEvent::new(Act::CONFIRMATION, self.clock.now()).refused("wrong_code");
        self.store.audit_trail().note(event.about(user));
        SecondFactorError::WrongCode
    }

    fn open(&self, found: &StoredTotp, user: &UserId) -> Result<(TotpSecret, bool), StoreError> {
        let (bytes, anew) = self.keys.open(&found.secret, user)?;
        let secret = TotpSecret::from_bytes(&bytes);
        Ok((secret.ok_or_else(|| StoreError::internal("a secret of another length"))?, anew))
    }

    async fn check_code(&self, user: &UserId, code: Code) -> Result<bool, StoreError> {
        let found = self.store.find_totp(user).await?;
        let Some(found) = found.filter(|found| found.on_since.is_some()) else {
            return Ok(false);
        };
        let (secret, anew) = self.open(&found, user)?;
        let Some(step) = secret.step_of(code, self.clock.now()) else {
            return Ok(false);
        };
        let right = self.store.use_step(user, step).await?;
        if right && anew {
            let sealed = self.keys.seal(secret.as_bytes(), user)?;
            // What fails here is left for the next login.
            if let Err(error) = self.store.replace_secret(user, &found.secret, &sealed).await {
                tracing::debug!(%user, %error, "secret not sealed anew");
            }
        }
        Ok(right)
    }
}

#[async_trait]
impl SecondFactor for TotpService {
    async fn is_on(&self, user: &UserId) -> Result<bool, StoreError> {
        let found = self.store.find_totp(user).await?;
        Ok(found.is_some_and(|found| found.on_since.is_some()))
    }

    /// A code of the app, or a recovery code; spaces don't matter.
    async fn check(&self, user: &UserId, code: &str) -> Result<bool, StoreError> {
        let code = without_spaces(code);
        if let Some(code) = Code::parse(&code) {
            return self.check_code(user, code).await;
        }
        match recovery::hash_of(&code, user) {
            Some(hash) => {
                let right = self.store.use_recovery_code(user, &hash).await?;
                if right {
                    tracing::info!(%user, "recovery code used");
                }
                Ok(right)
            }
            None => Ok(false),
        }
    }
}

fn without_spaces(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).collect())
}

/// As authenticator apps read it (the Key Uri Format of Google Authenticator).
fn uri(issuer: &str, account: &str, secret: &str) -> String {
    let (issuer, account) = (percent_encoded(issuer), percent_encoded(account));
    format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}\
         &algorithm=SHA1&digits=6&period=30"
    )
}

/// RFC 3986, section 2: all but what is unreserved. Some apps take `+` for a space.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_says_all_that_an_app_needs() {
        assert_eq!(
            uri("Ada & Co", "a+b@example.com", "ABC"),
            "otpauth://totp/Ada%20%26%20Co:a%2Bb%40example.com?secret=ABC\
             &issuer=Ada%20%26%20Co&algorithm=SHA1&digits=6&period=30"
        );
    }
}
