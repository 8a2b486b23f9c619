//! Who is at the other end: the peer, or the nearest hop that is not a trusted proxy.
//!
//! 1. The peer address is what the connection says: axum's `ConnectInfo<SocketAddr>` (feature
//!    `axum`), or a [`PeerAddr`] that the code which accepts connections puts into the extensions.
//! 2. A forwarding header is a claim. It is read only where the peer is a trusted proxy, and only
//!    the one header that this proxy is known to set: a proxy passes on the others as they came.
//! 3. It is read from the right, over all its lines: each hop appends whom it saw. The first
//!    address that is not itself a trusted proxy is the client. Reading stops at what is no address
//!    (RFC 7239 allows `unknown` and made-up names), and then the last trusted hop counts.
//! 4. IPv4-mapped IPv6 counts as IPv4. IPv6 counts by /64, the smallest net that is given to one
//!    customer: who has one address of it has them all.
//!
//! **Behind a proxy, say so**: without [`TrustedProxies`] all clients of a proxy share its address,
//! and its limit. **Not behind one, don't**: anyone could then choose their own address.
//!
//! ```
//! use http::Request;
//! use tower_warden::{ForwardedHeader, PeerAddr, TrustedProxies};
//!
//! let proxies = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["10.0.0.0/8"])?;
//! let mut request = Request::get("/").header("x-forwarded-for", "6.6.6.6, 203.0.113.9").body(())?;
//!
//! request.extensions_mut().insert(PeerAddr::from(([10, 0, 0, 1], 4711)));
//! assert_eq!(proxies.client_ip(request.headers(), request.extensions())?.to_string(), "203.0.113.9");
//!
//! // A stranger's header is not believed.
//! request.extensions_mut().insert(PeerAddr::from(([192, 0, 2, 1], 4711)));
//! assert_eq!(proxies.client_ip(request.headers(), request.extensions())?.to_string(), "192.0.2.1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use http::{Extensions, HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// The address at the other end of the connection, as an extension of the request; for servers
/// that have no `ConnectInfo` of axum's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

impl<A: Into<SocketAddr>> From<A> for PeerAddr {
    fn from(address: A) -> Self {
        Self(address.into())
    }
}

/// A client: the address that a request comes from, and the net by which limits count it.
///
/// IPv4-mapped IPv6 is IPv4. An IPv6 address counts by its /64, the smallest net that is given to one
/// customer: who has one address of it has them all. Two clients are equal, and are shown alike,
/// where limits count them as one; [`addr`](Self::addr) is the address itself.
///
/// ```
/// use tower_warden::ClientIp;
/// use std::net::IpAddr;
/// let ip = |text: &str| ClientIp::from(text.parse::<IpAddr>().unwrap());
/// assert_eq!(ip("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
/// assert_eq!(ip("2001:db8:1:2:3:4:5:6"), ip("2001:db8:1:2::7"));
/// assert_eq!(ip("2001:db8:1:2::7").addr().to_string(), "2001:db8:1:2::7");
/// assert_eq!(ip("2001:db8:1:2::7").with_ipv6_prefix(48).to_string(), "2001:db8:1::/48");
/// assert_eq!(ip("::ffff:203.0.113.9"), ip("203.0.113.9"));
/// ```
#[derive(Clone, Copy)]
pub struct ClientIp {
    /// In canonical form.
    address: IpAddr,
    /// How many bits of an IPv6 address count: 1 to 64.
    prefix: u8,
}

/// The smallest net that is given to one customer, and the narrowest that counts.
const NARROWEST: u8 = 64;

impl From<IpAddr> for ClientIp {
    #[inline]
    fn from(address: IpAddr) -> Self {
        Self { address: address.to_canonical(), prefix: NARROWEST }
    }
}

impl From<SocketAddr> for ClientIp {
    fn from(address: SocketAddr) -> Self {
        address.ip().into()
    }
}

impl From<ClientIp> for IpAddr {
    fn from(client: ClientIp) -> Self {
        client.address
    }
}

