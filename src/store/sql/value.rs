//! What goes into a statement and comes out of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::error::BoxDynError;

use crate::{
    Plan, Role, TokenHash, UserId,
    api_key::ApiKeyId,
    second_factor::SealedSecret,
    token::FamilyId,
    user::{Email, PasswordHash},
};

/// A value as the columns of both wings hold it. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row, whose columns are taken from left to right, each as what it is to be.
#[derive(Debug)]
pub struct Row(std::vec::IntoIter<Value>);

/// What a column can be read as.
pub(in crate::store) trait FromValue: Sized {
    fn from_value(value: Value) -> sqlx::Result<Self>;
}

impl Row {
    pub(in crate::store) fn new(columns: Vec<Value>) -> Self {
        Self(columns.into_iter())
    }

    /// The next column.
    pub(in crate::store) fn take<T: FromValue>(&mut self) -> sqlx::Result<T> {
        T::from_value(self.0.next().ok_or_else(|| unreadable("a column is missing"))?)
    }
}

pub(in crate::store) fn unreadable(reason: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}

fn other_type<T>(value: &Value) -> sqlx::Result<T> {
    // Not the value itself, which may be a secret.
    Err(unreadable(match value {
        Value::Null => "a column is null",
        _ => "a column is of another type",
    }))
}

impl FromValue for String {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        match value {
            Value::Text(text) => Ok(text),
            other => other_type(&other),
        }
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        match value {
            Value::Integer(number) => Ok(number),
            other => other_type(&other),
        }
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        match value {
            Value::Bool(truth) => Ok(truth),
            // SQLite has no other.
            Value::Integer(number) => Ok(number != 0),
            other => other_type(&other),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => other_type(&other),
        }
    }
}

impl FromValue for TokenHash {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        let bytes = <[u8; 32]>::try_from(Vec::from_value(value)?);
        bytes.map(Self::from).map_err(|_| unreadable("a hash of another length"))
    }
}

impl FromValue for SealedSecret {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        Vec::from_value(value).map(Self::from)
    }
}

impl FromValue for u32 {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        i64::from_value(value)?.try_into().map_err(unreadable)
    }
}

impl FromValue for u64 {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        i64::from_value(value)?.try_into().map_err(unreadable)
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        Ok(value)
    }
}

impl FromValue for SystemTime {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        from_micros(i64::from_value(value)?)
    }
}

impl FromValue for Email {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        Email::parse(&String::from_value(value)?).map_err(unreadable)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> sqlx::Result<Self> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

macro_rules! text_like {
    ($($type:ty: $from:expr, $to:expr);+ $(;)?) => {$(
        impl FromValue for $type {
            fn from_value(value: Value) -> sqlx::Result<Self> {
                String::from_value(value).map($from)
            }
        }

        impl From<&$type> for Value {
            fn from(value: &$type) -> Self {
                Self::from($to(value))
            }
        }
    )+};
}

text_like! {
    UserId: UserId::from, UserId::as_str;
    ApiKeyId: ApiKeyId::from, ApiKeyId::as_str;
    FamilyId: FamilyId::from, FamilyId::as_str;
    Role: |text| Role::from(&*text), Role::as_str;
    Plan: |text| Plan::from(&*text), Plan::as_str;
    PasswordHash: PasswordHash::from, PasswordHash::expose;
}

impl From<&Email> for Value {
    fn from(email: &Email) -> Self {
        Self::from(email.as_str())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<SystemTime> for Value {
    fn from(time: SystemTime) -> Self {
        Self::Integer(to_micros(time))
    }
}

impl From<&TokenHash> for Value {
    fn from(hash: &TokenHash) -> Self {
        Self::Bytes(hash.as_bytes().to_vec())
    }
}

impl From<&SealedSecret> for Value {
    fn from(secret: &SealedSecret) -> Self {
        Self::Bytes(secret.as_bytes().to_vec())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Microseconds since the Unix epoch, negative before it; the ends of `i64` for what is beyond.
pub(super) fn to_micros(time: SystemTime) -> i64 {
    let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

fn from_micros(micros: i64) -> sqlx::Result<SystemTime> {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.ok_or_else(|| unreadable("a time that this system can't express"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_the_microsecond() {
        for micros in [0, 1, -1, 1_800_000_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(to_micros(from_micros(micros).unwrap()), micros);
        }
        let beyond = UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
        assert_eq!(to_micros(beyond), i64::MAX);
    }

    #[test]
    fn columns_are_read_as_what_they_are_and_nothing_else() {
        let mut row = Row::new(vec![Value::Text("ada".into()), Value::Null, Value::Integer(1)]);
        assert_eq!(row.take::<UserId>().unwrap(), UserId::from("ada"));
        assert_eq!(row.take::<Option<i64>>().unwrap(), None);
        assert!(row.take::<bool>().unwrap());
        assert!(row.take::<bool>().is_err(), "there are no more");
        let wrong = Row::new(vec![Value::Text("secret".into())]).take::<i64>().unwrap_err();
        assert!(!wrong.to_string().contains("secret"));
    }
}
