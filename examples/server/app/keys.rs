//! API keys: how machines come in. People make and revoke them; keys never do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Json as Answered, Router,
    extract::State,
    response::IntoResponse,
    routing::{delete, get, post},
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tower_warden::{
    ApiKeyService, Identity, Problem, Require, Role,
    api_key::{ApiKey, ApiKeyId, ApiKeySecret, KeyRequest},
};

use super::{
    App,
    body::{Draft, FromMembers, Members},
    error::{Answer, method_not_allowed},
    projects::{ThingId, no_method_of_a_thing},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/auth/keys", post(create).merge(get(list)).fallback(method_not_allowed))
        .route("/auth/keys/{id}", delete(revoke).fallback(no_method_of_a_thing))
}

/// Lets people pass, and no keys: for all that changes or shows an account.
pub fn in_person() -> Require {
    Require::that(|caller| ApiKeyId::of(caller).is_none())
}

async fn create(
    State(keys): State<ApiKeyService>,
    caller: Identity,
    mut draft: Draft<NewKey>,
) -> Answer<impl IntoResponse> {
    if let Some(new) = &draft.0 {
        draft.1.key(&keys.objections(&caller, new.role.as_ref(), new.expires_at));
    }
    let NewKey { name, role, expires_at } = draft.done()?;
    let mut request = KeyRequest::new(name);
    (request.role, request.expires_at) = (role, expires_at);
    let (key, secret) = keys.create(&caller, request).await?;
    Ok((StatusCode::CREATED, Answered(KeyView::new(key, Some(secret)))))
}

async fn list(State(keys): State<ApiKeyService>, caller: Identity) -> Answer<Answered<KeysView>> {
    let keys = keys.list(caller.user_id()).await?;
    let keys = keys.into_iter().map(|key| KeyView::new(key, None)).collect();
    Ok(Answered(KeysView { keys }))
}

async fn revoke(
    State(keys): State<ApiKeyService>,
    caller: Identity,
    ThingId(id): ThingId,
) -> Answer<StatusCode> {
    match keys.revoke(caller.user_id(), &ApiKeyId::from(id)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

/// A key as the API shows it.
#[derive(Serialize)]
struct KeyView {
    id: String,
    name: String,
    prefix: String,
    role: String,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    /// This once.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Serialize)]
struct KeysView {
    keys: Vec<KeyView>,
}

impl KeyView {
    fn new(key: ApiKey, secret: Option<ApiKeySecret>) -> Self {
        let time = |time| humantime::format_rfc3339_micros(time).to_string();
        Self {
            id: key.id.to_string(),
            name: key.name,
            prefix: key.prefix,
            role: key.role.to_string(),
            created_at: time(key.created_at),
            expires_at: key.expires_at.map(time),
            last_used_at: key.last_used_at.map(time),
            key: secret.map(|secret| secret.expose().to_owned()),
        }
    }
}

struct NewKey {
    /// Empty where something was found wrong with it.
    name: String,
    role: Option<Role>,
    expires_at: Option<SystemTime>,
}

impl FromMembers for NewKey {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self {
            name: members.name().unwrap_or_default(),
            role: members.optional("role").and_then(|role| members.role(&role)),
            expires_at: members.optional("expires_at").and_then(|end| instant(members, end)),
        })
    }
}

/// A moment in the form of RFC 3339.
fn instant(members: &mut Members, value: Value) -> Option<SystemTime> {
    let Value::String(text) = value else {
        members.errors().add("expires_at", "invalid_type", "must be a string");
        return None;
    };
    let time = rfc3339(&text);
    if time.is_none() {
        let detail = "must be a time such as 2030-01-31T12:00:00Z";
        members.errors().add("expires_at", "invalid_time", detail);
    }
    time
}

/// Reads what `humantime` does, and offsets other than `Z` as well. Years end with 9999.
fn rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.to_ascii_uppercase();
    if let Some(local) = text.strip_suffix('Z') {
        return utc(local);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let digits = |text: &str, below: u64| {
        let two = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        two.then(|| text.parse().ok()).flatten().filter(|number: &u64| *number < below)
    };
    let offset = Duration::from_secs(digits(hours, 24)? * 3600 + digits(minutes, 60)? * 60);
    let local = utc(local)?;
    match sign {
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
    .filter(|time| *time < UNIX_EPOCH + Duration::from_secs(253_402_300_800))
}

fn utc(local: &str) -> Option<SystemTime> {
    let has_t = local.as_bytes().get(10) == Some(&b'T');
    has_t.then(|| humantime::parse_rfc3339(&format!("{local}Z")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_any_offset() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_896_091_200);
        for text in [
            "2030-01-31T12:00:00Z",
            "2030-01-31t12:00:00z",
            "2030-01-31T12:00:00.000Z",
            "2030-01-31T13:30:00+01:30",
            "2030-01-31T00:00:00-12:00",
        ] {
            assert_eq!(rfc3339(text), Some(noon), "{text}");
        }
        for text in [
            "",
            "Z",
            "2030-01-31",
            "2030-01-31T12:00:00",
            "2030-01-31 12:00:00Z",
            "2030-13-31T12:00:00Z",
            "2030-02-31T12:00:00Z",
            "2030-01-31T12:00:00+1:00",
            "2030-01-31T12:00:00+24:00",
            "9999-12-31T23:59:59-01:00",
            "1896091200",
            "é-01-31T12:00:00+01:00",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