impl ClientIp {
    /// The address itself, whole.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        self.address
    }

    /// The same client, counted by the net of so many bits where it is IPv6; 64 unless said. Changes
    /// nothing for IPv4. What is no prefix from 1 to 64 counts as the nearest that is.
    #[must_use]
    pub fn with_ipv6_prefix(self, prefix: u8) -> Self {
        Self { prefix: prefix.clamp(1, NARROWEST), ..self }
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// What counts of it: the kind (0: IPv4; 1: IPv6 by /64; 2: IPv6 by a wider net), and bits by which
    /// it is told from all others of its kind.
    #[inline]
    pub(crate) fn bits(self) -> (u8, u64) {
        match self.address {
            IpAddr::V4(v4) => (0, v4.to_bits().into()),
            IpAddr::V6(v6) => {
                let upper = (v6.to_bits() >> 64) as u64;
                match NARROWEST - self.prefix {
                    0 => (1, upper),
                    // A one behind the prefix, and nothing after it, so that no two nets share bits.
                    spare => (2, (upper >> spare << 1 | 1) << (spare - 1)),
                }
            }
        }
    }
}

impl PartialEq for ClientIp {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for ClientIp {}

impl Hash for ClientIp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => {
                let spare = 128 - u32::from(self.prefix);
                write!(f, "{}/{}", Ipv6Addr::from_bits(v6.to_bits() >> spare << spare), self.prefix)
            }
        }
    }
}

impl fmt::Debug for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIp({self})")
    }
}

/// The one forwarding header that the proxies in front of a server set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239)
    Forwarded,
}

/// Which peers are proxies of ours, and what they set.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    nets: Box<[IpNet]>,
    header: ForwardedHeader,
}

/// Text that is no network in CIDR form, nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct InvalidNetwork(String);

/// The request has no peer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no peer address: serve the axum app with `into_make_service_with_connect_info::<SocketAddr>()` \
     (feature `axum`), or put a `tower_warden::PeerAddr` into the request's extensions"
)]
pub struct NoPeerAddr;

impl TrustedProxies {
    /// No proxy: the peer is the client, and no header is read.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Proxies in these networks (`10.0.0.0/8`, `2001:db8::1`), which set this header.
    ///
    /// # Errors
    /// [`InvalidNetwork`] names the text that is neither a network nor an address.
    pub fn new<T: AsRef<str>>(
        header: ForwardedHeader,
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidNetwork> {
        let nets = networks.into_iter().map(|text| network(text.as_ref()));
        Ok(Self { nets: nets.collect::<Result<_, _>>()?, header })
    }

    /// The client that a request comes from.
    ///
    /// # Errors
    /// [`NoPeerAddr`] where the server was built without one.
    pub fn client_ip(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<ClientIp, NoPeerAddr> {
        let peer = peer_addr(extensions).ok_or(NoPeerAddr)?;
        Ok(ClientIp::from(self.resolve(peer.ip().to_canonical(), headers)))
    }

    /// Whether the forwarding header is believed where this peer sends it: then its connections are
    /// of many clients.
    #[must_use]
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusts(peer.to_canonical())
    }

    fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        if !self.trusts(client) {
            return client;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => header::FORWARDED,
        };
        for line in headers.get_all(name).iter().rev() {
            let Ok(line) = line.to_str() else { return client };
            for hop in from_the_right(line, ',') {
                let address = match self.header {
                    ForwardedHeader::XForwardedFor => node_address(hop),
                    ForwardedHeader::Forwarded => forwarded_for(hop).and_then(node_address),
                };
                let Some(address) = address else { return client };
                client = address;
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&address))
    }
}

fn peer_addr(extensions: &Extensions) -> Option<SocketAddr> {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(peer)) = extensions.get() {
        return Some(*peer);
    }
    extensions.get().map(|PeerAddr(peer)| *peer)
}

fn network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let text = text.trim();
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match net {
        // Peers are compared in canonical form, so a mapped network is the IPv4 network it maps.
        Ok(IpNet::V6(v6)) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96),
            None => return Ok(v6.into()),
        }
        .map_err(|_| InvalidNetwork(text.to_owned())),
        Ok(net) => Ok(net),
        Err(_) => Err(InvalidNetwork(text.to_owned())),
    }
}

/// The parts of a line between separators that stand outside of quotes, last first. Where quotes
/// begin and end is decided from the right as well: what a client wrote on the left must not
/// swallow, by a quote that it leaves open, what proxies appended.
fn from_the_right(line: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut quoted = false;
        let end = line.rfind(|c| {
            quoted ^= c == '"';
            c == separator && !quoted
        });
        let (left, part) = match end {
            Some(at) => (Some(&line[..at]), &line[at + 1..]),
            None => (None, line),
        };
        rest = left;
        Some(part.trim_matches([' ', '\t']))
    })
}

