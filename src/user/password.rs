//! Passwords: which ones are good enough, and how they are hashed. The only file that knows the
//! algorithm.

use std::{error::Error, fmt};

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::PasswordHash;
use crate::Answer;

/// The most that bcrypt reads of a password, in bytes.
const BCRYPT_READS: usize = 72;

/// A password: redacted in `Debug`, wiped when dropped.
///
/// However it was typed, it is one password to its owner: spaces other than the ASCII one become
/// that, and letters their composed form (the profile `OpaqueString` of RFC 8265, section 4.2: NFC).
/// That is what policies judge and what is hashed. A hash that was made of the text as it was
/// typed still opens: see [`as_typed`](Self::as_typed).
///
/// ```
/// use tower_warden::user::Password;
/// let password = Password::from("Correct-Horse-1");
/// assert_eq!(format!("{password:?}"), "Password(…)");
/// assert_eq!(password.expose(), "Correct-Horse-1");
/// assert_eq!(Password::from("e\u{301}a\u{a0}").expose(), "\u{e9}a ");
/// ```
#[derive(Clone)]
pub struct Password {
    text: Zeroizing<String>,
    /// What was typed, where that is another text.
    typed: Option<Zeroizing<String>>,
}

impl Password {
    /// The text of it, normalized, to be checked and hashed, and to go nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The same password as it was typed, where that is another text: what a program may have hashed
    /// that doesn't normalize. A [`HashingPool`](super::HashingPool) tries it after the other.
    #[must_use]
    pub fn as_typed(&self) -> Option<Self> {
        self.typed.clone().map(|text| Self { text, typed: None })
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        let typed = Zeroizing::new(text);
        if typed.is_ascii() {
            return Self { text: typed, typed: None };
        }
        // NFC makes no character more than three times as long, so that nothing is moved about,
        // and left behind, while it grows.
        let mut text = Zeroizing::new(String::with_capacity(3 * typed.len()));
        text.extend(typed.chars().map(ascii_space).nfc());
        let changed = *text != *typed;
        Self { text, typed: changed.then_some(typed) }
    }
}

/// RFC 8265, section 4.2.2, rule 2: any character of the category `Zs` becomes the ASCII space.
fn ascii_space(c: char) -> char {
    match c {
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            ' '
        }
        other => other,
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Decides which passwords may be chosen. One of your own must refuse at least what the
/// [`PasswordHasher`] can't hash.
///
/// ```
/// use tower_warden::user::{Password, PasswordPolicy, StandardPolicy, Violation};
///
/// /// The usual rule, and none of the passwords that everybody knows.
/// #[derive(Debug)]
/// struct NotLeaked(std::collections::HashSet<String>);
///
/// impl PasswordPolicy for NotLeaked {
///     fn violations(&self, password: &Password) -> Vec<Violation> {
///         let mut found = StandardPolicy.violations(password);
///         if self.0.contains(password.expose()) {
///             found.push(Violation::Other { code: "leaked", detail: "is on a list of leaked passwords" });
///         }
///         found
///     }
/// }
/// let policy = NotLeaked(["Password-123".to_owned()].into());
/// assert_eq!(policy.violations(&Password::from("Password-123"))[0].code(), "leaked");
/// ```
pub trait PasswordPolicy: fmt::Debug + Send + Sync + 'static {
    /// All that is wrong with a password; nothing if it will do.
    fn violations(&self, password: &Password) -> Vec<Violation>;

    /// The same, where somebody else must be asked, such as a service that knows which passwords have
    /// leaked. [`UserService`](super::UserService) asks this wherever a password is set; unless you say
    /// otherwise it is [`violations`](Self::violations). What follows when nobody answers is yours to
    /// choose: nothing, so that the password will do, or a violation that says so.
    fn ask(&self, password: &Password) -> Answer<Vec<Violation>> {
        Answer::Ready(self.violations(password))
    }
}

