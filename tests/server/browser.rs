//! A headless Chromium, driven over WebDriver (W3C).

use std::{process::Stdio, time::Duration};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// Ends with the test.
pub(crate) struct Browser {
    client: Client<HttpConnector, Body>,
    session: String,
    driver: Child,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver: run tests/run");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = timeout(Duration::from_secs(20), lines.next_line()).await.unwrap();
            let line = line.unwrap().expect("chromedriver started");
            if let Some((_, port)) = line.rsplit_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut browser = Self {
            client,
            session: format!("http://127.0.0.1:{port}/session"),
            driver,
            _profile: profile,
        };
        let session = browser.ask(Method::POST, "", capabilities).await;
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().unwrap());
        browser
    }

    async fn try_ask(&self, method: Method, path: &str, body: Value) -> Result<Value, Value> {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.session));
        let reply = self.client.request(request.body(body).unwrap()).await.unwrap();
        let good = reply.status().is_success();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice::<Value>(&body).unwrap()["value"].take();
        if good { Ok(value) } else { Err(value) }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let asked = body.to_string();
        let answer = self.try_ask(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{path} {asked}: {error}"))
    }

    pub(crate) async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", json!({"url": url})).await;
    }

    pub(crate) async fn title(&self) -> String {
        self.ask(Method::GET, "/title", Value::Null).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn url(&self) -> String {
        self.ask(Method::GET, "/url", Value::Null).await.as_str().unwrap().to_owned()
    }

    /// What the page shows.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap().to_owned()
    }

    /// What a script answers, which runs outside of the page's policy.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.ask(Method::POST, "/execute/sync", json!({"script": script, "args": []})).await
    }

    /// Waits for the one element of this selector that is shown, and answers its path.
    async fn element(&self, selector: &str) -> String {
        let by = json!({"using": "css selector", "value": selector});
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.try_ask(Method::POST, "/element", by.clone()).await;
            if let Ok(element) = found {
                let id = element.as_object().unwrap().values().next().unwrap();
                let path = format!("/element/{}", id.as_str().unwrap());
                let shown = format!("{path}/displayed");
                if self.try_ask(Method::GET, &shown, Value::Null).await == Ok(json!(true)) {
                    return path;
                }
            }
            assert!(Instant::now() < deadline, "no {selector} in {}", self.text().await);
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.ask(Method::POST, &format!("{element}/click"), json!({})).await;
    }

    /// Types into a field what takes the place of what is there.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.ask(Method::POST, &format!("{element}/clear"), json!({})).await;
        self.ask(Method::POST, &format!("{element}/value"), json!({"text": text})).await;
    }

    /// Waits until an element shows this text.
    pub(crate) async fn shows(&self, selector: &str, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let quoted = json!(selector);
        let script = format!("return document.querySelector({quoted})?.innerText ?? ''");
        loop {
            let shown = self.run(&script).await;
            if shown.as_str().is_some_and(|shown| shown.contains(text)) {
                return;
            }
            assert!(Instant::now() < deadline, "{selector} shows {shown}, not {text:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the console has complained of since it was last asked.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.ask(Method::POST, "/se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height});
        self.ask(Method::POST, "/window/rect", size).await;
    }

    /// What the page looks like, as a file, where `TOWER_WARDEN_TEST_PICTURES` names a directory.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("TOWER_WARDEN_TEST_PICTURES") else { return };
        let picture = self.ask(Method::GET, "/screenshot", Value::Null).await;
        let bytes = BASE64.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(&directory).join(name), bytes).unwrap();
    }

    pub(crate) async fn stop(mut self) {
        self.ask(Method::DELETE, "", Value::Null).await;
        self.driver.kill().await.unwrap();
    }
}
