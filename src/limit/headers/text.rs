//! The text of headers: written, and read back from what a layer further in has written.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use smallvec::SmallVec;

use super::{Report, Reports};
use crate::limit::LimiterName;

/// Where text is written that headers share. Of one limiter with a usual name it is a part of the allocation by which it is
/// shared.
pub(super) struct Buffer {
    // Appending to it takes as long as all the rest, so it is filled in place.
    bytes: SmallVec<[u8; 96]>,
    pub(super) len: usize,
}

impl Buffer {
    /// For a list of them, and one number more.
    pub(super) fn with_room_for(reports: &Reports) -> Self {
        const NUMBER: usize = 20;
        let item = |report: &Report| report.limiter.as_str().len() + 2 * NUMBER + 10;
        let room = reports.0.iter().map(item).sum::<usize>() + NUMBER;
        Self { bytes: SmallVec::from_elem(0, room), len: 0 }
    }

    /// Appends `"limiter";q=100;w=60` to the list, and says where the first number stands.
    pub(super) fn item(
        &mut self,
        limiter: LimiterName,
        one: &[u8; 4],
        n: u32,
        other: &[u8; 3],
        m: u64,
    ) -> Range<usize> {
        if self.len > 0 {
            self.put(b", ");
        }
        self.put(b"\"");
        self.put(limiter.as_str().as_bytes());
        self.put(one);
        let digits = self.number(n.into());
        self.put(other);
        self.number(m);
        digits
    }

    pub(super) fn number(&mut self, number: u64) -> Range<usize> {
        let start = self.len;
        self.put(itoa::Buffer::new().format(number).as_bytes());
        start..self.len
    }

    pub(super) fn put(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + part.len()) {
            place.copy_from_slice(part);
            self.len += part.len();
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// As `HeaderValue::from` makes it, with one allocation instead of two.
pub(in crate::limit) fn number(number: u64) -> HeaderValue {
    header(Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes()))
}

pub(super) fn header(text: Bytes) -> HeaderValue {
    // Names of limiters, numbers, and what was a header already: always a header.
    HeaderValue::from_maybe_shared(text).unwrap_or(const { HeaderValue::from_static("") })
}

/// Whether this is what [`Buffer::item`] writes for `RateLimit`: the work of one of these layers.
pub(super) fn is_list(value: &HeaderValue) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_item = |item: &str| {
        let (name, rest) = item.strip_prefix('"')?.split_once("\";r=")?;
        let (remaining, more) = rest.split_once(";t=")?;
        Some(!name.contains('"') && is_number(remaining) && is_number(more))
    };
    value.to_str().is_ok_and(|list| list.split(", ").all(|item| is_item(item) == Some(true)))
}

/// The limiters that such a list names.
pub(super) fn names(list: &HeaderValue) -> SmallVec<[&str; 4]> {
    let items = list.to_str().unwrap_or_default().split(", ");
    items.filter_map(|item| Some(item.strip_prefix('"')?.split_once('"')?.0)).collect()
}
