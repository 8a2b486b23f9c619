//! [`TraceContext`]: the trace in which a caller asks.

use std::fmt;

use http::HeaderMap;

/// The trace of which a request is part, and the caller's span in it, as `traceparent` says it (W3C
/// Trace Context, section 3.2). In the extensions of a request, where
/// [`ObserveLayer`](super::ObserveLayer) found one. Shown as the header.
///
/// ```
/// use tower_warden::observe::TraceContext;
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let parent = TraceContext::parse(text).unwrap();
/// assert_eq!(parent.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), text);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Lower-case hex digits.
    trace_id: [u8; 32],
    parent_id: [u8; 16],
    flags: u8,
}

impl TraceContext {
    /// Reads the value of a `traceparent`. `None` for what is none: a later version is read as far as it
    /// is like this one, as the standard says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (head, rest) = bytes.split_at_checked(55)?;
        let version = hex(&head[..2])?;
        let further = version > 0 && rest.first() == Some(&b'-');
        let dashes = [2, 35, 52].iter().all(|&at| head[at] == b'-');
        if version == 0xff || !dashes || !(rest.is_empty() || further) {
            return None;
        }
        let (trace_id, parent_id) = (id(&head[3..35])?, id(&head[36..52])?);
        Some(Self { trace_id, parent_id, flags: hex(&head[53..])? })
    }

    /// That of a request; of several headers, none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all("traceparent").iter();
        let line = lines.next()?;
        if lines.next().is_some() {
            return None;
        }
        Self::parse(line.to_str().ok()?)
    }

    /// The trace: 32 hex digits, not all of them 0.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.trace_id).unwrap_or_default()
    }

    /// The caller's span: 16 hex digits, not all of them 0.
    #[must_use]
    pub fn parent_id(&self) -> &str {
        std::str::from_utf8(&self.parent_id).unwrap_or_default()
    }

    /// Whether the caller may have recorded its span.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

/// Lower-case hex digits, not all of them 0.
fn id<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let is_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let valid = text.iter().all(is_hex) && text.iter().any(|b| *b != b'0');
    valid.then(|| text.try_into().ok()).flatten()
}

fn hex(text: &[u8]) -> Option<u8> {
    text.iter().try_fold(0, |number: u8, b| {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | digit)
    })
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The one flag that version 00 knows.
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), self.parent_id(), self.flags & 1)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_the_standard_allows_is_read_and_nothing_else() {
        let zeros = "0".repeat(32);
        let good = [
            format!("00-{TRACE}-{SPAN}-00"),
            format!("00-{TRACE}-{SPAN}-ff"),
            format!("01-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01-what.the.future.holds"),
        ];
        let bad = [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0g-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-{SPAN}-0\u{e4}"),
            "\u{e4}".repeat(28),
        ];
        for text in good {
            assert!(TraceContext::parse(&text).is_some(), "{text}");
        }
        for text in bad {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn of_two_headers_none_counts() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        headers.append("traceparent", value.clone());
        assert!(TraceContext::of(&headers).is_some());
        headers.append("traceparent", value);
        assert_eq!(TraceContext::of(&headers), None);
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in ".{0,80}") {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert_eq!(context.trace_id().len(), 32);
            }
        }
    }
}
