//! JSON read strictly: what is ambiguous is refused.
//!
//! RFC 8259 (section 4) leaves open what it means that an object names a member twice, and readers
//! differ: one takes the first, another the last. Where one of them checks and another one acts,
//! that is an attack. So [`parse`] refuses it, at any depth.
//!
//! ```
//! use portcullis::json::{self, JsonError};
//! assert_eq!(json::parse(br#"{"a": 1}"#)?["a"], 1);
//! assert_eq!(json::parse(br#"{"a": 1, "\u0061": 2}"#), Err(JsonError::DuplicateMember));
//! assert_eq!(json::parse(br#"{"a": 1} {}"#), Err(JsonError::Malformed));
//! # Ok::<(), JsonError>(())
//! ```

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Why text was not read as JSON. Never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is no JSON, or more than one value, or nested more than 128 deep.
    #[error("malformed JSON")]
    Malformed,
    /// An object names a member twice.
    #[error("an object names a member twice")]
    DuplicateMember,
}

/// Reads one JSON value.
///
/// # Errors
/// [`JsonError`] where it is none, or where an object in it names a member twice.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    // Two passes: a visitor of our own that built the value could not tell numbers from objects
    // once some other crate switches on serde_json's `arbitrary_precision`.
    let value = serde_json::from_slice(text).map_err(|_| JsonError::Malformed)?;
    serde_json::from_slice::<Unambiguous>(text).map_err(|_| JsonError::DuplicateMember)?;
    Ok(value)
}

/// Anything without duplicate members.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Self)) = map.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unambiguous_is_read() {
        for text in [
            "null",
            " true ",
            "-1",
            "18446744073709551615",
            "1.5e3",
            r#""\u00e9""#,
            "[]",
            r#"[{"a":1},{"a":2}]"#,
            r#"{"a":{"a":null},"b":["a","a"]}"#,
        ] {
            let value = parse(text.as_bytes());
            assert_eq!(value, Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let not_utf8: &[u8] = b"\"\xff\"";
        for text in [
            b"".as_slice(),
            b"{",
            b"{}x",
            b"{} {}",
            b"{a:1}",
            b"[1,]",
            b"NaN",
            b"01",
            not_utf8,
            deep.as_bytes(),
        ] {
            assert_eq!(parse(text), Err(JsonError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":3}"#,
            r#"[[{"x":{"a":[],"a":{}}}]]"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(JsonError::DuplicateMember), "{text}");
        }
    }
}
