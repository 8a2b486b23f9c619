//! What the SQL wings share: how a verb is carried out, what its rows mean, and how a schema is
//! brought up to date. The SQL itself is each wing's own.

mod migrations;
mod rows;
mod verb;

pub(super) use migrations::{File as MigrationFile, run_missing};
pub(super) use rows::{FamilyRow, TokenRow, UserRow, family, stored_token, to_micros, user};
pub(super) use verb::{Meaning, Wing, carry_out, store_error};
