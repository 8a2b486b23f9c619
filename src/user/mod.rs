//! The register.

mod account;
mod email;
mod store;

pub use account::{PasswordHash, User};
pub use email::{Email, InvalidEmail};
pub use store::{
    CreateUserError, NewUser, UpdateUserError, UserChange, UserStore, VerificationToken,
};
