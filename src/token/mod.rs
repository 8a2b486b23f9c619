//! The mint.

mod family;
mod store;

pub use family::{
    Family, FamilyId, RefreshToken, RevokeReason, StoredToken, Verdict, judge, token_expiry,
};
pub use store::{NewFamily, RotateRequest, Rotation, TokenStore};
