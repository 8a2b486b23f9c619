//! Which peers forward requests of others, and how they say of whom.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::{ClientIp, NoPeerAddr, peer_ip};

/// The one forwarding header that the proxies in front of a server set.
///
/// ```
/// use tower_warden::ForwardedHeader;
/// assert_eq!("x-forwarded-for".parse(), Ok(ForwardedHeader::XForwardedFor));
/// assert_eq!("CF-Connecting-IP".parse(), ForwardedHeader::single("cf-connecting-ip"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239)
    Forwarded,
    /// A header that holds one address and that the proxy replaces, whatever a client sends:
    /// `X-Real-IP`, `CF-Connecting-IP`, `True-Client-IP`, `Fly-Client-IP`, …
    Single(HeaderName),
}

impl ForwardedHeader {
    /// A header of this name, which holds one address.
    ///
    /// # Errors
    /// [`InvalidProxies::Header`] where that is no name of a header.
    pub fn single(name: &str) -> Result<Self, InvalidProxies> {
        let name = name.parse().map_err(|_| InvalidProxies::Header(name.to_owned()))?;
        Ok(Self::Single(name))
    }

    /// The name of it.
    #[must_use]
    pub fn name(&self) -> &HeaderName {
        static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        match self {
            Self::XForwardedFor => &X_FORWARDED_FOR,
            Self::Forwarded => &header::FORWARDED,
            Self::Single(name) => name,
        }
    }
}

/// By its name, in any case; what is neither of the two lists holds one address.
impl FromStr for ForwardedHeader {
    type Err = InvalidProxies;

    fn from_str(name: &str) -> Result<Self, InvalidProxies> {
        match Self::single(name.trim())? {
            Self::Single(name) if name == "x-forwarded-for" => Ok(Self::XForwardedFor),
            Self::Single(name) if name == header::FORWARDED => Ok(Self::Forwarded),
            single => Ok(single),
        }
    }
}

/// Which peers are proxies of ours, and what they set. The rules are those of the
/// [module](crate::client_ip).
///
/// ```
/// use tower_warden::{ForwardedHeader, TrustedProxies};
/// let own = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["10.0.0.0/8", "2001:db8::1"])?;
/// assert!(own.is_trusted([10, 1, 2, 3].into()));
/// let platform = TrustedProxies::hops(ForwardedHeader::XForwardedFor, 1)?;
/// let of_a_setting = TrustedProxies::parse(ForwardedHeader::single("x-real-ip")?, "10.0.0.0/8, fd00::/8")?;
/// assert!(TrustedProxies::parse(ForwardedHeader::XForwardedFor, "0.0.0.0/0").is_err());
/// # Ok::<(), tower_warden::client_ip::InvalidProxies>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    trust: Trust,
    header: ForwardedHeader,
    /// Whether it was said that a proxy sends no header, or that one seems to be there which is not trusted.
    told: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
enum Trust {
    Networks(Box<[IpNet]>),
    Hops(NonZeroU8),
}

impl Default for Trust {
    fn default() -> Self {
        Self::Networks(Box::default())
    }
}

/// Proxies that can't be trusted, or can't be told from anybody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxies {
    /// Text that is neither a network in CIDR form, nor an address.
    #[error("{0:?} is no network such as 10.0.0.0/8 or 2001:db8::/32")]
    Network(String),
    /// A network of all addresses.
    #[error("{0:?} would trust everybody, so that each client could choose its own address")]
    Everybody(String),
    /// Text that is no name of a header.
    #[error("{0:?} is no name of a header")]
    Header(String),
    /// Not `hops:` and a number from 1 to 255.
    #[error("{0:?} is no number of hops such as hops:1")]
    Hops(String),
    /// Several hops, and a header that holds one address.
    #[error("{0} holds one address, so it tells of one hop: hops:1")]
    HopsOfSingle(HeaderName),
}

