//! As much DER (X.690) as keys are wrapped in.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// Elements one after another.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    /// The content of the next element, if it has this tag.
    pub(super) fn read(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&[found, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
            0x82 => {
                let (&length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(length)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        (found == tag).then(|| {
            self.0 = rest;
            content
        })
    }

    /// What a sequence holds.
    pub(super) fn sequence(&mut self) -> Option<Self> {
        self.read(SEQUENCE).map(Self)
    }

    /// The big-endian bytes of an integer that is not negative, without leading zeros.
    pub(super) fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.read(INTEGER)? {
            [0, digits @ ..] => Some(digits),
            digits @ [1..=0x7f, ..] => Some(digits),
            _ => None,
        }
    }

    /// The bytes of a bit string that has only whole ones.
    pub(super) fn bits(&mut self) -> Option<&'a [u8]> {
        match self.read(BIT_STRING)? {
            [0, bits @ ..] => Some(bits),
            _ => None,
        }
    }
}

/// RSAPublicKey (RFC 8017, appendix A.1.1), of the big-endian bytes of modulus and exponent.
pub(super) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let unsigned = |digits: &[u8]| {
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let digits = &digits[zeros..];
        // A first bit of one would make it negative.
        let sign: &[u8] =
            if digits.first().is_none_or(|digit| *digit >= 0x80) { &[0] } else { &[] };
        element(INTEGER, &[sign, digits].concat())
    };
    element(SEQUENCE, &[unsigned(modulus), unsigned(exponent)].concat())
}

/// Longer than any key of ours: what is cut short verifies nothing.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let mut der = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => [&[tag, 0x82], &length.to_be_bytes()[..]].concat(),
    };
    der.extend_from_slice(&content[..length.into()]);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_in_turn() {
        let mut long = vec![OCTET_STRING, 0x82, 1, 0];
        long.extend([7; 256]);
        assert_eq!(Reader::new(&long).read(OCTET_STRING), Some(&[7; 256][..]));

        let mut reader = Reader::new(&[SEQUENCE, 6, INTEGER, 2, 0, 0x80, INTEGER, 0]);
        let mut inner = reader.sequence().unwrap();
        assert_eq!(inner.read(BIT_STRING), None);
        assert_eq!(inner.unsigned(), Some(&[0x80][..]));
        assert_eq!(inner.unsigned(), None);
        assert!(reader.sequence().is_none());
    }

    #[test]
    fn what_is_written_of_an_rsa_key_is_read_again() {
        for length in [1, 127, 128, 256, 512] {
            for first in [1, 0x7f, 0x80, 0xff] {
                let modulus = [vec![first], vec![0; length - 1]].concat();
                let der = rsa_public_key(&[&[0, 0], &modulus[..]].concat(), &[1, 0, 1]);
                let mut key = Reader::new(&der).sequence().unwrap();
                assert_eq!(key.unsigned(), Some(&modulus[..]), "{length} {first}");
                assert_eq!(key.unsigned(), Some(&[1, 0, 1][..]));
            }
        }
    }

    #[test]
    fn an_element_that_is_cut_short_is_none() {
        for der in [&[][..], &[4], &[4, 1], &[4, 0x81], &[4, 0x82, 1], &[4, 0x80], &[4, 0x84, 0]] {
            assert_eq!(Reader::new(der).read(OCTET_STRING), None, "{der:?}");
        }
    }
}