/// What is wrong with a password.
///
/// ```
/// use tower_warden::user::Violation;
/// assert_eq!(Violation::TooShort.code(), "too_short"); // to translate
/// assert_eq!(Violation::TooShort.to_string(), "must have at least 10 characters"); // to show
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// Fewer than 10 code points.
    TooShort,
    /// More than 72 bytes in UTF-8.
    TooLong,
    /// No upper-case letter.
    NoUppercase,
    /// No lower-case letter.
    NoLowercase,
    /// No digit from 0 to 9.
    NoDigit,
    /// A NUL character.
    ContainsNul,
    /// What a policy of your own found.
    Other {
        /// See [`Violation::code`].
        code: &'static str,
        /// The sentence for people.
        detail: &'static str,
    },
}

impl Violation {
    /// The word for programs. It never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::NoUppercase => "no_uppercase",
            Self::NoLowercase => "no_lowercase",
            Self::NoDigit => "no_digit",
            Self::ContainsNul => "contains_nul",
            Self::Other { code, .. } => code,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "must have at least 10 characters",
            Self::TooLong => "must have at most 72 bytes",
            Self::NoUppercase => "must have an upper-case letter",
            Self::NoLowercase => "must have a lower-case letter",
            Self::NoDigit => "must have a digit",
            Self::ContainsNul => "must not have a NUL character",
            Self::Other { detail, .. } => detail,
        })
    }
}

/// The usual rule: at least 10 code points, among them an upper-case letter, a lower-case letter
/// and a digit; at most 72 bytes, and no NUL.
///
/// ```
/// use tower_warden::user::{Password, PasswordPolicy, StandardPolicy, Violation};
/// assert!(StandardPolicy.violations(&Password::from("Correct-Horse-1")).is_empty());
/// assert_eq!(
///     StandardPolicy.violations(&Password::from("CORRECT")),
///     [Violation::TooShort, Violation::NoLowercase, Violation::NoDigit],
/// );
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardPolicy;

impl PasswordPolicy for StandardPolicy {
    fn violations(&self, password: &Password) -> Vec<Violation> {
        let text = password.expose();
        let rules = [
            (text.chars().count() < 10, Violation::TooShort),
            (text.len() > BCRYPT_READS, Violation::TooLong),
            (!text.contains(char::is_uppercase), Violation::NoUppercase),
            (!text.contains(char::is_lowercase), Violation::NoLowercase),
            (!text.contains(|c: char| c.is_ascii_digit()), Violation::NoDigit),
            (text.contains('\0'), Violation::ContainsNul),
        ];
        rules.into_iter().filter_map(|(broken, violation)| broken.then_some(violation)).collect()
    }
}

