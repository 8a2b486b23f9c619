//! The pages that links in mail open: plain forms, which work without scripts and load nothing from
//! anywhere. Opening one changes nothing, since mail scanners open links too; its button does.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::{Query, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};
use tower_warden::{Problem, UserService, user::Password};

use super::{
    App,
    accounts::{self, Users},
    body::Form,
    error::method_not_allowed,
};

/// A page that asks before it uses up what its link holds.
pub struct Page {
    title: &'static str,
    text: &'static str,
    /// Where its form is sent to: the page's own path, relative to it, so that it is right behind a
    /// proxy that adds to paths, too.
    action: &'static str,
    fields: &'static str,
    button: &'static str,
    done: &'static str,
}

pub const VERIFY: Page = Page {
    title: "Confirm your e-mail address",
    text: "Is this your account? Then confirm its e-mail address.",
    action: "verify",
    fields: "",
    button: "Confirm",
    done: "Your e-mail address is confirmed. You can log in now.",
};

pub const CONFIRM_EMAIL: Page = Page {
    title: "Confirm your new e-mail address",
    text: "From now on your account will have this e-mail address.",
    action: "confirm-email",
    fields: "",
    button: "Confirm",
    done: "Your account has the new e-mail address now.",
};

pub const RESET: Page = Page {
    title: "Choose a new password",
    text: "It needs at least 10 characters, with an upper-case letter, a lower-case letter and a digit. \
           You will be logged out everywhere.",
    action: "reset",
    fields: r#"<label for="password">New password</label>
<input id="password" name="password" type="password" autocomplete="new-password" required autofocus>
"#,
    button: "Set the password",
    done: "Your password is changed. You can log in now.",
};

const STYLE: &str = "
:root { color-scheme: light dark; font: 100%/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 32rem; padding: 2rem 1rem; background: Canvas; color: CanvasText }
h1 { font-size: 1.5rem; line-height: 1.2 }
label { display: block; font-weight: 600 }
input, button { box-sizing: border-box; font: inherit; margin: .25rem 0 1rem; padding: .6rem .8rem; border-radius: .4rem }
input { width: 100%; border: 1px solid GrayText; background: Field; color: FieldText }
button { border: 0; background: #1d4ed8; color: #fff; font-weight: 600; cursor: pointer }
:focus-visible { outline: 3px solid #f59e0b; outline-offset: 2px }
.wrong { border-left: .3rem solid #b91c1c; padding-left: .8rem }
";

/// Nothing but this very style, and forms sent to where the page is from.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = BASE64.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; img-src data:; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

pub fn router() -> Router<App> {
    let asked = |page: &'static Page| get(async |link: Link| page.asked(&link));
    Router::new()
        .route("/reset", asked(&RESET).post(reset).fallback(method_not_allowed))
        .route("/confirm-email", asked(&CONFIRM_EMAIL).post(confirm).fallback(method_not_allowed))
}

async fn reset(Users(users): Users, State(app): State<App>, Form(form): Form) -> Response {
    let (Some(token), Some(password)) = (only(&form, "token"), only(&form, "password")) else {
        return RESET.incomplete();
    };
    let done = accounts::set_password(&app, &users, token, Password::from(password)).await;
    RESET.outcome(token, done)
}

async fn confirm(State(users): State<UserService>, Form(form): Form) -> Response {
    let Some(token) = only(&form, "token") else { return CONFIRM_EMAIL.incomplete() };
    let done = users.confirm_email(token).await;
    CONFIRM_EMAIL.outcome(token, done.map(drop).map_err(Into::into))
}

/// The query of a link.
pub type Link = Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

impl Page {
    /// What opening the link shows.
    pub fn asked(&self, link: &Link) -> Response {
        match link.as_ref().ok().and_then(|Query(query)| only(query, "token")) {
            Some(token) if !token.is_empty() => self.form(StatusCode::OK, token, None),
            _ => self.incomplete(),
        }
    }

    /// What its form is answered.
    pub fn outcome(&self, token: &str, done: Result<(), Problem>) -> Response {
        match done {
            Ok(()) => self.says(StatusCode::OK, self.done, &HeaderMap::new()),
            Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                self.form(problem.status(), token, Some(problem.detail()))
            }
            Err(problem) => {
                let detail = problem.detail().to_owned();
                let response = problem.into_http();
                self.says(response.status(), &format!("{detail}."), response.headers())
            }
        }
    }

    /// What a form without the fields of this page is answered.
    pub fn incomplete(&self) -> Response {
        self.says(StatusCode::BAD_REQUEST, "This link is not complete.", &HeaderMap::new())
    }

    fn form(&self, status: StatusCode, token: &str, wrong: Option<&str>) -> Response {
        let Self { text, action, fields, button, .. } = self;
        let wrong = wrong
            .map(|wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>\n", escaped(wrong)));
        let (wrong, token) = (wrong.unwrap_or_default(), escaped(token));
        self.shown(
            status,
            &format!(
                "<p>{text}</p>\n{wrong}<form method=\"post\" action=\"{action}\">\n\
                 <input type=\"hidden\" name=\"token\" value=\"{token}\">\n{fields}\
                 <button type=\"submit\">{button}</button>\n</form>"
            ),
        )
    }

    fn says(&self, status: StatusCode, sentence: &str, headers: &HeaderMap) -> Response {
        let role = if status.is_success() { "status" } else { "alert" };
        let mut response =
            self.shown(status, &format!("<p role=\"{role}\">{}</p>", escaped(sentence)));
        if let Some(wait) = headers.get(header::RETRY_AFTER) {
            response.headers_mut().insert(header::RETRY_AFTER, wait.clone());
        }
        response
    }

    fn shown(&self, status: StatusCode, content: &str) -> Response {
        let title = self.title;
        let page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{content}\n</main>\n\
             </body>\n</html>\n"
        );
        let headers: [(HeaderName, HeaderValue); 4] = [
            (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::VARY, HeaderValue::from_static("accept")),
        ];
        (status, headers, Html(page)).into_response()
    }
}

/// The one value of this name; none where there are two.
pub fn only<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = fields.iter().filter(|(field, _)| field == name);
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value.as_str())
}

/// Whether a page is what is wanted, rather than JSON: a browser names the one, and a program that
/// names neither gets JSON.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges: Vec<_> = lines.flat_map(|line| line.split(',')).map(range).collect();
    // The most exact range that matches counts (RFC 9110, section 12.5.1).
    let quality = |exact: &str, any_of_it: &str| {
        let of = |name: &str| ranges.iter().find(|(range, _)| range == name).map(|(_, q)| *q);
        of(exact).or_else(|| of(any_of_it)).or_else(|| of("*/*")).unwrap_or(0.0)
    };
    quality("text/html", "text/*") > quality("application/json", "application/*")
}

fn range(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (name, quality.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
