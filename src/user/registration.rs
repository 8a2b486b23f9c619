//! How users come to be.

use super::{
    CreateUserError, Email, HashingError, NewUser, Password, UpdateUserError, User, UserChange,
    UserService, Violation, service::carry_through, verification::Proof,
};
use crate::{Role, StoreError, UserId};

/// Why nobody was registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The address has an account.
    #[error("the address has an account already")]
    EmailTaken,
    /// The password won't do: all that is wrong with it.
    #[error("the password is too weak")]
    WeakPassword(Vec<Violation>),
    /// Too many passwords wait to be hashed; try again later.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The store, or the hasher, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UserService {
    /// Registers a viewer without a plan, and mails a link that proves the address. The mail is sent
    /// afterwards: it neither delays nor fails this.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn register(&self, email: &Email, password: Password) -> Result<User, RegisterError> {
        self.check_policy(&password)?;
        // Only spares the hash. Of many who register at once the store lets one in.
        if self.store.find_by_email(email).await?.is_some() {
            return Err(RegisterError::EmailTaken);
        }
        let mut user = self.new_user(email, password, Role::VIEWER).await?;
        let proof = Proof::new(user.created_at, self.verification_ttl)?;
        user.verification = Some(proof.stored);
        let service = self.clone();
        carry_through(async move {
            let user = service.store.create(user).await?;
            service.mail_proof(&user, &proof);
            tracing::info!(user = %user.id, "registered");
            Ok(user)
        })
        .await
    }

    /// Sees to it that this user is there, verified, and an admin. One who is there already keeps
    /// the password. Servers that start at the same time may do this at the same time.
    ///
    /// # Errors
    /// See [`RegisterError`]; a weak password is one also where it isn't needed.
    /// [`RegisterError::EmailTaken`] doesn't occur.
    pub async fn ensure_admin(
        &self,
        email: &Email,
        password: Password,
    ) -> Result<User, RegisterError> {
        self.check_policy(&password)?;
        if let Some(admin) = self.promote(email).await? {
            return Ok(admin);
        }
        let admin = self.new_user(email, password, Role::ADMIN).await?;
        match self.store.create(admin).await {
            Ok(admin) => Ok(admin),
            Err(CreateUserError::EmailTaken) => {
                let vanished = || StoreError::internal("an account is both there and not");
                Ok(self.promote(email).await?.ok_or_else(vanished)?)
            }
            Err(CreateUserError::Store(error)) => Err(error.into()),
        }
    }

    async fn promote(&self, email: &Email) -> Result<Option<User>, StoreError> {
        let Some((user, _)) = self.store.find_by_email(email).await? else {
            return Ok(None);
        };
        let change = UserChange { role: Some(Role::ADMIN), plan: None, verify_email: true };
        match self.store.update(&user.id, change).await {
            Ok(admin) => Ok(Some(admin)),
            Err(UpdateUserError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::internal(error)),
        }
    }

    fn check_policy(&self, password: &Password) -> Result<(), RegisterError> {
        let violations = self.policy.violations(password);
        violations.is_empty().then_some(()).ok_or(RegisterError::WeakPassword(violations))
    }

    /// A user to add, of an address that is taken as genuine until a proof is asked for.
    async fn new_user(
        &self,
        email: &Email,
        password: Password,
        role: Role,
    ) -> Result<NewUser, RegisterError> {
        Ok(NewUser {
            id: UserId::random(),
            email: email.clone(),
            password_hash: self.hashing.hash(password).await?,
            role,
            created_at: self.clock.now(),
            verification: None,
        })
    }
}

impl From<CreateUserError> for RegisterError {
    fn from(error: CreateUserError) -> Self {
        match error {
            CreateUserError::EmailTaken => Self::EmailTaken,
            CreateUserError::Store(error) => Self::Store(error),
        }
    }
}

impl From<HashingError> for RegisterError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy => Self::Busy,
            HashingError::Hash(error) => Self::Store(StoreError::internal(error)),
        }
    }
}
