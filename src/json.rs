//! JSON read strictly: what is ambiguous is refused.
//!
//! RFC 8259 (section 4) leaves open what it means that an object names a member twice, and readers
//! differ: one takes the first, another the last. Where one of them checks and another one acts,
//! that is an attack. So [`parse`] refuses it, at any depth.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};

/// Why text was not read as JSON. Never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
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
pub(crate) fn parse(text: &[u8]) -> Result<Value, JsonError> {
    // Two passes: a visitor of our own that built the value could not tell numbers from objects
    // once some other crate switches on serde_json's `arbitrary_precision`.
    let value = serde_json::from_slice(text).map_err(|_| JsonError::Malformed)?;
    serde_json::from_slice::<Unambiguous>(text).map_err(|_| JsonError::DuplicateMember)?;
    Ok(value)
}

/// The members of an object, each read when it is asked for and as what it should be: at a third of
/// the cost of a [`Value`] of them all, which would hold a copy of each name and text.
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Those of the one object that the text is.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        let mut members: Self = serde_json::from_slice(text).map_err(|_| JsonError::Malformed)?;
        // Sorted, since looking through them all for each would take long where there are thousands.
        members.0.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        match members.0.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            true => Ok(members),
            false => Err(JsonError::DuplicateMember),
        }
    }

    /// Removes a member; `None` where there is no such member.
    pub(crate) fn take(&mut self, name: &str) -> Option<Member<'a>> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(Member(self.0.remove(at).1))
    }

    /// All that were not taken.
    pub(crate) fn into_values(self) -> Result<Map<String, Value>, JsonError> {
        let read = |(name, value): (Cow<'_, str>, &RawValue)| {
            Ok((name.into_owned(), parse(value.get().as_bytes())?))
        };
        self.0.into_iter().map(read).collect()
    }
}

/// What stands for a member in the text.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a>(&'a RawValue);

impl<'a> Member<'a> {
    /// It as text.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        serde_json::from_str(self.0.get()).ok().map(|Text(text)| text)
    }

    /// It as a whole number, not negative.
    pub(crate) fn whole(self) -> Option<u64> {
        serde_json::from_str(self.0.get()).ok()
    }

    /// It as texts: one, or an array of them.
    pub(crate) fn texts(self) -> Option<Vec<Cow<'a, str>>> {
        if let Some(text) = self.text() {
            return Some(vec![text]);
        }
        self.list()
    }

    /// It as an array of texts.
    pub(crate) fn list(self) -> Option<Vec<Cow<'a, str>>> {
        let texts: Vec<Text<'a>> = serde_json::from_str(self.0.get()).ok()?;
        Some(texts.into_iter().map(|Text(text)| text).collect())
    }
}

/// Text, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(OfObject)
    }
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
    fn members_are_read_as_what_is_asked_for() {
        let text = br#"{"n": 1, "t": "\u0061", "list": ["a", "b"], "x": {"y": [null]}, "f": 1.0}"#;
        let mut members = Members::parse(text).unwrap();
        assert_eq!(members.take("t").unwrap().text().unwrap(), "a");
        assert!(members.take("t").is_none());
        let n = members.take("n").unwrap();
        assert_eq!((n.whole(), n.text(), n.texts()), (Some(1), None, None));
        let list = members.take("list").unwrap();
        assert_eq!((list.text(), list.texts().unwrap()), (None, vec!["a".into(), "b".into()]));
        assert_eq!(members.take("f").unwrap().whole(), None);
        let rest = serde_json::json!({"x": {"y": [null]}});
        assert_eq!(Value::Object(members.into_values().unwrap()), rest);
    }

    #[test]
    fn members_are_those_of_one_unambiguous_object() {
        let refused = |text: &str| {
            Members::parse(text.as_bytes()).and_then(Members::into_values).unwrap_err()
        };
        for text in ["", "[]", "1", "{", "{} {}", r#"{"a"}"#, r#"{"a": 01}"#] {
            assert_eq!(refused(text), JsonError::Malformed, "{text}");
        }
        for text in [r#"{"a":1,"b":2,"\u0061":3}"#, r#"{"a":{"x":[],"x":{}}}"#] {
            assert_eq!(refused(text), JsonError::DuplicateMember, "{text}");
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
