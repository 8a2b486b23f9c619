//! What is signed, and what a signed token must be to count (RFC 7519, RFC 9068, RFC 8725).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{KeySet, SigningKey, TokenError, VerifyingKey};
use crate::{Identity, Plan, Role, UserId, json};

/// What all access tokens of a service have in common.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: Box<str>,
    pub(super) audience: Box<str>,
    /// In whole seconds, as tokens count.
    pub(super) lifetime: Duration,
    pub(super) leeway: Duration,
}

/// Longer than any token of ours, and short enough to look at.
const LONGEST: usize = 8 * 1024;

/// How far the clock of the server that issued a token may run ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// RFC 9068, section 2.1.
const TYPE: &str = "at+jwt";

/// Headers by which a token would choose its own key, or change how it is to be read (RFC 8725,
/// sections 3.1 and 3.10). We know none that `crit` may name (RFC 7515, section 4.1.11).
const REFUSED_HEADERS: [&str; 8] = ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64"];

/// Claims that have a meaning here; the others are the caller's.
const OWN_CLAIMS: [&str; 9] = ["iss", "aud", "sub", "role", "plan", "iat", "exp", "nbf", "jti"];

impl Rules {
    /// A new access token; `None` where the key didn't sign, or further claims make it too long.
    pub(super) fn sign(
        &self,
        identity: &Identity,
        key: &SigningKey,
        now: SystemTime,
    ) -> Option<Zeroizing<String>> {
        let verifying = key.verifying_key();
        let header = json!({
            "alg": verifying.algorithm(),
            "typ": TYPE,
            "kid": verifying.key_id(),
        });
        let claims = Value::Object(self.claims(identity, now));
        let mut token = Zeroizing::new(encode(&header) + "." + &encode(&claims));
        let signature = key.sign(token.as_bytes())?;
        // Room at once: growing while it is written would leave copies behind.
        token.reserve(1 + 4 * signature.len().div_ceil(3));
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        (token.len() <= LONGEST).then_some(token)
    }

    /// Who the caller is, if the token is one of ours and its time is now.
    pub(super) fn verify(
        &self,
        token: &str,
        keys: &KeySet,
        now: SystemTime,
    ) -> Result<Identity, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Invalid("too long"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Invalid("not three parts"));
        };
        let key = key_of(&decode_object(header)?, keys)?;
        let signed = &token[..header.len() + 1 + claims.len()];
        if !key.verify(signed.as_bytes(), &decode(signature)?) {
            return Err(TokenError::Invalid("signature"));
        }
        let identity = self.identity(decode_object(claims)?, now)?;
        // Last of all, so that only what is genuine in every other respect is told to be expired.
        self.refuse_expired(&identity, now)?;
        Ok(identity)
    }

    /// The one question that is asked again of a token that was verified before.
    pub(super) fn refuse_expired(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let past = identity.expires_at().and_then(|end| now.duration_since(end).ok());
        match past {
            Some(past) if past >= self.leeway => Err(TokenError::Expired),
            _ => Ok(()),
        }
    }

    fn claims(&self, identity: &Identity, now: SystemTime) -> Map<String, Value> {
        let issued_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = identity.claims().clone();
        for own in OWN_CLAIMS {
            claims.remove(own);
        }
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("iss", self.issuer.as_ref().into());
        set("aud", self.audience.as_ref().into());
        set("sub", identity.user_id().as_str().into());
        set("role", identity.role().as_str().into());
        if let Some(plan) = identity.plan() {
            set("plan", plan.as_str().into());
        }
        set("iat", issued_at.into());
        set("exp", (issued_at + self.lifetime.as_secs()).into());
        set("jti", uuid::Uuid::new_v4().to_string().into());
        claims
    }

    fn identity(
        &self,
        mut claims: Map<String, Value>,
        now: SystemTime,
    ) -> Result<Identity, TokenError> {
        let not_yet =
            |at: SystemTime, tolerance| at.duration_since(now).is_ok_and(|ahead| ahead > tolerance);
        if take_text(&mut claims, "iss")? != *self.issuer {
            return Err(TokenError::Invalid("iss"));
        }
        self.check_audience(&mut claims)?;

        let issued_at = take_seconds(&mut claims, "iat")?.ok_or(TokenError::Invalid("iat"))?;
        let expires_at = take_seconds(&mut claims, "exp")?.ok_or(TokenError::Invalid("exp"))?;
        let lifetime = expires_at.saturating_sub(issued_at);
        if lifetime == 0 || lifetime > self.lifetime.as_secs() {
            return Err(TokenError::Invalid("lifetime"));
        }
        if not_yet(instant(issued_at, "iat")?, CLOCK_SKEW) {
            return Err(TokenError::Invalid("iat"));
        }
        let not_before = take_seconds(&mut claims, "nbf")?.unwrap_or_default();
        if not_yet(instant(not_before, "nbf")?, self.leeway) {
            return Err(TokenError::Invalid("nbf"));
        }

        let user_id = UserId::from(take_text(&mut claims, "sub")?);
        let role = Role::from(take_text(&mut claims, "role")?.as_str());
        let mut identity = Identity::new(user_id, role)
            .with_token_id(take_text(&mut claims, "jti")?)
            .with_expires_at(instant(expires_at, "exp")?);
        if claims.contains_key("plan") {
            identity = identity.with_plan(Plan::from(take_text(&mut claims, "plan")?.as_str()));
        }
        Ok(identity.with_claims(claims))
    }

    fn check_audience(&self, claims: &mut Map<String, Value>) -> Result<(), TokenError> {
        let ours = |value: &Value| value.as_str() == Some(&self.audience);
        match claims.remove("aud") {
            Some(Value::Array(all)) if all.iter().all(Value::is_string) && all.iter().any(ours) => {
                Ok(())
            }
            Some(one) if ours(&one) => Ok(()),
            _ => Err(TokenError::Invalid("aud")),
        }
    }
}

/// The key that the header names; the algorithm must be the key's.
fn key_of<'a>(
    header: &Map<String, Value>,
    keys: &'a KeySet,
) -> Result<&'a VerifyingKey, TokenError> {
    let text = |name| header.get(name).and_then(Value::as_str);
    if REFUSED_HEADERS.iter().any(|name| header.contains_key(*name)) {
        return Err(TokenError::Invalid("refused header"));
    }
    if !matches!(text("typ"), Some(TYPE | "application/at+jwt")) {
        return Err(TokenError::Invalid("typ"));
    }
    let key = text("kid").and_then(|id| keys.find(id)).ok_or(TokenError::Invalid("kid"))?;
    if text("alg") != Some(key.algorithm()) {
        return Err(TokenError::Invalid("alg"));
    }
    Ok(key)
}

fn encode(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL.decode(part).map_err(|_| TokenError::Invalid("base64url"))
}

fn decode_object(part: &str) -> Result<Map<String, Value>, TokenError> {
    match json::parse(&decode(part)?) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(TokenError::Invalid("JSON")),
    }
}

/// A claim that must be text, and not empty.
fn take_text(claims: &mut Map<String, Value>, name: &'static str) -> Result<String, TokenError> {
    match claims.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(TokenError::Invalid(name)),
    }
}

/// A claim that, if it is there, must be a whole number of seconds since 1970.
fn take_seconds(
    claims: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<u64>, TokenError> {
    match claims.remove(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(TokenError::Invalid(name)),
    }
}

fn instant(seconds: u64, name: &'static str) -> Result<SystemTime, TokenError> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(TokenError::Invalid(name))
}

#[cfg(test)]
mod tests;
