//! A headless Chromium, driven over WebDriver (W3C).

use std::{process::Stdio, sync::LazyLock, time::Duration};

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

/// How a page is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) dark: bool,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

pub(crate) const LOOKS: [Look; 4] = [
    Look { dark: false, width: 1280, height: 1024 },
    Look { dark: true, width: 1280, height: 1024 },
    Look { dark: false, width: 390, height: 844 },
    Look { dark: true, width: 390, height: 844 },
];

/// The script of axe.
fn axe() -> &'static str {
    static AXE: LazyLock<String> = LazyLock::new(|| {
        let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/axe");
        let fetched = std::process::Command::new(fetch).output().unwrap();
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        std::fs::read_to_string(String::from_utf8(fetched.stdout).unwrap().trim()).unwrap()
    });
    &AXE
}

/// Ends with the test, also with one that fails.
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
            .process_group(0)
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
            "--hide-scrollbars",
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
        self.until(selector, text, true).await;
    }

    /// Waits until it doesn't any more.
    pub(crate) async fn loses(&self, selector: &str, text: &str) {
        self.until(selector, text, false).await;
    }

    async fn until(&self, selector: &str, text: &str, is_there: bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let quoted = json!(selector);
        let script = format!("return document.querySelector({quoted})?.innerText ?? ''");
        loop {
            let shown = self.run(&script).await;
            if shown.as_str().is_some_and(|shown| shown.contains(text) == is_there) {
                return;
            }
            assert!(Instant::now() < deadline, "{selector} shows {shown}: {text:?} {is_there}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Panics where the console has complained since it was last asked: of scripts that fail, and of
    /// what the page's policy forbids. That a request was refused (4xx) is no fault of a page.
    pub(crate) async fn assert_no_complaints(&self) {
        let log = self.ask(Method::POST, "/se/log", json!({"type": "browser"})).await;
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        let complaints: Vec<_> = log
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap()))
            .map(message)
            .filter(|text| !text.contains("the server responded with a status of 4"))
            .collect();
        assert_eq!(complaints, Vec::<String>::new());
    }

    /// Panics where axe finds what keeps people from using the page, in light or dark, on a desk or
    /// a telephone, or where it is wider than either.
    pub(crate) async fn assert_accessible(&self) {
        for look in LOOKS {
            self.looks(look).await;
            let faults = self.axe_faults().await;
            assert_eq!(faults, json!([]), "{} {look:?}", self.url().await);
            let wide = self.run("return document.documentElement.scrollWidth > innerWidth").await;
            assert_eq!(wide, false, "{} {look:?}", self.url().await);
        }
        self.looks(LOOKS[0]).await;
    }

    pub(crate) async fn axe_faults(&self) -> Value {
        let script = format!(
            "{};\nconst done = arguments[0];
             axe.run(document, {{resultTypes: ['violations']}}).then(({{violations}}) => done(violations.map(
                 ({{id, nodes}}) => [id, ...nodes.map(({{html, failureSummary}}) => [html, failureSummary])])));",
            axe()
        );
        self.run_async(&script).await
    }

    /// What a script hands to the function that is its argument.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        self.ask(Method::POST, "/execute/async", json!({"script": script, "args": []})).await
    }

    /// Shows pages from now on like this.
    pub(crate) async fn looks(&self, look: Look) {
        let scheme = if look.dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", media).await;
        let size = json!({
            "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600,
        });
        self.command("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// A command of Chromium's own protocol.
    async fn command(&self, name: &str, parameters: Value) -> Value {
        let command = json!({"cmd": name, "params": parameters});
        self.ask(Method::POST, "/goog/cdp/execute", command).await
    }

    /// What the page looks like, as a file, where `TOWER_WARDEN_TEST_PICTURES` names a directory.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("TOWER_WARDEN_TEST_PICTURES") else { return };
        let kind = json!({"format": "webp", "quality": 80});
        let picture = self.command("Page.captureScreenshot", kind).await;
        let bytes = BASE64.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(&directory).join(name), bytes).unwrap();
    }

    pub(crate) async fn stop(mut self) {
        self.ask(Method::DELETE, "", Value::Null).await;
        self.driver.kill().await.unwrap();
    }
}

impl Drop for Browser {
    /// What the driver has started doesn't end with it.
    fn drop(&mut self) {
        if let Some(id) = self.driver.id() {
            let group = format!("-{id}");
            let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        }
    }
}
