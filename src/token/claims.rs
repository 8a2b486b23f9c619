//! What is signed, and what a signed token must be to count (RFC 7519, RFC 9068, RFC 8725).

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{KeySet, SigningKey, TokenError, VerifyingKey, error::Unsigned, keys::TOKEN_TYPE};
use crate::{
    Identity, Plan, Role, UserId,
    json::{self, Member, Members},
};

/// What all access tokens of a service have in common.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: Box<str>,
    /// At least one.
    pub(super) audiences: Vec<Box<str>>,
    /// In whole seconds, as tokens count.
    pub(super) lifetime: Duration,
    pub(super) leeway: Duration,
    pub(super) subjects: Subjects,
}

/// Which users there can be.
#[derive(Clone)]
pub(super) struct Subjects(pub(super) Arc<dyn Fn(&UserId) -> bool + Send + Sync>);

/// Longer than any token of ours, and short enough to look at.
const LONGEST: usize = 8 * 1024;

/// How far the clock of the server that issued a token may run ahead of ours.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Headers by which a token would choose its own key, or change how it is to be read (RFC 8725,
/// sections 3.1 and 3.10). We know none that `crit` may name (RFC 7515, section 4.1.11).
const REFUSED_HEADERS: [&str; 8] = ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64"];

/// Claims that have a meaning here; the others are the caller's.
const OWN_CLAIMS: [&str; 12] =
    ["iss", "aud", "sub", "role", "plan", "iat", "exp", "nbf", "jti", "sid", "auth_time", "amr"];

impl Rules {
    /// A new access token of a session.
    pub(super) fn sign(
        &self,
        identity: &Identity,
        session: &str,
        key: &SigningKey,
        now: SystemTime,
    ) -> Result<Zeroizing<String>, Unsigned> {
        self.refuse_unsayable(identity)?;
        let claims = Value::Object(self.claims(identity, session, now)).to_string();
        let header = key.verifying_key().header();
        let mut token = Zeroizing::new([header, &BASE64URL.encode(claims)].join("."));
        let signature = key.sign(token.as_bytes()).ok_or(Unsigned::Failed)?;
        // Room at once: growing while it is written would leave copies behind.
        token.reserve(1 + 4 * signature.len().div_ceil(3));
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        if token.len() > LONGEST {
            return Err(Unsigned::Failed);
        }
        Ok(token)
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
        let key = match keys.of_header(header) {
            Some(key) => key,
            None => key_of(&decode_object(header)?, keys)?,
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        if !key.verify(signed.as_bytes(), &decode(signature)?) {
            return Err(TokenError::Invalid("signature"));
        }
        let claims = decode(claims)?;
        let claims = Members::parse(&claims).map_err(|_| TokenError::Invalid("JSON"))?;
        let identity = self.identity(claims, now)?;
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
        // Of most that is all that has to be known.
        let ended = identity.expires_at().filter(|end| *end <= now);
        let past = ended.and_then(|end| now.duration_since(end).ok());
        match past {
            Some(past) if past >= self.leeway => Err(TokenError::Expired),
            _ => Ok(()),
        }
    }

    /// What [`verify`](Self::verify) would refuse is not signed in the first place.
    fn refuse_unsayable(&self, identity: &Identity) -> Result<(), Unsigned> {
        let empty = |text: &str| text.is_empty();
        if empty(identity.user_id().as_str()) || !(self.subjects.0)(identity.user_id()) {
            return Err(Unsigned::Identity("user id"));
        }
        if empty(identity.role().as_str()) {
            return Err(Unsigned::Identity("role"));
        }
        if identity.plan().is_some_and(|plan| empty(plan.as_str())) {
            return Err(Unsigned::Identity("plan"));
        }
        match OWN_CLAIMS.into_iter().find(|own| identity.claims().contains_key(*own)) {
            Some(own) => Err(Unsigned::Identity(own)),
            None => Ok(()),
        }
    }

    fn claims(&self, identity: &Identity, session: &str, now: SystemTime) -> Map<String, Value> {
        let seconds =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let issued_at = seconds(now);
        let mut claims = identity.claims().clone();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("iss", self.issuer.as_ref().into());
        set(
            "aud",
            match &self.audiences[..] {
                [audience] => (**audience).into(),
                several => several.iter().map(|audience| &**audience).collect(),
            },
        );
        set("sub", identity.user_id().as_str().into());
        set("role", identity.role().as_str().into());
        if let Some(plan) = identity.plan() {
            set("plan", plan.as_str().into());
        }
        set("iat", issued_at.into());
        set("exp", (issued_at + self.lifetime.as_secs()).into());
        set("jti", uuid::Uuid::new_v4().to_string().into());
        set("sid", session.into());
        set("auth_time", seconds(identity.auth_time().unwrap_or(now)).into());
        set("amr", identity.amr().iter().map(String::as_str).collect());
        claims
    }

    fn identity(&self, mut claims: Members<'_>, now: SystemTime) -> Result<Identity, TokenError> {
        let not_yet =
            |at: SystemTime, tolerance| at.duration_since(now).is_ok_and(|ahead| ahead > tolerance);
        if take_text(&mut claims, "iss")? != *self.issuer {
            return Err(TokenError::Invalid("iss"));
        }
        let audience = claims.take("aud").and_then(Member::texts).unwrap_or_default();
        if !audience.iter().any(|name| self.audiences.iter().any(|ours| **ours == **name)) {
            return Err(TokenError::Invalid("aud"));
        }

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

        let user_id = UserId::from(&*take_text(&mut claims, "sub")?);
        if !(self.subjects.0)(&user_id) {
            return Err(TokenError::Invalid("sub"));
        }
        let auth_time =
            take_seconds(&mut claims, "auth_time")?.ok_or(TokenError::Invalid("auth_time"))?;
        let amr = claims.take("amr").and_then(Member::list).ok_or(TokenError::Invalid("amr"))?;
        let role = Role::from(&*take_text(&mut claims, "role")?);
        let mut identity = Identity::new(user_id, role)
            .with_session_id(take_text(&mut claims, "sid")?)
            .with_token_id(take_text(&mut claims, "jti")?)
            .with_auth_time(instant(auth_time, "auth_time")?)
            .with_amr(amr)
            .with_issued_at(instant(issued_at, "iat")?)
            .with_expires_at(instant(expires_at, "exp")?);
        if let Some(plan) = claims.take("plan") {
            identity = identity.with_plan(Plan::from(&*text(plan, "plan")?));
        }
        let further = claims.into_values().map_err(|_| TokenError::Invalid("JSON"))?;
        Ok(identity.with_claims(further))
    }
}

impl Default for Subjects {
    fn default() -> Self {
        Self(Arc::new(|_| true))
    }
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subjects")
    }
}

