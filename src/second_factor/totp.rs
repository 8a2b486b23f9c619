//! Time-based one-time passwords (RFC 6238) in the form that every authenticator app knows: HMAC
//! with SHA-1, six digits, steps of 30 seconds. Pure: no clock, no store.
//!
//! On ring's HMAC and not on `totp-rs`: the code is a line of RFC 4226, and what matters beside it,
//! which step a code belongs to and that all steps are compared in the same time, that crate does
//! not tell.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

use crate::StoreError;

/// 160 bits: as long as what SHA-1 yields (RFC 4226, section 4).
pub(super) const SECRET_LEN: usize = 20;
const STEP: Duration = Duration::from_secs(30);
const MODULUS: u32 = 1_000_000;

/// What an authenticator app and the server share.
pub(super) struct TotpSecret(Zeroizing<[u8; SECRET_LEN]>);

impl TotpSecret {
    pub(super) fn random() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| StoreError::internal("the system gave no random bytes"))?;
        Ok(Self(bytes))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &*self.0
    }

    /// As people type it into an app (RFC 4648, section 6, without padding: none is due).
    pub(super) fn base32(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut text = Zeroizing::new(String::with_capacity(SECRET_LEN * 8 / 5));
        for five in self.0.chunks(5) {
            let bits = five.iter().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
            for place in (0..8).rev() {
                text.push(char::from(DIGITS[(bits >> (5 * place) & 31) as usize]));
            }
        }
        text
    }

    /// The step around `now` whose code this is: the one before, this one, or the one after. All of
    /// them are compared, each in the same time, whichever it is.
    pub(super) fn step_of(&self, code: Code, now: SystemTime) -> Option<u64> {
        let current = step_at(now);
        let (mut found, mut step) = (0_u64, 0_u64);
        for candidate in [current.checked_sub(1), Some(current), current.checked_add(1)] {
            let candidate = candidate.unwrap_or(current);
            let same = mask_of_equal(self.code(candidate), code.0);
            found |= same;
            step = (step & !same) | (candidate & same);
        }
        (found != 0).then_some(step)
    }

    /// What an app shows at that time.
    pub(super) fn code_at(&self, time: SystemTime) -> String {
        format!("{:06}", self.code(step_at(time)))
    }

    /// The code of a step (RFC 4226, section 5.3).
    fn code(&self, step: u64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &*self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 15);
        let word =
            tag[offset..offset + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        (word & 0x7fff_ffff) % MODULUS
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

/// Six digits, as somebody typed them.
#[derive(Clone, Copy)]
pub(super) struct Code(u32);

impl Code {
    /// Reads text without spaces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok().map(Self)).flatten()
    }
}

fn step_at(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / STEP.as_secs()
}

/// All ones where both are the same, else zero; in the same time.
fn mask_of_equal(a: u32, b: u32) -> u64 {
    (u64::from(a ^ b).wrapping_sub(1) >> 63).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// RFC 6238, appendix B, of whose eight digits these are the last six.
    #[test]
    fn codes_are_those_of_the_standard() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        for (time, code) in [
            (59, 287_082),
            (1_111_111_109, 81_804),
            (1_111_111_111, 50_471),
            (1_234_567_890, 5_924),
            (2_000_000_000, 279_037),
            (20_000_000_000, 353_130),
        ] {
            assert_eq!(secret.code(time / 30), code);
            assert_eq!(secret.step_of(Code(code), at(time)), Some(time / 30));
        }
        assert_eq!(secret.base32().as_str(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn code_is_good_one_step_either_way() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let code = Code(secret.code(1000));
        for (time, good) in [
            (999 * 30 - 1, false),
            (999 * 30, true),
            (1000 * 30, true),
            (1002 * 30 - 1, true),
            (1002 * 30, false),
        ] {
            let step = secret.step_of(code, at(time));
            assert_eq!(step, good.then_some(1000), "{time}");
        }
        assert!(secret.step_of(Code(secret.code(0)), at(0)).is_some());
    }

    #[test]
    fn only_six_digits_are_a_code() {
        assert_eq!(Code::parse("012345").unwrap().0, 12345);
        for text in ["", "12345", "1234567", "+12345", "12 345", "１２", "12345a", "-12345"] {
            assert!(Code::parse(text).is_none(), "{text:?}");
        }
    }
}
