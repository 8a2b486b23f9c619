//! What the server answers, and the forms that hold for all of it.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use crate::description;

/// A response, read to its end, whose form was checked.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the two lists of the rate limit headers say of one limiter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limiter {
    pub(crate) name: String,
    pub(crate) limit: u64,
    pub(crate) window: u64,
    pub(crate) remaining: u64,
    pub(crate) until_more: u64,
}

/// The contract's table of errors: status, `code`, and the sentence, where it never differs.
const ERRORS: &[(u16, &str, Option<&str>)] = &[
    (400, "invalid_request", None),
    (400, "invalid_verification_token", Some("Invalid or expired verification token")),
    (400, "invalid_reset_token", Some("Invalid or expired reset token")),
    (400, "invalid_email_token", Some("Invalid or expired email token")),
    (401, "authentication_required", Some("Authentication required")),
    (401, "token_expired", Some("Token expired")),
    (401, "token_revoked", Some("Token revoked")),
    (401, "invalid_code", Some("Invalid code")),
    (401, "invalid_token", Some("Invalid token")),
    (401, "invalid_credentials", Some("Invalid email or password")),
    (401, "invalid_refresh_token", Some("Invalid refresh token")),
    (403, "account_suspended", Some("Account suspended")),
    (403, "wrong_password", Some("Wrong password")),
    (403, "email_not_verified", Some("Email not verified")),
    (403, "second_factor_required", Some("Second factor required")),
    (403, "wrong_password", Some("Wrong password")),
    (403, "wrong_code", Some("Wrong code")),
    (403, "insufficient_permissions", Some("Insufficient permissions")),
    (404, "not_found", Some("Not found")),
    (405, "method_not_allowed", Some("Method not allowed")),
    (408, "request_timeout", Some("Request timeout")),
    (409, "email_taken", Some("Email already registered")),
    (409, "last_admin", Some("The last admin must stay")),
    (409, "too_many_keys", Some("Too many API keys")),
    (409, "totp_enabled", Some("Second factor already on")),
    (409, "totp_not_pending", Some("No second factor pending")),
    (413, "payload_too_large", Some("Payload too large")),
    (414, "uri_too_long", Some("URI too long")),
    (415, "unsupported_media_type", Some("Unsupported media type")),
    (422, "validation_failed", None),
    (429, "rate_limited", None),
    (429, "too_many_login_attempts", None),
    (431, "headers_too_large", Some("Request header fields too large")),
    (500, "internal", Some("Internal server error")),
    (503, "unavailable", Some("Service unavailable")),
];

