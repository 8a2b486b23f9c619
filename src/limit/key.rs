//! Whom a limiter counts.

use std::{net::IpAddr, sync::Arc};

use crate::{ClientIp, UserId};

/// Whom a limiter counts.
///
/// Cheap to clone. The text of it may come from a client: a store that joins it to other text
/// (Redis) escapes or hashes it.
///
/// ```
/// use tower_warden::Key;
/// let (address, tenant) = (std::net::IpAddr::from([203, 0, 113, 9]), 42_u64);
/// let keys = [Key::from(address), Key::from(tenant), Key::from("text"), Key::from(String::from("owned"))];
/// assert_ne!(Key::from(42_u64), Key::from("42"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// A client's address.
    ClientIp(ClientIp),
    /// A user.
    User(UserId),
    /// A number, such as that of a tenant's row.
    Number(u64),
    /// Anything else.
    Text(Arc<str>),
}

impl From<ClientIp> for Key {
    #[inline]
    fn from(ip: ClientIp) -> Self {
        Self::ClientIp(ip)
    }
}

/// As clients are counted: IPv6 by its /64, see [`ClientIp`].
impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        Self::ClientIp(address.into())
    }
}

impl From<&UserId> for Key {
    fn from(id: &UserId) -> Self {
        Self::User(id.clone())
    }
}

impl From<UserId> for Key {
    fn from(id: UserId) -> Self {
        Self::User(id)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Key {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Key {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Of the same 64 bits: as ids come from databases.
impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::Number(number.cast_unsigned())
    }
}

/// As an [`i64`] of the same value.
impl From<i32> for Key {
    fn from(number: i32) -> Self {
        i64::from(number).into()
    }
}