/// The value of the one `for` in an element of `Forwarded`, without its quotes.
///
/// Proxies copy text of the client's choice into such an element (`host`). So what looks like a
/// pair inside of quotes is none, and an element with an escaped quote, or with two `for`s because
/// the text was not quoted, says nothing.
fn forwarded_for(element: &str) -> Option<&str> {
    let pairs = from_the_right(element, ';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    let (Some((_, value)), None, false) = (values.next(), values.next(), element.contains('\\'))
    else {
        return None;
    };
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value))
}

/// An address, with or without a port: `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let proxies =
            TrustedProxies::new(header, ["10.0.0.0/8", "::ffff:172.16.0.0/108", "fd00::1"]);
        let name = match header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let mut extensions = Extensions::new();
        extensions.insert(PeerAddr(SocketAddr::new(peer.parse().unwrap(), 1)));
        proxies.unwrap().client_ip(&headers, &extensions).unwrap().to_string()
    }

    #[test]
    fn nearest_untrusted_hop_is_the_client() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        for (case, header, peer, lines, client) in [
            ("no proxy", XForwardedFor, "192.0.2.1", &["1.1.1.1"][..], "192.0.2.1"),
            ("no header", XForwardedFor, "10.0.0.1", &[], "10.0.0.1"),
            ("one hop", XForwardedFor, "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("spoofed left", XForwardedFor, "10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (
                "trusted hops",
                XForwardedFor,
                "10.0.0.1",
                &["1.1.1.1, 10.9.9.9,172.16.1.1"],
                "1.1.1.1",
            ),
            ("over lines", XForwardedFor, "10.0.0.1", &["6.6.6.6, 1.1.1.1", "10.2.2.2"], "1.1.1.1"),
            ("all trusted", XForwardedFor, "10.0.0.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            (
                "garbage stops",
                XForwardedFor,
                "10.0.0.1",
                &["1.1.1.1, unknown, 10.2.2.2"],
                "10.2.2.2",
            ),
            ("empty stops", XForwardedFor, "10.0.0.1", &["1.1.1.1,, 10.2.2.2"], "10.2.2.2"),
            ("not text stops", XForwardedFor, "10.0.0.1", &["1.1.1.1", "\u{e9}"], "10.0.0.1"),
            ("port", XForwardedFor, "10.0.0.1", &["1.1.1.1:80"], "1.1.1.1"),
            ("IPv6 by /64", XForwardedFor, "fd00::1", &["2001:db8::1:2:3:4"], "2001:db8::/64"),
            ("mapped peer", XForwardedFor, "::ffff:10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("other header", Forwarded, "10.0.0.1", &[], "10.0.0.1"),
            ("RFC 7239", Forwarded, "10.0.0.1", &["for=1.1.1.1;proto=http"], "1.1.1.1"),
            (
                "quoted",
                Forwarded,
                "10.0.0.1",
                &[r#"For="[2001:db8:a:b::1]:4711""#],
                "2001:db8:a:b::/64",
            ),
            ("open quote", Forwarded, "10.0.0.1", &[r#"for="6.6.6.6, for=1.1.1.1"#], "1.1.1.1"),
            ("comma in quotes", Forwarded, "10.0.0.1", &[r#"for=1.1.1.1;by="a,b""#], "1.1.1.1"),
            (
                "a Host that looks like hops",
                Forwarded,
                "10.0.0.1",
                &[r#"host="a;for=6.6.6.6;b, for=7.7.7.7";for=1.1.1.1"#],
                "1.1.1.1",
            ),
            (
                "a Host that was not quoted",
                Forwarded,
                "10.0.0.1",
                &["host=a;for=6.6.6.6;for=1.1.1.1"],
                "10.0.0.1",
            ),
            (
                "an escaped quote",
                Forwarded,
                "10.0.0.1",
                &[r#"host="a\";for=6.6.6.6;b=\"";for=1.1.1.1"#],
                "10.0.0.1",
            ),
            ("unknown", Forwarded, "10.0.0.1", &["for=1.1.1.1, for=unknown"], "10.0.0.1"),
            ("no for", Forwarded, "10.0.0.1", &["for=1.1.1.1, proto=http"], "10.0.0.1"),
        ] {
            assert_eq!(resolved(header, peer, lines), client, "{case}");
        }
    }

    #[test]
    fn without_a_peer_address_the_error_says_what_to_add() {
        let error = TrustedProxies::none().client_ip(&HeaderMap::new(), &Extensions::new());
        assert!(error.unwrap_err().to_string().contains("into_make_service_with_connect_info"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        let error = TrustedProxies::new(ForwardedHeader::default(), ["10.0.0.0/33"]).unwrap_err();
        assert!(error.to_string().contains("10.0.0.0/33"));
    }
}
