//! One issuer, many tenants: each token's `iss` is made of a pattern and the token's own tenant.

use serde_json::{Map, Value};

use super::super::TokenError;

/// In a pattern, what the tenant stands for: as the documents of Entra have it.
const PLACE: &str = "{tenantid}";
const CLAIM: &str = "tid";
const LONGEST: usize = 64;

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub(super) struct Tenants {
    /// `None`: anybody's.
    these: Option<Vec<Box<str>>>,
}

/// Whether a name is one that a tenant goes into.
pub(super) fn is_pattern(name: &str) -> bool {
    name.matches(PLACE).count() == 1
}

/// Nothing that could be more than one segment of a path, or be taken for another.
fn is_tenant(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(plain)
}

impl Tenants {
    pub(super) fn any() -> Self {
        Self { these: None }
    }

    pub(super) fn these(tenants: impl Iterator<Item = String>) -> Self {
        let checked = |tenant: String| {
            assert!(is_tenant(&tenant), "{tenant:?}: a tenant is made of letters, digits and -");
            tenant.into()
        };
        Self { these: Some(tenants.map(checked).collect()) }
    }

    /// The tenant of a token of this issuer, if it is one of these and the token says the same of it
    /// wherever it says so.
    pub(super) fn of_token<'a>(
        &self,
        pattern: &str,
        issuer: Option<&str>,
        claims: &'a Map<String, Value>,
        key_of: Option<&str>,
    ) -> Result<&'a str, TokenError> {
        let tenant = claims.get(CLAIM).and_then(Value::as_str).filter(|tenant| is_tenant(tenant));
        let known = |tenant: &&str| {
            self.these.as_ref().is_none_or(|these| these.iter().any(|ours| **ours == **tenant))
        };
        let tenant = tenant.filter(known).ok_or(TokenError::Invalid("tid"))?;
        let name = pattern.replace(PLACE, tenant);
        if issuer != Some(&name) {
            return Err(TokenError::Invalid("iss"));
        }
        // "The key's issuer": a key of one tenant alone must not sign for another.
        match key_of.is_none_or(|key_of| key_of.replace(PLACE, tenant) == name) {
            true => Ok(tenant),
            false => Err(TokenError::Invalid("issuer of the key")),
        }
    }
}