impl Reply {
    /// Reads a response to this request, and checks all that holds for every response.
    pub(crate) fn new(
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        method: &Method,
        path: &str,
    ) -> Self {
        let reply = Self { status, headers, body };
        let to_head = method == Method::HEAD;
        let text = String::from_utf8_lossy(&reply.body);
        let tells = text.contains("$2b$") || (!reply.is_text() && text.contains("hash"));
        assert!(!tells, "a hash is sent: {text}");
        if path.starts_with("/auth/") {
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
        }
        if to_head {
            assert!(reply.body.is_empty(), "{reply:?}");
        }
        let is_page =
            reply.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        if status.as_u16() >= 400 && !is_page {
            reply.check_problem(to_head);
        }
        reply.check_limits();
        reply.check_hardening();
        description::check(&reply, method, path);
        reply
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is_text(&self) -> bool {
        let kind = self.header("content-type").unwrap_or_default();
        kind.starts_with("text/plain") || kind.starts_with("text/javascript")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A member of the JSON that is text.
    pub(crate) fn text(&self, member: &str) -> String {
        let json = self.json();
        json[member].as_str().unwrap_or_else(|| panic!("no {member}: {self:?}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Status and `code` of an error.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, &'static str) {
        let (status, code, _) = self.table_row();
        (status, code)
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.error(), (status, code), "{reply:?}");
        reply
    }

    /// All that a 422 finds wrong, each as `field: code`.
    #[track_caller]
    pub(crate) fn field_errors(self) -> Vec<String> {
        let json = self.refused(422, "validation_failed").json();
        let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
        let errors = json["errors"].as_array().unwrap().iter();
        errors.map(|error| format!("{}: {}", text(error, "field"), text(error, "code"))).collect()
    }

    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`; `None` where a response has none of these.
    pub(crate) fn limit(&self) -> Option<[u64; 3]> {
        let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
        let values = names.map(|name| self.number(name));
        values[0].map(|_| values.map(Option::unwrap))
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.limit().unwrap()[1]
    }

    pub(crate) fn retry_after(&self) -> u64 {
        self.number("retry-after").unwrap()
    }

    /// All that applied, as the lists tell.
    pub(crate) fn limiters(&self) -> Vec<Limiter> {
        let list = |name| self.header(name).unwrap_or("").split(", ");
        list("ratelimit-policy")
            .zip(list("ratelimit"))
            .filter(|(policy, _)| !policy.is_empty())
            .map(|(policy, limit)| {
                let ((name, [limit_of, window]), (same, [remaining, until_more])) =
                    (list_member(policy, ["q", "w"]), list_member(limit, ["r", "t"]));
                assert_eq!(name, same, "{self:?}");
                Limiter { name, limit: limit_of, window, remaining, until_more }
            })
            .collect()
    }

    pub(crate) fn limiter(&self, name: &str) -> Limiter {
        let named = self.limiters().into_iter().find(|limiter| limiter.name == name);
        named.unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    pub(crate) fn limiter_names(&self) -> Vec<String> {
        self.limiters().into_iter().map(|limiter| limiter.name).collect()
    }

    /// The common form of all errors (RFC 9457), and what each `code` demands beside it.
    fn check_problem(&self, to_head: bool) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        assert!(self.code() != 401 || self.header("www-authenticate").is_some(), "{self:?}");
        if to_head {
            return;
        }
        let Value::Object(problem) = self.json() else { panic!("no object: {self:?}") };
        assert_eq!(problem["status"], self.code(), "{self:?}");
        assert_eq!(problem["title"].as_str(), self.status.canonical_reason(), "{self:?}");
        let text =
            |name: &str| problem[name].as_str().unwrap_or_else(|| panic!("{name}: {self:?}"));
        let ((_, code, sentence), detail) = (self.table_row(), text("detail"));
        assert_eq!(detail, sentence.unwrap_or(detail), "{self:?}");
        self.check_challenge(code);

        let quota_exceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded";
        let (kind, more) = match self.code() {
            403 if code == "second_factor_required" => ("about:blank", Some("login_token")),
            422 => ("about:blank", Some("errors")),
            429 => (quota_exceeded, Some("violated-policies")),
            _ => ("about:blank", None),
        };
        assert_eq!(text("type"), kind, "{self:?}");
        let mut members = vec!["type", "title", "status", "detail", "code"];
        members.extend(more);
        assert_members(&problem, &members);

        match self.code() {
            405 => assert!(self.header("allow").is_some_and(|allow| !allow.is_empty())),
            422 => check_field_errors(&problem["errors"]),
            429 => self.check_refusal(code, detail, &problem["violated-policies"]),
            503 => assert!(self.retry_after() >= 1, "{self:?}"),
            _ => {}
        }
    }

    #[track_caller]
    fn table_row(&self) -> (u16, &'static str, Option<&'static str>) {
        let code = self.text("code");
        let row = ERRORS.iter().copied().find(|row| (row.0, row.1) == (self.code(), &*code));
        row.unwrap_or_else(|| panic!("not in the table: {self:?}"))
    }

    /// RFC 6750, section 3.
    fn check_challenge(&self, code: &str) {
        let challenge = match code {
            "authentication_required"
            | "invalid_credentials"
            | "invalid_refresh_token"
            | "invalid_code" => Some(r#"Bearer realm="api""#),
            "invalid_token" => Some(r#"Bearer realm="api", error="invalid_token""#),
            "token_expired" => Some(
                r#"Bearer realm="api", error="invalid_token", error_description="Token expired""#,
            ),
            "token_revoked" => Some(
                r#"Bearer realm="api", error="invalid_token", error_description="Token revoked""#,
            ),
            "insufficient_permissions" => Some(r#"Bearer realm="api", error="insufficient_scope""#),
            _ => None,
        };
        assert_eq!(self.header("www-authenticate"), challenge, "{self:?}");
    }

    /// A 429 names who refused, and its sentence says what `Retry-After` says.
    fn check_refusal(&self, code: &str, detail: &str, violated: &Value) {
        let wait = self.retry_after();
        let sentence = match (code, wait, wait.div_ceil(60)) {
            ("rate_limited", 1, _) => "Too many requests. Try again in 1 second.".to_owned(),
            ("rate_limited", n, _) => format!("Too many requests. Try again in {n} seconds."),
            (_, _, 1) => "Too many login attempts. Try again in 1 minute.".to_owned(),
            (_, _, n) => format!("Too many login attempts. Try again in {n} minutes."),
        };
        assert_eq!(detail, sentence);
        assert!(wait >= 1, "{self:?}");
        let names: Vec<String> = serde_json::from_value(violated.clone()).unwrap();
        let limiters = self.limiters();
        assert!(!names.is_empty());
        for name in names {
            let limiter = limiters.iter().find(|limiter| limiter.name == name).unwrap();
            assert!(wait >= limiter.until_more, "{self:?}");
        }
    }

    /// Neither guessed at, nor framed, nor told of to others.
    fn check_hardening(&self) {
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        assert_eq!(self.header("referrer-policy"), Some("no-referrer"), "{self:?}");
        let policy = self.header("content-security-policy").unwrap_or_default();
        for directive in ["default-src 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(directive), "{self:?}");
        }
    }

    /// All five headers of the limits or none, and none at odds with another.
    fn check_limits(&self) {
        let limiters = self.limiters();
        let Some([limit, remaining, _]) = self.limit() else {
            return assert!(limiters.is_empty(), "{self:?}");
        };
        let speaks = |l: &&Limiter| l.limit == limit && l.remaining == remaining;
        assert!(limiters.iter().any(|limiter| speaks(&limiter)), "{self:?}");
        for limiter in &limiters {
            assert!(limiter.remaining <= limiter.limit, "{self:?}");
            assert!(limiter.until_more <= limiter.window, "{self:?}");
            let fair = (limiter.remaining * limiter.window).div_ceil(limiter.limit);
            assert!(limiter.until_more >= fair, "{self:?}");
        }
        if self.code() != 429 {
            let least = limiters.iter().map(|limiter| limiter.remaining).min();
            assert_eq!(Some(remaining), least, "{self:?}");
        }
    }

    fn code(&self) -> u16 {
        self.status.as_u16()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.header(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {self:?}")))
    }
}

/// These members and no others.
#[track_caller]
pub(crate) fn assert_members(object: &Map<String, Value>, members: &[&str]) {
    let mut expected = members.to_vec();
    expected.sort_unstable();
    let mut found: Vec<_> = object.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

fn check_field_errors(errors: &Value) {
    let errors = errors.as_array().unwrap();
    assert!(!errors.is_empty());
    for error in errors {
        let error = error.as_object().unwrap();
        assert_members(error, &["field", "code", "detail"]);
        assert!(error.values().all(Value::is_string), "{error:?}");
    }
}

/// `"name";a=1;b=2`: a member of a list of RFC 9651.
fn list_member(text: &str, parameters: [&str; 2]) -> (String, [u64; 2]) {
    let mut parts = text.split(';');
    let name = parts.next().and_then(|name| name.strip_prefix('"')?.strip_suffix('"')).unwrap();
    let numbers = parameters.map(|parameter| {
        let (name, number) = parts.next().unwrap().split_once('=').unwrap();
        assert_eq!(name, parameter, "{text}");
        number.parse().unwrap()
    });
    assert_eq!(parts.next(), None, "{text}");
    (name.to_owned(), numbers)
}
