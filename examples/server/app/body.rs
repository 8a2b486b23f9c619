//! Request bodies: read within bounds, as strict JSON, and checked member by member, so that all
//! that is wrong is said at once.

use std::error::Error;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json as value};
use tower_warden::{
    Problem, Role,
    api_key::KeyObjection,
    user::{Email, InvalidEmail, Violation},
};

use super::{error::invalid_request, strict_json};

/// The largest body, in bytes.
const LARGEST: usize = 64 * 1024;
/// So many members without a meaning are named, so that the answer is no larger than the question.
const NAMED: usize = 8;

/// Why a body ended that took too long. Whoever reads the connection says so.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body took too long")]
pub struct SlowBody;

/// A body that was read as a `T`.
pub struct Json<T>(pub T);

/// A body of which a handler says what else is wrong before it is refused. `None` only where
/// something was found wrong.
pub struct Draft<T>(pub Option<T>, pub FieldErrors);

/// What can be read from the members of a JSON object.
pub trait FromMembers: Sized {
    /// Takes what it knows; notes what is wrong. `None` only where something was noted.
    fn from_members(members: &mut Members) -> Option<Self>;
}

impl<S: Sync, T: FromMembers> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Draft::from_request(request, state).await?.done().map(Self)
    }
}

impl<T> Draft<T> {
    /// Whether something was found wrong.
    pub fn is_refused(&self) -> bool {
        self.0.is_none() || !self.1.0.is_empty()
    }

    /// What was read, if nothing is wrong with it.
    pub fn done(self) -> Result<T, Problem> {
        match self {
            Self(Some(read), errors) if errors.0.is_empty() => Ok(read),
            Self(_, errors) => Err(errors.into()),
        }
    }
}

impl<S: Sync, T: FromMembers> FromRequest<S> for Draft<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, body).await?;
        if !is_of_type(&head.headers, "application/json") {
            return Err(unsupported_media_type());
        }
        let body = strict_json::parse(&bytes).map_err(|error| match error {
            strict_json::JsonError::DuplicateMember => invalid_request("A member is named twice"),
            _ => invalid_request("Malformed JSON"),
        })?;
        let Value::Object(members) = body else {
            let mut errors = FieldErrors::default();
            errors.add("", "invalid_type", "must be a JSON object");
            return Ok(Self(None, errors));
        };
        let mut members = Members { members, errors: FieldErrors::default() };
        let read = T::from_members(&mut members);
        for _ in members.members.keys().take(NAMED) {
            members.errors.add("", "unknown_field", "a member has no meaning here");
        }
        Ok(Self(read, members.errors))
    }
}

/// A form that was sent: names and values.
pub struct Form(pub Vec<(String, String)>);

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, body).await?;
        if !Self::is_sent(&head.headers) {
            return Err(unsupported_media_type());
        }
        Ok(Self(url::form_urlencoded::parse(&bytes).into_owned().collect()))
    }
}

impl Form {
    pub fn is_sent(headers: &HeaderMap) -> bool {
        is_of_type(headers, "application/x-www-form-urlencoded")
    }
}

async fn read(headers: &HeaderMap, mut body: Body) -> Result<Vec<u8>, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse().ok()).unwrap_or(0_usize);
    if announced > LARGEST {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| not_whole(&error))?.into_data() else { continue };
        if bytes.len() + data.len() > LARGEST {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn too_large() -> Problem {
    let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
    Problem::new(status, code, "Payload too large")
}

/// Too slow, or ended before its end.
fn not_whole(error: &(dyn Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    if !causes.any(|error| error.is::<SlowBody>()) {
        return invalid_request("The body ended early");
    }
    let (status, code) = (StatusCode::REQUEST_TIMEOUT, "request_timeout");
    Problem::new(status, code, "Request timeout")
        .with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

fn unsupported_media_type() -> Problem {
    let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    Problem::new(status, code, "Unsupported media type")
}

fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or("").trim();
    essence.eq_ignore_ascii_case(expected)
}

/// The members of a JSON object, and what was found wrong with them.
pub struct Members {
    members: Map<String, Value>,
    errors: FieldErrors,
}

impl Members {
    /// A member that must be a string.
    pub fn text(&mut self, field: &'static str) -> Option<String> {
        match self.members.remove(field) {
            Some(Value::String(text)) => return Some(text),
            Some(_) => self.errors.add(field, "invalid_type", "must be a string"),
            None => self.errors.required(field),
        }
        None
    }

    /// A member that may be missing, or `null`.
    pub fn optional(&mut self, field: &'static str) -> Option<Value> {
        self.members.remove(field)
    }

    /// A member that may be missing, and must be a string where it is there.
    pub fn optional_text(&mut self, field: &'static str) -> Option<Option<String>> {
        match self.members.contains_key(field) {
            true => self.text(field).map(Some),
            false => Some(None),
        }
    }

    /// A member that must be an e-mail address.
    pub fn email(&mut self, field: &'static str) -> Option<Email> {
        let email = Email::parse(&self.text(field)?);
        if let Err(InvalidEmail) = email {
            self.errors.add(field, "invalid_email", "is not an e-mail address");
        }
        email.ok()
    }

    /// The member `name` of whatever has one.
    pub fn name(&mut self) -> Option<String> {
        let name = self.text("name")?.trim().to_owned();
        if name.is_empty() {
            self.errors.add("name", "too_short", "must have at least 1 character");
        }
        if name.chars().count() > 200 {
            self.errors.add("name", "too_long", "must have at most 200 characters");
        }
        if name.contains('\0') {
            self.errors.add("name", "contains_nul", "must not have a NUL character");
        }
        Some(name)
    }

    /// A value that must be a role.
    pub fn role(&mut self, value: &Value) -> Option<Role> {
        let roles = [Role::VIEWER, Role::EDITOR, Role::ADMIN];
        let role = roles.into_iter().find(|role| value == role.as_str());
        if role.is_none() {
            self.errors.add("role", "invalid_value", "must be viewer, editor or admin");
        }
        role
    }

    /// What is wrong, to add to.
    pub fn errors(&mut self) -> &mut FieldErrors {
        &mut self.errors
    }
}

/// What is wrong with the members of a body.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<(&'static str, &'static str, String)>);

impl FieldErrors {
    /// Notes what is wrong with a field of the API's own; `""` stands for the body itself, and for
    /// members that have no meaning.
    pub fn add(&mut self, field: &'static str, code: &'static str, detail: impl Into<String>) {
        self.0.push((field, code, detail.into()));
    }

    /// Notes that a field is missing.
    pub fn required(&mut self, field: &'static str) {
        self.add(field, "required", "is missing");
    }

    /// Notes what is wrong with a key that is wanted.
    pub fn key(&mut self, objections: &[KeyObjection]) {
        for objection in objections {
            let (field, code) = objection.code();
            self.add(field, code, objection.to_string());
        }
    }

    /// Notes what is wrong with a new password.
    pub fn password(&mut self, violations: &[Violation]) {
        for violation in violations {
            self.add("password", violation.code(), violation.to_string());
        }
    }
}

impl From<FieldErrors> for Problem {
    fn from(FieldErrors(errors): FieldErrors) -> Self {
        let sentence = |(field, _, detail): &(&str, _, String)| match *field {
            "" => format!("body: {detail}"),
            field => format!("{field}: {detail}"),
        };
        let detail: Vec<_> = errors.iter().map(sentence).collect();
        let errors: Vec<_> = errors
            .iter()
            .map(|(field, code, detail)| value!({"field": field, "code": code, "detail": detail}))
            .collect();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", detail.join("; "))
            .with_member("errors", errors)
    }
}