impl TrustedProxies {
    /// No proxy: the peer is the client, and no header is read.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Proxies in these networks (`10.0.0.0/8`, `2001:db8::1`), which set this header.
    ///
    /// # Errors
    /// [`InvalidProxies`] names the text that is neither a network nor an address, or that is all
    /// addresses.
    pub fn new<T: AsRef<str>>(
        header: ForwardedHeader,
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidProxies> {
        let nets = networks.into_iter().map(|text| {
            let text = text.as_ref();
            match network(text) {
                Some(net) if net.prefix_len() > 0 => Ok(net),
                Some(_) => Err(InvalidProxies::Everybody(text.to_owned())),
                None => Err(InvalidProxies::Network(text.to_owned())),
            }
        });
        let nets = nets.collect::<Result<_, _>>()?;
        Ok(Self { trust: Trust::Networks(nets), header, told: Arc::default() })
    }

    /// So many proxies, whatever their addresses: the client is the N-th address from the right. Only
    /// where nobody can reach the server but through all of them.
    ///
    /// # Errors
    /// [`InvalidProxies::Hops`] for none, and [`InvalidProxies::HopsOfSingle`] for more than one with a
    /// header that holds one address.
    pub fn hops(header: ForwardedHeader, hops: u8) -> Result<Self, InvalidProxies> {
        let count = NonZeroU8::new(hops);
        let count = count.ok_or_else(|| InvalidProxies::Hops(format!("hops:{hops}")))?;
        match header {
            ForwardedHeader::Single(name) if hops > 1 => Err(InvalidProxies::HopsOfSingle(name)),
            header => Ok(Self { trust: Trust::Hops(count), header, told: Arc::default() }),
        }
    }

    /// As settings say it: networks, separated by commas, or `hops:N`; nothing for [`none`](Self::none).
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`hops`](Self::hops).
    pub fn parse(header: ForwardedHeader, text: &str) -> Result<Self, InvalidProxies> {
        let text = text.trim();
        if let Some(hops) = text.strip_prefix("hops:") {
            let hops = hops.trim().parse();
            return Self::hops(header, hops.map_err(|_| InvalidProxies::Hops(text.to_owned()))?);
        }
        let networks = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        Self::new(header, networks)
    }

    /// The client that a request comes from.
    ///
    /// # Errors
    /// [`NoPeerAddr`] where the server was built without one.
    #[inline(always)]
    pub fn client_ip(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<ClientIp, NoPeerAddr> {
        let peer = peer_ip(extensions).ok_or(NoPeerAddr)?.to_canonical();
        let client = match &self.trust {
            Trust::Networks(nets) if nets.is_empty() => {
                if is_near(peer) && !self.told.load(Ordering::Relaxed) {
                    self.tell_of_proxy(headers);
                }
                peer
            }
            _ => self.forwarded_by(peer, headers).unwrap_or(peer),
        };
        Ok(ClientIp::of_canonical(client))
    }

    /// Whether the forwarding header is believed where this peer sends it: then its connections are
    /// of many clients. With [`hops`](Self::hops) every peer is.
    #[must_use]
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        match &self.trust {
            Trust::Networks(nets) => trusts(nets, peer.to_canonical()),
            Trust::Hops(_) => true,
        }
    }

    /// Whom the forwarding header names, where this peer is believed.
    #[inline(never)]
    fn forwarded_by(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        match &self.trust {
            Trust::Networks(nets) if trusts(nets, peer) => self.beyond(nets, headers),
            Trust::Networks(_) => None,
            Trust::Hops(hops) => self.hop(hops.get(), headers),
        }
    }

    /// The nearest hop that is in none of these networks; the last one known, where there is none.
    fn beyond(&self, nets: &[IpNet], headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = None;
        // Reading ends at what is no address.
        for hop in self.addresses(headers).map_while(|hop| hop) {
            client = Some(hop);
            if !trusts(nets, hop) {
                break;
            }
        }
        client
    }

    /// The N-th address from the right, where those right of it are addresses too.
    fn hop(&self, n: u8, headers: &HeaderMap) -> Option<IpAddr> {
        self.addresses(headers).map_while(|hop| hop).nth(usize::from(n) - 1)
    }

    /// What the header holds, the nearest hop first; `None` for what is no address.
    fn addresses<'h>(
        &'h self,
        headers: &'h HeaderMap,
    ) -> impl Iterator<Item = Option<IpAddr>> + 'h {
        let lines = headers.get_all(self.header.name());
        if lines.iter().next().is_none() {
            self.tell();
        }
        let is_list = !matches!(self.header, ForwardedHeader::Single(_));
        let believed = is_list || lines.iter().nth(1).is_none();
        let lines = lines.iter().rev().filter(move |_| believed);
        lines.flat_map(move |line| {
            // What is no text stands for one hop that is no address.
            from_the_right(text(line), if is_list { ',' } else { '\n' })
                .map(|hop| self.address(hop))
        })
    }

    fn address(&self, hop: &str) -> Option<IpAddr> {
        match self.header {
            ForwardedHeader::Forwarded => forwarded_for(hop).and_then(node_address),
            _ => node_address(hop),
        }
    }

    /// Once: where no proxy is trusted, and a peer that is none of the internet's says for whom it asks, as
    /// a rule it is a proxy, and all of its clients share its limits.
    #[inline(never)]
    fn tell_of_proxy(&self, headers: &HeaderMap) {
        let says = |header: &ForwardedHeader| headers.contains_key(header.name());
        let lists = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];
        if lists.iter().any(says) && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a peer in a private network sends forwarding headers, and no proxy is trusted: if it is \
                 one, all of its clients share one address, and its limits; see `TrustedProxies`"
            );
        }
    }

    /// Once: it may be a health check of the proxy's own, but as a rule it is a proxy that was not told
    /// to send this header.
    fn tell(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let header = self.header.name().as_str();
            tracing::warn!(
                header,
                "a trusted proxy sent a request without this header: all of its clients that come so \
                 share one address, and its limits"
            );
        }
    }
}

