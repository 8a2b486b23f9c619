//! The page that the API is tried with by hand, and the one that shows its description.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    browser::{Browser, LOOKS, Look},
    program::{Program, directory_with_keys},
    second_factor::App,
    settings::letter,
    support::{Api, PASSWORD},
};

const ADMIN: [(&str, &str); 2] =
    [("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", PASSWORD)];

async fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector({}).textContent", json!(selector));
    browser.run(&script).await.as_str().unwrap().to_owned()
}

async fn login(browser: &Browser, email: &str) {
    browser.fill("#email", email).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("[value=login]").await;
}

/// Clicks, and waits for what is said then; the same may have been said before.
async fn says(browser: &Browser, button: &str, answer: &str) {
    browser.run("document.querySelector('#said').textContent = ''").await;
    browser.click(button).await;
    browser.shows("#said", answer).await;
}

async fn asks(browser: &Browser, what: &str, answer: &str) {
    says(browser, &format!("[data-ask='{what}']"), &format!("{what}: {answer}")).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn description_is_shown() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/docs", program.base)).await;
    browser.shows("#operations", "POST /auth/login").await;
    browser.shows("#operations", "Schemas").await;
    browser.assert_accessible().await;
    browser.click("summary").await;
    browser.shows("details[open]", "Body, application/json\nemail").await;
    browser.open(&format!("{}/docs#createKey", program.base)).await;
    browser.shows("#createKey[open]", "NewApiKey").await;
    browser.click("#createKey a[href='#NewApiKey']").await;
    browser.shows("#NewApiKey[open]", "prefix").await;
    browser
        .run("for (const details of document.querySelectorAll('details')) details.open = true")
        .await;
    browser.assert_accessible().await;
    browser.assert_no_complaints().await;
    browser.stop().await;
    program.stop().await;
}

/// A person comes, is let in, and acts as each role.
#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn api_is_tried_by_hand() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &ADMIN).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/", program.base)).await;
    browser.assert_accessible().await;

    browser.fill("#email", "ada@example.com").await;
    browser.fill("#password", PASSWORD).await;
    says(&browser, "[value=register]", "POST /auth/register: 201").await;
    says(&browser, "[value=login]", "403. Email not verified").await;
    let letter = letter(&directory).await;
    let link = letter.lines().find(|line| line.starts_with(&program.base)).unwrap();
    browser.fill("#link", link).await;
    says(&browser, "#verify button", "POST /auth/verify: 200").await;
    browser.click("[value=login]").await;
    browser.shows("#me", "ada@example.com, viewer").await;
    asks(&browser, "POST /projects", "403. Insufficient permissions").await;

    // Another session, which is ended from here.
    let ada = json!({"email": "ada@example.com", "password": PASSWORD});
    let elsewhere = program.post("/auth/login", ada).header("user-agent", "Elsewhere").await;
    let elsewhere = elsewhere.expect(200).text("access_token");
    browser.click("#refresh").await;
    browser.shows("#sessions", "This one: Chrome").await;
    browser.shows("#sessions", "Elsewhere").await;
    says(&browser, "#sessions li:not(:first-child) button", "204").await;
    program.get("/auth/me").bearer(&elsewhere).await.refused(401, "token_revoked");
    browser.loses("#sessions", "Elsewhere").await;

    // A key, which is shown once, asks, and is revoked.
    browser.fill("#key-name", "robot").await;
    browser.click("#new-key button").await;
    browser.shows("#key", "wdn_").await;
    browser.shows("#keys", "robot").await;
    browser.click("[name=as][value=key]").await;
    asks(&browser, "GET /auth/me", "200").await;
    let key = text(&browser, "#key").await;
    let key = key.strip_prefix("Shown this once: ").unwrap();
    program.get("/auth/sessions").bearer(key).await.refused(403, "insufficient_permissions");
    browser.assert_accessible().await;
    says(&browser, "#keys button", "204").await;
    asks(&browser, "GET /auth/me", "401").await;
    browser.click("[name=as][value=session]").await;

    // A second factor, turned on, asked for, and turned off.
    browser.fill("#totp-password", PASSWORD).await;
    says(&browser, "#totp button", "POST /auth/totp: 200").await;
    browser.shows("#totp-confirm", "Give this secret").await;
    let app = App::reading(&text(&browser, "#secret").await);
    browser.fill("#totp-code", &app.shows_at(SystemTime::now(), 0)).await;
    browser.click("#totp-confirm button").await;
    browser.shows("#recovery", "shown this once").await;
    let recovery = text(&browser, "#recovery").await;
    let recovery = recovery.rsplit_once(", ").unwrap().1;
    browser.shows("#totp-state", "On").await;
    browser.assert_accessible().await;
    browser.click("#logout").await;
    browser.shows("#me", "Nobody").await;
    login(&browser, "ada@example.com").await;
    browser.fill("#code", &app.shows_at(SystemTime::now(), 1)).await;
    browser.click("#factor button").await;
    browser.shows("#me", "ada@example.com, viewer").await;
    browser.fill("#off-password", PASSWORD).await;
    browser.fill("#off-code", recovery).await;
    browser.click("#totp-disable button").await;
    browser.shows("#totp-state", "Off").await;

    // The admin comes as well, and makes ada an editor; each acts as it may.
    browser.click("#entry summary").await;
    login(&browser, "root@example.com").await;
    browser.shows("#me", "root@example.com, admin").await;
    asks(&browser, "GET /analytics", "200").await;
    for (what, choice) in [("role", "editor"), ("plan", "paid")] {
        let option = format!("[aria-label='{what} of ada@example.com'] option[value={choice}]");
        says(&browser, &option, "PATCH /admin/users").await;
    }
    browser.click("[aria-label='Act as ada@example.com']").await;
    browser.shows("#me", "ada@example.com, editor, plan paid").await;
    asks(&browser, "POST /projects", "201").await;
    asks(&browser, "GET /analytics", "403").await;
    browser.shows("#window-user", "of 600 left").await;
    browser.assert_accessible().await;
    browser.click("#logout").await;
    browser.shows("#me", "root@example.com, admin").await;
    browser.click("#logout-all").await;
    browser.shows("#me", "Nobody").await;

    // A link of a forgotten password leads to its page.
    browser.fill("#email", "ada@example.com").await;
    says(&browser, "[value=forgot]", "POST /auth/password/forgot: 202").await;
    let letter = crate::settings::letter_about(&directory, "Set a new password").await;
    let link = letter.lines().find(|line| line.starts_with(&program.base)).unwrap();
    browser.fill("#link", link).await;
    browser.click("#verify button").await;
    browser.shows("h1", "Choose a new password").await;
    browser.assert_no_complaints().await;
    browser.stop().await;
    program.stop().await;
}

