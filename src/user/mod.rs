//! The register.

mod account;
mod email;
mod hashing_pool;
pub mod mail;
mod password;
mod store;

pub use account::{PasswordHash, User};
pub use email::{Email, InvalidEmail};
pub use hashing_pool::{HashingError, HashingPool};
pub use password::{
    BcryptHasher, HashError, InvalidCost, Password, PasswordHasher, PasswordPolicy, StandardPolicy,
    Violation,
};
pub use store::{
    CreateUserError, NewUser, UpdateUserError, UserChange, UserStore, VerificationToken,
};