fn text(line: &HeaderValue) -> &str {
    line.to_str().unwrap_or_default()
}

/// Whether it is an address of this machine or of a private network.
#[inline]
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn trusts(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

/// A network in CIDR form, or the one of an address alone.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    match net {
        // Peers are compared in canonical form, so a mapped network is the IPv4 network it maps.
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).ok(),
            None => Some(net),
        },
        net => Some(net),
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
    use crate::PeerAddr;

    fn resolved(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "::ffff:172.16.0.0/108", "fd00::1"];
        client(&TrustedProxies::new(header, networks).unwrap(), peer, lines)
    }

    fn client(proxies: &TrustedProxies, peer: &str, lines: &[&str]) -> String {
        let name = proxies.header.name();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let mut extensions = Extensions::new();
        extensions.insert(PeerAddr(SocketAddr::new(peer.parse().unwrap(), 1)));
        proxies.client_ip(&headers, &extensions).unwrap().to_string()
    }

    #[test]
    fn header_of_one_address_is_believed_where_it_holds_one() {
        let real_ip = || ForwardedHeader::single("X-Real-IP").unwrap();
        for (peer, lines, client) in [
            ("10.0.0.1", &["1.1.1.1"][..], "1.1.1.1"),
            ("10.0.0.1", &[" 2001:db8::1 "], "2001:db8::/64"),
            ("10.0.0.1", &["1.1.1.1, 2.2.2.2"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1", "1.1.1.1"], "10.0.0.1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("192.0.2.1", &["1.1.1.1"], "192.0.2.1"),
        ] {
            assert_eq!(resolved(real_ip(), peer, lines), client, "{lines:?}");
        }
        let one = TrustedProxies::hops(real_ip(), 1).unwrap();
        assert_eq!(client(&one, "192.0.2.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client(&one, "192.0.2.1", &["1.1.1.1, 2.2.2.2"]), "192.0.2.1");
        assert!(TrustedProxies::hops(real_ip(), 2).is_err());
    }

    #[test]
    fn hops_count_from_the_right_and_what_is_too_few_or_garbage_is_the_peer() {
        for (hops, lines, address) in [
            (1, &["6.6.6.6, 1.1.1.1"][..], "1.1.1.1"),
            (2, &["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            (2, &["6.6.6.6, 1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            (2, &["1.1.1.1"], "192.0.2.1"),
            (2, &["1.1.1.1, unknown"], "192.0.2.1"),
            (1, &["1.1.1.1, unknown"], "192.0.2.1"),
            (1, &["unknown, 1.1.1.1"], "1.1.1.1"),
            (1, &[], "192.0.2.1"),
        ] {
            let proxies = TrustedProxies::hops(ForwardedHeader::XForwardedFor, hops).unwrap();
            assert_eq!(client(&proxies, "192.0.2.1", lines), address, "{hops} of {lines:?}");
        }
    }

    #[test]
    fn settings_say_networks_or_hops() {
        let parse = |text| TrustedProxies::parse(ForwardedHeader::XForwardedFor, text);
        assert!(parse(" hops:2 ").unwrap().is_trusted([192, 0, 2, 1].into()));
        assert!(!parse("").unwrap().is_trusted([10, 0, 0, 1].into()));
        assert!(parse("10.0.0.0/8, ::1,").unwrap().is_trusted([10, 0, 0, 1].into()));
        for wrong in ["hops:0", "hops:", "hops:256", "hops:-1", "10.0.0.0/33", "10.0.0.0/8 hops:1"]
        {
            assert!(parse(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
        for everybody in ["0.0.0.0/0", "::/0", "10.0.0.0/8, ::ffff:0.0.0.0/96", "1.2.3.4/0"] {
            assert!(matches!(parse(everybody), Err(InvalidProxies::Everybody(_))), "{everybody}");
        }
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
