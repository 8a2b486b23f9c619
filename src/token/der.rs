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
    fn an_element_that_is_cut_short_is_none() {
        for der in [&[][..], &[4], &[4, 1], &[4, 0x81], &[4, 0x82, 1], &[4, 0x80], &[4, 0x84, 0]] {
            assert_eq!(Reader::new(der).read(OCTET_STRING), None, "{der:?}");
        }
    }
}
