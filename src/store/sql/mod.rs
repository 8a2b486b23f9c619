//! What the SQL wings share: how a verb is carried out, and what its rows mean. The SQL itself is
//! each wing's own.

mod rows;
mod verb;

pub(super) use rows::{FamilyRow, TokenRow, UserRow, family, stored_token, to_micros, user};
pub(super) use verb::{Meaning, Wing, carry_out, store_error};