/// A token of another issuer, taken apart: nothing of it is believed yet.
pub(super) struct Parts<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Vec<u8>,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Of a token of so many bytes at most.
    pub(super) fn read(token: &'a [u8], longest: usize) -> Result<Self, TokenError> {
        if token.len() > longest {
            return Err(TokenError::Invalid("too long"));
        }
        let text = std::str::from_utf8(token).map_err(|_| TokenError::Invalid("not text"))?;
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Invalid("not three parts"));
        };
        Ok(Self {
            header: decode_object(header)?,
            claims: decode(claims)?,
            signed: &token[..header.len() + 1 + claims.len()],
            signature: decode(signature)?,
        })
    }

    /// A member of the header that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    /// The key that the header names, if it names one.
    pub(super) fn key_id(&self) -> Result<Option<&str>, TokenError> {
        match self.header.get("kid") {
            None => Ok(None),
            Some(Value::String(id)) => Ok(Some(id)),
            Some(_) => Err(TokenError::Invalid("kid")),
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
    if !matches!(text("typ"), Some(TOKEN_TYPE | "application/at+jwt")) {
        return Err(TokenError::Invalid("typ"));
    }
    let key = text("kid").and_then(|id| keys.find(id)).ok_or(TokenError::Invalid("kid"))?;
    if text("alg") != Some(key.algorithm().name()) {
        return Err(TokenError::Invalid("alg"));
    }
    Ok(key)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    // Not `decode`, whose zeroed vector comes from `calloc`: it takes a slower way than `malloc`, and
    // leaves a slower one to the arithmetic of the signature.
    let mut decoded = Vec::with_capacity(part.len());
    match BASE64URL.decode_vec(part, &mut decoded) {
        Ok(()) => Ok(decoded),
        Err(_) => Err(TokenError::Invalid("base64url")),
    }
}

fn decode_object(part: &str) -> Result<Map<String, Value>, TokenError> {
    match json::parse(&decode(part)?) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(TokenError::Invalid("JSON")),
    }
}

/// A claim that must be text, and not empty.
fn take_text<'a>(claims: &mut Members<'a>, name: &'static str) -> Result<Cow<'a, str>, TokenError> {
    text(claims.take(name).ok_or(TokenError::Invalid(name))?, name)
}

fn text<'a>(claim: Member<'a>, name: &'static str) -> Result<Cow<'a, str>, TokenError> {
    claim.text().filter(|text| !text.is_empty()).ok_or(TokenError::Invalid(name))
}

/// A claim that, if it is there, must be a whole number of seconds since 1970.
pub(super) fn take_seconds(
    claims: &mut Members<'_>,
    name: &'static str,
) -> Result<Option<u64>, TokenError> {
    match claims.take(name) {
        None => Ok(None),
        Some(value) => value.whole().map(Some).ok_or(TokenError::Invalid(name)),
    }
}

pub(super) fn instant(seconds: u64, name: &'static str) -> Result<SystemTime, TokenError> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(TokenError::Invalid(name))
}

#[cfg(test)]
mod tests;
