//! One text for both wings.

/// A statement in the words of each wing. Made by `sql!`.
#[derive(Debug)]
pub struct Statement {
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "the wing is not built"))]
    pub(in crate::store) sqlite: &'static str,
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "the wing is not built"))]
    pub(in crate::store) postgres: &'static str,
}

/// A statement from its parts: text in quotes, which is the same in both wings, and words that each
/// spells in its own way: the name of a table, and
///
/// - `lock`: the rows are this transaction's until it ends (SQLite: all are, from its begin on);
/// - `skip_locked`: the same, but for rows that others hold, which are left out;
/// - `user_columns`: what is read of a user;
/// - `one_of … end`: a column is one of the rows of a subquery, which runs once.
macro_rules! sql {
    ($($part:tt)+) => {
        $crate::store::sql::statement::Statement {
            sqlite: concat!($($crate::store::sql::statement::sqlite!($part)),+),
            postgres: concat!($($crate::store::sql::statement::postgres!($part)),+),
        }
    };
}

macro_rules! sqlite {
    (lock) => {
        ""
    };
    (skip_locked) => {
        ""
    };
    (one_of) => {
        " IN ("
    };
    (end) => {
        ")"
    };
    (user_columns) => {
        concat!(
            "id, email, role, plan, email_verified, suspended_at, created_at, epoch, ",
            "id IN (SELECT user_id FROM tower_warden_second_factors WHERE on_since IS NOT NULL)"
        )
    };
    ($text:literal) => {
        $text
    };
    ($table:ident) => {
        concat!("tower_warden_", stringify!($table))
    };
}

macro_rules! postgres {
    (lock) => {
        " FOR UPDATE"
    };
    (skip_locked) => {
        " FOR UPDATE SKIP LOCKED"
    };
    (one_of) => {
        " = ANY (ARRAY("
    };
    (end) => {
        "))"
    };
    (user_columns) => {
        concat!(
            "id, email, role, plan, email_verified, suspended_at, created_at, epoch, ",
            "EXISTS (SELECT FROM tower_warden.second_factors AS factor",
            " WHERE factor.user_id = users.id AND factor.on_since IS NOT NULL)"
        )
    };
    ($text:literal) => {
        $text
    };
    ($table:ident) => {
        concat!("tower_warden.", stringify!($table))
    };
}

pub(super) use {postgres, sql, sqlite};

#[cfg(test)]
mod tests {
    #[test]
    fn each_wing_spells_a_statement_in_its_own_way() {
        let statement = sql!("DELETE FROM " users " WHERE id" one_of "SELECT 1" skip_locked end);
        let sqlite = "DELETE FROM tower_warden_users WHERE id IN (SELECT 1)";
        assert_eq!(statement.sqlite, sqlite);
        let postgres = "DELETE FROM tower_warden.users WHERE id = ANY (ARRAY(SELECT 1 FOR UPDATE SKIP LOCKED))";
        assert_eq!(statement.postgres, postgres);
    }
}