/// The page of a server with these limits, which asks without a token; who has logged in is the admin.
async fn opened_as_nobody(limits: &[(&str, &str)]) -> (TempDir, Program, Browser) {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[&ADMIN[..], limits].concat()).await;
    let browser = Browser::start().await;
    browser.looks(LOOKS[0]).await;
    browser.open(&format!("{}/", program.base)).await;
    login(&browser, "root@example.com").await;
    browser.shows("#me", "root@example.com, admin").await;
    browser.click("[name=as][value=nobody]").await;
    (directory, program, browser)
}

/// The bars of this kind in the window of the client's address.
async fn bars(browser: &Browser, kind: &str) -> u64 {
    let script = format!(
        "return [...document.querySelectorAll('#window-ip .{kind}')]
             .filter((bar) => bar.getAttribute('height') > 0).length"
    );
    browser.run(&script).await.as_u64().unwrap()
}

/// Limits count down and refuse while one looks.
#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn limits_are_seen_on_the_picture_of_their_window() {
    let (_directory, program, browser) = opened_as_nobody(&[("RATE_LIMIT_PUBLIC", "60/1h")]).await;
    let left = async || -> u64 {
        let text = text(&browser, "#window-ip [data-left]").await;
        text.strip_prefix("ip: ").unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    asks(&browser, "GET /public/status", "200").await;
    let before = left().await;
    asks(&browser, "GET /public/status", "200").await;
    assert_eq!(left().await, before - 1);
    assert!(bars(&browser, "mark").await > 0);
    assert_eq!(bars(&browser, "refused").await, 0);
    for said in ["25 let through, 0 refused", "25 let through, 0 refused", "refused"] {
        says(&browser, "#burst", said).await;
    }
    assert_eq!(left().await, 0);
    assert!(bars(&browser, "refused").await > 0);
    asks(&browser, "GET /public/status", "429. Too many requests. Try again in").await;
    browser.shows("#answer", "Retry-After: ").await;
    browser.assert_accessible().await;
    browser.assert_no_complaints().await;
    browser.stop().await;
    program.stop().await;
}

/// What leaves the window may be asked again; failed logins stay in theirs for longer.
#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn limits_recover_while_one_looks() {
    let limits = [("RATE_LIMIT_PUBLIC", "60/10s"), ("RATE_LIMIT_LOGIN", "2/1h")];
    let (_directory, program, browser) = opened_as_nobody(&limits).await;
    asks(&browser, "GET /public/status", "200").await;
    // However slow the machine is, some of these are refused within one window.
    for burst in 0.. {
        says(&browser, "#burst", "25 times").await;
        if bars(&browser, "refused").await > 0 {
            break;
        }
        assert!(burst < 20, "nothing is refused");
        sleep(Duration::from_millis(800)).await;
    }
    for (dark, name) in [(false, "light.webp"), (true, "dark.webp")] {
        browser.looks(Look { dark, width: 1100, height: 1060 }).await;
        browser.picture(name).await;
    }
    browser.shows("#window-ip", "60 of 60 left").await;
    asks(&browser, "GET /public/status", "200").await;

    browser.click("#logout").await;
    browser.shows("#me", "Nobody").await;
    browser.fill("#email", "root@example.com").await;
    for n in [1, 0] {
        browser.fill("#password", "wrong").await;
        browser.click("[value=login]").await;
        browser.shows("#window-login", &format!("login: {n} of 2 left")).await;
    }
    login(&browser, "root@example.com").await;
    browser.shows("#said", "429. Too many login attempts").await;
    browser.assert_no_complaints().await;
    browser.stop().await;
    program.stop().await;
}
