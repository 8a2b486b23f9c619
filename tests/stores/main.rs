//! The contracts of the stores, each written once and run over every wing.

mod user;