/// Turns passwords into what is stored of them. Slow on purpose, so it is called through a
/// [`HashingPool`](super::HashingPool), off the threads that serve requests.
///
/// ```
/// use argon2::{Argon2, password_hash::phc::PasswordHash as Phc};
/// use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
/// use tower_warden::user::{HashError, Password, PasswordHash, PasswordHasher};
///
/// #[derive(Debug)]
/// struct Argon2id;
///
/// impl PasswordHasher for Argon2id {
///     fn hash(&self, password: &Password) -> Result<PasswordHash, HashError> {
///         let hash = Argon2::default().hash_password(password.expose().as_bytes());
///         hash.map(|hash| PasswordHash::from(hash.to_string())).map_err(|e| HashError::new(e.to_string()))
///     }
///
///     fn verify(&self, password: &Password, hash: &PasswordHash) -> Result<bool, HashError> {
///         let hash = Phc::new(hash.expose()).map_err(|e| HashError::new(e.to_string()))?;
///         Ok(Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
///     }
///
///     fn needs_rehash(&self, hash: &PasswordHash) -> bool {
///         !hash.expose().starts_with("$argon2id$")
///     }
/// }
/// let hash = Argon2id.hash(&Password::from("Correct-Horse-1"))?;
/// assert!(Argon2id.verify(&Password::from("Correct-Horse-1"), &hash)?);
/// assert!(!Argon2id.verify(&Password::from("Wrong-Horse-1"), &hash)?);
/// # Ok::<(), HashError>(())
/// ```
pub trait PasswordHasher: fmt::Debug + Send + Sync + 'static {
    /// A new hash, with a salt of its own.
    ///
    /// # Errors
    /// Where the algorithm can't take the whole password, or there is no randomness to be had.
    fn hash(&self, password: &Password) -> Result<PasswordHash, HashError>;

    /// Whether a password is the one that was hashed. Takes the same time whether or not it is,
    /// also for a password that can't have been hashed.
    ///
    /// # Errors
    /// Where what is stored is no hash of this algorithm.
    fn verify(&self, password: &Password, hash: &PasswordHash) -> Result<bool, HashError>;

    /// Whether a hash is weaker than one made now.
    fn needs_rehash(&self, hash: &PasswordHash) -> bool;

    /// Spends what a check of `hash` cost less than one of a hash made now, after a check that
    /// failed: else the time would tell accounts whose hashes are old, or imported, from addresses
    /// without one. `decoy` is the [hash of nobody's password](Self::decoy).
    ///
    /// Unless you say otherwise a hash that [needs a new one](Self::needs_rehash) is taken to have
    /// cost nothing, and the password is checked against the decoy.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    fn even_out(
        &self,
        password: &Password,
        hash: &PasswordHash,
        decoy: &PasswordHash,
    ) -> Result<(), HashError> {
        if self.needs_rehash(hash) {
            self.verify(password, decoy)?;
        }
        Ok(())
    }

    /// A hash of nobody's password, to verify against where there is no account: as costly as any
    /// other. Made once, when a pool is built.
    ///
    /// # Errors
    /// Where there is none to be had.
    fn decoy(&self) -> Result<PasswordHash, HashError> {
        self.hash(&Password::from("decoy"))
    }
}

