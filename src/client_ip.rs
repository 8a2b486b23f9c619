//! Client addresses: who is at the other end of a request, in front of proxies and behind them.
//!
//! 1. The peer address is the [`PeerAddr`] that code of yours puts into the extensions: code that accepts
//!    connections, or that reads the PROXY protocol. Where there is none it is what the connection says:
//!    axum's `ConnectInfo<SocketAddr>`, or `MockConnectInfo` in tests (feature `axum`), or what tonic's
//!    server knows (feature `tonic`).
//! 2. A forwarding header is a claim. It is read only where the peer is a trusted proxy, and only
//!    the one header that this proxy is known to set: a proxy passes on the others as they came.
//! 3. A list (`X-Forwarded-For`, `Forwarded`) is read from the right, over all its lines: each hop
//!    appends whom it saw. The first address that is not itself a trusted proxy is the client. Reading
//!    stops at what is no address (RFC 7239 allows `unknown` and made-up names), and then the last
//!    trusted hop counts.
//! 4. A header that holds one address (`X-Real-IP`, `CF-Connecting-IP`; see
//!    [`ForwardedHeader::single`]) is believed where it holds one. Of a list in it, or of two lines
//!    of it, nothing is believed, and the peer counts.
//! 5. Where the proxies have no known addresses (Heroku-like platforms) but their number is known,
//!    [`TrustedProxies::hops`] takes the N-th address from the right. Where there are fewer, or anything
//!    among these N is no address, the peer counts. Nobody else may then be able to reach the server.
//! 6. IPv4-mapped IPv6 counts as IPv4. IPv6 counts by /64, the smallest net that is given to one
//!    customer: who has one address of it has them all. See [`Rule::with_ipv6_prefix`] and
//!    [`Rule::per_ipv6_net`] for wider nets.
//! 7. A trusted proxy that sends no such header is logged, once: all of its clients share one limit.
//!
//! **Behind a proxy, say so**: without [`TrustedProxies`] all clients of a proxy share its address,
//! and its limit. **Not behind one, don't**: anyone could then choose their own address. For the same
//! reason `0.0.0.0/0` and `::/0` are no trusted networks.
//!
//! **Unix sockets** have no peer address, and only a proxy on the same machine connects to them. Put
//! [`PeerAddr::unix_socket`] into each request's extensions (in axum
//! `.layer(Extension(PeerAddr::unix_socket()))`), and trust `127.0.0.1`, which it stands for.
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
//!
//! [`Rule::with_ipv6_prefix`]: crate::Rule::with_ipv6_prefix
//! [`Rule::per_ipv6_net`]: crate::Rule::per_ipv6_net

mod proxies;

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use http::Extensions;

pub(crate) use self::proxies::network;
pub use self::proxies::{ForwardedHeader, InvalidProxies, TrustedProxies};

/// The address at the other end of the connection, as an extension of the request; for servers
/// that have no `ConnectInfo` of axum's, or know better (PROXY protocol): this one counts before it.
///
/// ```
/// use tower_warden::PeerAddr;
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(PeerAddr::from(([203, 0, 113, 9], 4711)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

impl PeerAddr {
    /// For connections that came over a unix socket: `127.0.0.1`, port 0. To be trusted as a proxy,
    /// see the [module](self) docs.
    #[must_use]
    pub const fn unix_socket() -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
    }
}

impl<A: Into<SocketAddr>> From<A> for PeerAddr {
    fn from(address: A) -> Self {
        Self(address.into())
    }
}

/// The request has no peer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no peer address: serve the axum app with `into_make_service_with_connect_info::<SocketAddr>()` \
     (feature `axum`), or put a `tower_warden::PeerAddr` into the request's extensions"
)]
#[non_exhaustive]
pub struct NoPeerAddr;

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
    // Words, since an `IpAddr` is moved byte by byte, which takes as long as to find it.
    /// The canonical form of the address: both halves of IPv6, or IPv4 in the second.
    halves: [u64; 2],
    is_ipv6: bool,
    /// How many bits of an IPv6 address count: 1 to 64.
    prefix: u8,
}

