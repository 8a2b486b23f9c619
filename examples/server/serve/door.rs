//! Who comes in: so many connections, and so many of one client.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tower_warden::{ClientIp, TrustedProxies};

use super::Bounds;

/// Counts those that are inside.
#[derive(Clone, Debug)]
pub struct Door {
    inside: Arc<Mutex<Inside>>,
    most: usize,
    most_of_one: usize,
    proxies: TrustedProxies,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    of: HashMap<ClientIp, usize>,
}

/// A place inside, until it is dropped.
#[derive(Debug)]
pub struct Place {
    inside: Arc<Mutex<Inside>>,
    client: Option<ClientIp>,
}

impl Door {
    pub fn new(bounds: &Bounds) -> Self {
        let unbound = |most| if most == 0 { usize::MAX } else { most };
        Self {
            inside: Arc::default(),
            most: unbound(bounds.connections),
            most_of_one: unbound(bounds.per_ip),
            proxies: bounds.proxies.clone(),
        }
    }

    /// A place for this peer, if there is one.
    pub fn enter(&self, peer: IpAddr) -> Option<Place> {
        let client = (!self.proxies.is_trusted(peer)).then(|| ClientIp::from(peer));
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = client.and_then(|client| inside.of.get(&client)).copied().unwrap_or(0);
        if inside.all >= self.most || of_client >= self.most_of_one {
            return None;
        }
        inside.all += 1;
        if let Some(client) = client {
            inside.of.insert(client, of_client + 1);
        }
        Some(Place { inside: Arc::clone(&self.inside), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        let Some(client) = self.client else { return };
        match inside.of.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(inside.of.remove(&client)),
        }
    }
}
