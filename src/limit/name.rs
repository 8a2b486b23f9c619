//! What tells limiters from one another.

use std::{
    collections::HashSet,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::{LazyLock, Mutex, PoisonError},
};

/// The name of a limiter, such as `ip`: 1 to 64 lower-case letters, digits, `-` and `_`. It stands in
/// the store's keys, in metrics, and in the headers that clients see.
///
/// A word to copy: whoever makes a rule looks the text up once, so that no request has to. Equal text
/// is one name, which is kept as long as the process lives; so a name says what is limited (`ip`,
/// `login`), and whom it counts is the business of the [`Key`](crate::Key).
///
/// ```
/// use tower_warden::{Quota, Rule, limit::LimiterName};
/// let from_a_file = String::from("uploads");
/// let name = LimiterName::new(&from_a_file)?;
/// let rule = Rule::per_ip(name, Quota::per_day(50));
/// assert_eq!(rule.name(), "uploads");
/// assert!(LimiterName::new("no spaces").is_err());
/// # Ok::<(), tower_warden::limit::InvalidName>(())
/// ```
#[derive(Clone, Copy)]
pub struct LimiterName(&'static Named);

struct Named {
    text: Box<str>,
    number: u32,
}

/// Text that can't name a limiter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: a limiter's name is made of 1 to 64 lower-case letters, digits, - and _")]
pub struct InvalidName(String);

const LONGEST: usize = 64;

impl LimiterName {
    /// The name that reads so.
    ///
    /// # Errors
    /// [`InvalidName`] where it is empty, longer than 64 bytes, or holds anything else than lower-case
    /// letters, digits, `-` and `_`.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(plain) {
            return Err(InvalidName(text.to_owned()));
        }
        static NAMES: LazyLock<Mutex<HashSet<ByText>>> = LazyLock::new(Mutex::default);
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ByText(known)) = names.get(text) {
            return Ok(Self(known));
        }
        let number = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let named = Box::leak(Box::new(Named { text: text.into(), number }));
        names.insert(ByText(named));
        Ok(Self(named))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        &self.0.text
    }

    /// A number that no other name of this process has: small, and the same as long as the process
    /// lives. For stores in it.
    #[must_use]
    #[inline]
    pub fn number(self) -> u32 {
        self.0.number
    }
}

impl PartialEq for LimiterName {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for LimiterName {}

impl Hash for LimiterName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl PartialEq<str> for LimiterName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for LimiterName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl AsRef<str> for LimiterName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for LimiterName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl fmt::Display for LimiterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for LimiterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Found by its text.
struct ByText(&'static Named);

impl PartialEq for ByText {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for ByText {}

impl Hash for ByText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl std::borrow::Borrow<str> for ByText {
    fn borrow(&self) -> &str {
        &self.0.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_is_one_name_and_other_text_another() {
        let name = |text| LimiterName::new(text).unwrap();
        assert_eq!(name("ip").number(), name("ip").number());
        assert_ne!(name("ip"), name("ip2"));
        assert_eq!(name("ip2"), "ip2");
    }

    #[test]
    fn what_no_header_and_no_key_should_carry_is_no_name() {
        let long = "x".repeat(65);
        for text in ["", " ", "Ip", "a:b", "é", "a\"", &long] {
            assert_eq!(LimiterName::new(text), Err(InvalidName(text.to_owned())));
        }
    }
}
