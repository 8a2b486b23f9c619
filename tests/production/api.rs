//! The API as its clients see it.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, StatusCode, header, request::Builder};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// Where a server is, and connections to it.
#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    client: Client<HttpConnector, String>,
}

/// A request in the making.
pub(crate) struct Call {
    client: Client<HttpConnector, String>,
    request: Builder,
    body: String,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

/// What a login gives.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Api {
    pub(crate) fn at(base: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { base: base.to_owned(), client }
    }

    /// `host:port`
    pub(crate) fn authority(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Call {
        self.call(Method::PATCH, path).json(body)
    }

    pub(crate) fn log_in(&self, email: &str, password: &str) -> Call {
        self.post("/auth/login", &json!({"email": email, "password": password}))
    }

    pub(crate) fn refresh(&self, token: &str) -> Call {
        self.post("/auth/refresh", &json!({"refresh_token": token}))
    }

    pub(crate) fn log_out(&self, token: &str) -> Call {
        self.post("/auth/logout", &json!({"refresh_token": token}))
    }

    fn call(&self, method: Method, path: &str) -> Call {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        Call { client: self.client.clone(), request, body: String::new() }
    }
}

impl Call {
    /// By this address, which our proxy is made to have seen.
    pub(crate) fn from(mut self, ip: &str) -> Self {
        self.request = self.request.header("x-forwarded-for", ip);
        self
    }

    pub(crate) fn bearer(mut self, token: &str) -> Self {
        self.request = self.request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        self
    }

    fn json(mut self, body: &Value) -> Self {
        self.request = self.request.header(header::CONTENT_TYPE, "application/json");
        Self { body: body.to_string(), ..self }
    }

    pub(crate) async fn send(self) -> Reply {
        let start = Instant::now();
        let request = self.request.body(self.body).unwrap();
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body).unwrap(),
            took: start.elapsed(),
        }
    }
}

impl Reply {
    /// The same, if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// A member of the body.
    pub(crate) fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member}: {self:?}")).to_owned()
    }

    pub(crate) fn pair(&self) -> Pair {
        Pair { access: self.text("access_token"), refresh: self.text("refresh_token") }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// What is left of a limit, as `RateLimit` says.
    pub(crate) fn remaining(&self, limiter: &str) -> Option<u32> {
        let (_, rest) = self.header("ratelimit")?.split_once(&format!("\"{limiter}\";r="))?;
        rest.split(';').next()?.parse().ok()
    }

    /// 503 as the contract has it.
    #[track_caller]
    pub(crate) fn expect_unavailable(self) -> Self {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.text("code"), "unavailable");
        let wait: u64 = self.header("retry-after").expect("no Retry-After").parse().unwrap();
        assert!(wait > 0);
        self
    }
}