/// A password could not be hashed, or what is stored is no hash. Never "wrong password".
#[derive(Debug, thiserror::Error)]
#[error("the password hasher failed")]
pub struct HashError(#[source] Box<dyn Error + Send + Sync>);

impl HashError {
    /// Keeps the cause, for logs.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// bcrypt, version `2b`.
///
/// bcrypt reads 72 bytes and repeats a shorter key together with its terminating NUL, so that `a`
/// and `a\0a` hash alike. A longer password, or one with a NUL, is never hashed, and never right.
///
/// ```
/// use tower_warden::user::{BcryptHasher, Password, PasswordHasher};
/// let (old, new) = (BcryptHasher::new(4)?, BcryptHasher::new(5)?);
/// let hash = old.hash(&Password::from("Correct-Horse-1"))?;
/// assert!(new.verify(&Password::from("Correct-Horse-1"), &hash)?);
/// assert!(new.needs_rehash(&hash)); // at the next login
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BcryptHasher {
    cost: u32,
}

/// A cost that bcrypt doesn't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cost of bcrypt is 4 to 31")]
pub struct InvalidCost;

impl BcryptHasher {
    /// Hashes in `2^cost` rounds: 12 takes about 0.2 s of a core, 13 twice as long.
    ///
    /// # Errors
    /// [`InvalidCost`] outside of 4 to 31.
    pub fn new(cost: u32) -> Result<Self, InvalidCost> {
        (4..=31).contains(&cost).then_some(Self { cost }).ok_or(InvalidCost)
    }
}

impl Default for BcryptHasher {
    /// Cost 12.
    fn default() -> Self {
        Self { cost: bcrypt::DEFAULT_COST }
    }
}

impl PasswordHasher for BcryptHasher {
    fn hash(&self, password: &Password) -> Result<PasswordHash, HashError> {
        if !bcrypt_reads_all(password) {
            return Err(HashError::new("bcrypt can't read the whole password"));
        }
        bcrypt::hash(password.expose(), self.cost).map(PasswordHash::from).map_err(HashError::new)
    }

    fn verify(&self, password: &Password, hash: &PasswordHash) -> Result<bool, HashError> {
        let readable = bcrypt_reads_all(password);
        let text = if readable { password.expose() } else { "" };
        let equal = bcrypt::verify(text, hash.expose()).map_err(HashError::new)?;
        Ok(equal && readable)
    }

    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        hash.expose().parse::<bcrypt::HashParts>().is_ok_and(|parts| parts.get_cost() < self.cost)
    }

    /// A check costs `2^cost` rounds, and `2^old + 2^old + 2^(old+1) + … + 2^(cost-1) = 2^cost`.
    fn even_out(
        &self,
        _: &Password,
        hash: &PasswordHash,
        _: &PasswordHash,
    ) -> Result<(), HashError> {
        let old = hash.expose().parse::<bcrypt::HashParts>().map_err(HashError::new)?.get_cost();
        for cost in missing_costs(old, self.cost) {
            let _ = bcrypt::hash_with_salt_bytes("", cost, [0; 16]).map_err(HashError::new)?;
        }
        Ok(())
    }

    /// Salt and digest are zeros: it costs nothing to make, and as much as any other to verify.
    fn decoy(&self) -> Result<PasswordHash, HashError> {
        Ok(PasswordHash::from(format!("$2b${:02}${}", self.cost, ".".repeat(53))))
    }
}

/// The costs of the hashes that take as long together as a check at `cost` takes longer than one at
/// `old`.
fn missing_costs(old: u32, cost: u32) -> std::ops::Range<u32> {
    old.max(4)..cost
}

fn bcrypt_reads_all(password: &Password) -> bool {
    let text = password.expose();
    text.len() <= BCRYPT_READS && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_names_every_violation_at_once() {
        use Violation::*;
        let longest = format!("Aa1{}", "x".repeat(69));
        let too_long = format!("{longest}x");
        let umlauts = format!("A1{}", "ä".repeat(36));
        for (password, violations) in [
            ("Abcdefgh12", vec![]),
            ("Äöüäöüäö12", vec![]),
            (&longest, vec![]),
            ("Abcdefgh1", vec![TooShort]),
            ("Äöüäöüä12", vec![TooShort]),
            (&too_long, vec![TooLong]),
            (&umlauts, vec![TooLong]),
            ("abcdefgh12", vec![NoUppercase]),
            ("ABCDEFGH12", vec![NoLowercase]),
            ("Abcdefghij", vec![NoDigit]),
            ("Abcdefghi٣", vec![NoDigit]),
            ("Abcdefgh12\0", vec![ContainsNul]),
            ("", vec![TooShort, NoUppercase, NoLowercase, NoDigit]),
            ("\0", vec![TooShort, NoUppercase, NoLowercase, NoDigit, ContainsNul]),
        ] {
            assert_eq!(StandardPolicy.violations(&password.into()), violations, "{password:?}");
        }
    }

    #[test]
    fn violations_have_stable_codes() {
        use Violation::*;
        let all = [TooShort, TooLong, NoUppercase, NoLowercase, NoDigit, ContainsNul];
        assert_eq!(
            all.map(|violation| violation.code()),
            ["too_short", "too_long", "no_uppercase", "no_lowercase", "no_digit", "contains_nul"],
        );
    }

    #[test]
    fn decoy_is_verified_like_any_other_and_matches_nothing() {
        let bcrypt = BcryptHasher::new(5).unwrap();
        let decoy = bcrypt.decoy().unwrap();
        assert_eq!(decoy.expose().len(), bcrypt.hash(&"a".into()).unwrap().expose().len());
        assert_eq!(decoy.expose().parse::<bcrypt::HashParts>().unwrap().get_cost(), 5);
        for password in ["", "decoy", "Correct-Horse-1"] {
            assert!(!bcrypt.verify(&password.into(), &decoy).unwrap());
        }
    }

    #[test]
    fn cost_is_4_to_31() {
        for (cost, valid) in [(0, false), (3, false), (4, true), (31, true), (32, false)] {
            assert_eq!(BcryptHasher::new(cost).is_ok(), valid, "{cost}");
        }
        assert_eq!(BcryptHasher::default().cost, 12);
    }

    #[test]
    fn failed_check_of_a_cheaper_hash_spends_the_difference() {
        for (old, cost) in [(4, 9), (11, 12), (12, 12), (13, 12), (0, 4), (4, 31)] {
            let spent: u64 = missing_costs(old, cost).map(|cost| 1 << cost).sum();
            let checked = 1_u64 << old.max(4);
            assert_eq!(checked + spent, checked.max(1 << cost), "{old} for {cost}");
        }
        let [four, five] = [4, 5].map(|cost| BcryptHasher::new(cost).unwrap());
        let old = four.hash(&"a".into()).unwrap();
        assert!(!five.verify(&"b".into(), &old).unwrap());
        five.even_out(&"b".into(), &old, &five.decoy().unwrap()).unwrap();
    }

    #[test]
    fn however_it_was_typed_it_is_one_password() {
        for (typed, prepared) in [
            ("Grüße-1", "Grüße-1"),
            ("Gru\u{308}ße-1", "Grüße-1"),
            ("a\u{a0}b\u{3000}c", "a b c"),
            ("\u{212b}", "\u{c5}"),
            ("ﬁ", "ﬁ"), // compatibility forms stay: RFC 8265 asks for NFC, not NFKC
        ] {
            let password = Password::from(typed);
            assert_eq!(password.expose(), prepared);
            let as_typed = password.as_typed();
            assert_eq!(
                as_typed.as_ref().map(Password::expose),
                (typed != prepared).then_some(typed)
            );
        }
        let short = Password::from("Aa1u\u{308}u\u{308}u\u{308}u\u{308}");
        assert_eq!(StandardPolicy.violations(&short), [Violation::TooShort]);
    }

    #[test]
    fn only_the_same_password_is_right() {
        let bcrypt = BcryptHasher::new(4).unwrap();
        let longest = "x".repeat(72);
        for password in ["a", "Grüße aus Köln 1", &longest] {
            let hash = bcrypt.hash(&password.into()).unwrap();
            assert!(bcrypt.verify(&password.into(), &hash).unwrap());
            for other in ["", "b", &format!("{password}\0{password}"), &format!("{password}x")] {
                assert!(!bcrypt.verify(&other.into(), &hash).unwrap(), "{password:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_bcrypt_would_cut_or_confuse_is_not_hashed() {
        let bcrypt = BcryptHasher::new(4).unwrap();
        for password in ["a\0a", "\0", &"x".repeat(73), &"ä".repeat(37)] {
            assert!(bcrypt.hash(&password.into()).is_err(), "{password:?}");
        }
        let empty = bcrypt.hash(&"".into()).unwrap();
        assert!(!bcrypt.verify(&"\0".into(), &empty).unwrap());
    }

    #[test]
    fn what_is_no_hash_is_an_error_and_not_a_wrong_password() {
        let bcrypt = BcryptHasher::new(4).unwrap();
        let hash = bcrypt.hash(&"a".into()).unwrap().expose().to_owned();
        for stored in ["", "a", &hash[1..], &hash.replace("$04$", "$99$"), &hash.replace('$', "!")]
        {
            let stored = PasswordHash::from(stored.to_owned());
            assert!(bcrypt.verify(&"a".into(), &stored).is_err(), "{}", stored.expose());
            assert!(!bcrypt.needs_rehash(&stored));
        }
    }

    #[test]
    fn cheaper_hashes_need_a_new_one() {
        let [four, five] = [4, 5].map(|cost| BcryptHasher::new(cost).unwrap());
        let hash = four.hash(&"a".into()).unwrap();
        assert!(five.needs_rehash(&hash));
        assert!(!four.needs_rehash(&hash));
        assert!(!four.needs_rehash(&five.hash(&"a".into()).unwrap()));
        assert!(five.verify(&"a".into(), &hash).unwrap());
    }
}