/// The smallest net that is given to one customer, and the narrowest that counts.
const NARROWEST: u8 = 64;

impl From<IpAddr> for ClientIp {
    #[inline]
    fn from(address: IpAddr) -> Self {
        Self::of_canonical(address.to_canonical())
    }
}

impl From<SocketAddr> for ClientIp {
    fn from(address: SocketAddr) -> Self {
        address.ip().into()
    }
}

impl From<ClientIp> for IpAddr {
    fn from(client: ClientIp) -> Self {
        client.addr()
    }
}

impl ClientIp {
    #[inline]
    fn of_canonical(address: IpAddr) -> Self {
        let (is_ipv6, halves) = match address {
            IpAddr::V4(v4) => (false, [0, v4.to_bits().into()]),
            IpAddr::V6(v6) => (true, [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64]),
        };
        Self { halves, is_ipv6, prefix: NARROWEST }
    }

    /// The address itself, whole.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        let [upper, lower] = self.halves;
        match self.is_ipv6 {
            false => Ipv4Addr::from_bits(lower as u32).into(),
            true => Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into(),
        }
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
        self.is_ipv6
    }

    /// What counts of it: the kind (0: IPv4; 1: IPv6 by /64; 2: IPv6 by a wider net), and bits by which
    /// it is told from all others of its kind.
    #[inline]
    pub(crate) fn bits(self) -> (u8, u64) {
        let [upper, lower] = self.halves;
        if !self.is_ipv6 {
            return (0, lower);
        }
        match NARROWEST - self.prefix {
            0 => (1, upper),
            // A one behind the prefix, and nothing after it, so that no two nets share bits.
            spare => (2, (upper >> spare << 1 | 1) << (spare - 1)),
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
        match self.addr() {
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

/// The address at the other end of the connection. What code of the server's own says counts first.
#[inline(always)]
fn peer_ip(extensions: &Extensions) -> Option<IpAddr> {
    if let Some(PeerAddr(peer)) = extensions.get() {
        return Some(peer.ip());
    }
    #[cfg(feature = "axum")]
    {
        use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
        if let Some(ConnectInfo(peer)) = extensions.get::<ConnectInfo<SocketAddr>>() {
            return Some(peer.ip());
        }
        if let Some(MockConnectInfo(peer)) = extensions.get::<MockConnectInfo<SocketAddr>>() {
            return Some(peer.ip());
        }
    }
    #[cfg(feature = "tonic")]
    if let Some(peer) = tonic_peer(extensions) {
        return Some(peer.ip());
    }
    None
}

/// What tonic's own server says of a connection, with its TLS and without.
#[cfg(feature = "tonic")]
fn tonic_peer(extensions: &Extensions) -> Option<SocketAddr> {
    let info: &tonic::transport::server::TcpConnectInfo = extensions.get()?;
    info.remote_addr()
}

#[cfg(all(test, feature = "axum"))]
mod tests {
    use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};

    use super::*;

    #[test]
    fn what_the_servers_own_code_says_of_the_peer_counts_before_what_the_connection_says() {
        let address = |last| SocketAddr::from(([203, 0, 113, last], 4711));
        let mut extensions = Extensions::new();
        for (last, insert) in [
            (1, (|extensions, peer| _ = extensions.insert(MockConnectInfo(peer))) as Insert),
            (2, |extensions, peer| _ = extensions.insert(ConnectInfo(peer))),
            // As it was told by PROXY protocol, say.
            (3, |extensions, peer| _ = extensions.insert(PeerAddr(peer))),
        ] {
            insert(&mut extensions, address(last));
            assert_eq!(peer_ip(&extensions), Some(address(last).ip()));
        }
    }

    type Insert = fn(&mut Extensions, SocketAddr);
}
