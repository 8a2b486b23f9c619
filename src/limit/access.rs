//! Who is never limited, and who is never let in.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use ipnet::IpNet;

use super::Key;
use crate::client_ip::network;

/// Who is exempt from a rule, and whom it refuses whatever the quota: by key, and by network where the
/// rule counts client addresses.
///
/// A key that stands here decides; else the narrowest network that holds the address; if two are
/// equally narrow, the one that denies. Clones share one list, which may be changed while it is used.
/// Networks are looked through one after the other: a list is for dozens of them, not for a million.
///
/// ```
/// use tower_warden::{Quota, Rule, limit::AccessList};
/// let list = AccessList::new();
/// list.deny_net("198.51.100.0/24")?;
/// list.allow_net("198.51.100.7")?; // our own monitor
/// let rule = Rule::per_ip("ip", Quota::per_minute(100)).with_access(list.clone());
/// list.remove_net("198.51.100.7")?;
/// # Ok::<(), tower_warden::limit::InvalidNetwork>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AccessList(Arc<RwLock<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    keys: HashMap<Key, Access>,
    nets: HashMap<IpNet, Access>,
}

/// Text that is neither a network in CIDR form, nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct InvalidNetwork(String);

/// What a list says of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Allowed,
    Denied,
}

impl AccessList {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Never limits this key.
    pub fn allow_key(&self, key: impl Into<Key>) {
        self.change(|entries| entries.keys.insert(key.into(), Access::Allowed));
    }

    /// Always refuses this key, with 403.
    pub fn deny_key(&self, key: impl Into<Key>) {
        self.change(|entries| entries.keys.insert(key.into(), Access::Denied));
    }

    /// Says nothing of this key any more.
    pub fn remove_key(&self, key: impl Into<Key>) {
        self.change(|entries| entries.keys.remove(&key.into()));
    }

    /// Never limits clients of this network (`10.0.0.0/8`, or one address).
    ///
    /// # Errors
    /// [`InvalidNetwork`] for what is no network.
    pub fn allow_net(&self, net: &str) -> Result<(), InvalidNetwork> {
        let net = parsed(net)?;
        self.change(|entries| entries.nets.insert(net, Access::Allowed));
        Ok(())
    }

    /// Always refuses clients of this network, with 403.
    ///
    /// # Errors
    /// [`InvalidNetwork`] for what is no network.
    pub fn deny_net(&self, net: &str) -> Result<(), InvalidNetwork> {
        let net = parsed(net)?;
        self.change(|entries| entries.nets.insert(net, Access::Denied));
        Ok(())
    }

    /// Says nothing of this network any more.
    ///
    /// # Errors
    /// [`InvalidNetwork`] for what is no network.
    pub fn remove_net(&self, net: &str) -> Result<(), InvalidNetwork> {
        let net = parsed(net)?;
        self.change(|entries| entries.nets.remove(&net));
        Ok(())
    }

    pub(super) fn of(&self, key: &Key) -> Option<Access> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_net = || match key {
            Key::ClientIp(client) => entries.of_address(client.addr()),
            _ => None,
        };
        entries.keys.get(key).copied().or_else(of_net)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Entries) -> T) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Entries {
    fn of_address(&self, address: IpAddr) -> Option<Access> {
        let holding = self.nets.iter().filter(|(net, _)| net.contains(&address));
        let narrowest = holding.max_by_key(|(net, access)| (net.prefix_len(), **access));
        narrowest.map(|(_, access)| *access)
    }
}

fn parsed(net: &str) -> Result<IpNet, InvalidNetwork> {
    let parsed = network(net).map(|net| net.trunc());
    parsed.ok_or_else(|| InvalidNetwork(net.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_decides_and_a_key_before_any_network() {
        let list = AccessList::new();
        list.deny_net("10.0.0.0/8").unwrap();
        list.allow_net("10.1.2.3/16").unwrap();
        list.deny_net("10.1.0.9").unwrap();
        list.allow_key(IpAddr::from([10, 2, 0, 1]));
        list.deny_key("robot");
        let of = |text: &str| list.of(&Key::from(text.parse::<IpAddr>().unwrap()));
        assert_eq!(of("192.0.2.1"), None);
        assert_eq!(of("10.2.0.2"), Some(Access::Denied));
        assert_eq!(of("10.2.0.1"), Some(Access::Allowed));
        assert_eq!(of("10.1.0.8"), Some(Access::Allowed));
        assert_eq!(of("10.1.0.9"), Some(Access::Denied));
        assert_eq!(list.of(&Key::from("robot")), Some(Access::Denied));
        list.remove_net("10.1.0.9/32").unwrap();
        assert_eq!(of("10.1.0.9"), Some(Access::Allowed));
        assert!(list.allow_net("nobody").is_err());
    }
}
