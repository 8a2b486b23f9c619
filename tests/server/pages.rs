//! The pages that links in mail open.

use http::Method;
use serde_json::json;
use tower_warden::{Role, UserId};

use crate::{
    browser::Browser,
    program::{Program, directory_with_keys},
    support::{Api, Call, MINUTE, PASSWORD, Server},
};

/// As Chromium, Firefox and Safari ask for a page.
const BROWSERS: [&str; 2] = [
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "text/html",
];
/// As programs ask.
const PROGRAMS: [&str; 6] = [
    "*/*",
    "application/json",
    "application/json, text/plain, */*",
    "application/*",
    "text/html;q=0.5, application/json",
    "text/html;q=0, */*",
];

const FORM: &str = "application/x-www-form-urlencoded";

fn check_page(reply: &crate::reply::Reply) -> String {
    let header = |name| reply.header(name).unwrap_or_else(|| panic!("no {name}: {reply:?}"));
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-content-type-options"), "nosniff");
    for directive in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"] {
        assert!(header("content-security-policy").contains(directive), "{reply:?}");
    }
    let page = String::from_utf8(reply.body.to_vec()).unwrap();
    for outside in ["<script", "http:", "https:", "//"] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
    page
}

#[tokio::test]
async fn link_asks_a_browser_before_it_is_used_up() {
    let server = Server::start().await;
    let token = server.register("ada@example.com").await;
    let link = format!("/auth/verify?token={token}");
    for accept in BROWSERS {
        let page = server.get(&link).header("accept", accept).await.expect(200);
        assert_eq!(page.header("vary"), Some("accept"));
        let page = check_page(&page);
        assert!(page.contains(r#"<form method="post" action="verify">"#), "{page}");
        assert!(page.contains(&format!(r#"value="{token}""#)), "{page}");
        server.head(&link).header("accept", accept).await.expect(200);
    }
    let form = |token: &str| {
        let call = server.call(Method::POST, "/auth/verify").header("accept", BROWSERS[0]);
        call.body(FORM, format!("token={token}"))
    };
    check_page(&form("x").await.expect(400));
    let done = form(&token).await.expect(200);
    assert!(check_page(&done).contains("is confirmed"));
    check_page(&form(&token).await.expect(400));
    server.login("ada@example.com", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn programs_get_json_and_may_post_it() {
    let server = Server::start().await;
    for (n, accept) in PROGRAMS.iter().enumerate() {
        let token = server.register(&format!("ada{n}@example.com")).await;
        let link = format!("/auth/verify?token={token}");
        let reply = server.get(&link).header("accept", accept).await.expect(200);
        assert_eq!(reply.json(), json!({"email_verified": true}), "{accept}");
    }
    let token = server.register("bob@example.com").await;
    let post = |token: &str| server.post("/auth/verify", json!({"token": token}));
    assert_eq!(post(&token).await.expect(200).json(), json!({"email_verified": true}));
    post(&token).await.refused(400, "invalid_verification_token");
    server.call(Method::POST, "/auth/verify").await.refused(415, "unsupported_media_type");
    assert_eq!(server.post("/auth/verify", json!({})).await.field_errors(), ["token: required"]);
    server.get("/auth/verify").await.refused(400, "invalid_request");
}

/// Each page, and what is no link of it.
#[tokio::test]
async fn page_without_a_token_is_400_and_repeats_nothing_that_runs() {
    let server = Server::start().await;
    let page = |path: &str| -> Call { server.get(path).header("accept", BROWSERS[0]) };
    for path in ["/auth/verify", "/reset", "/confirm-email"] {
        for query in ["", "?", "?token=", "?token=a&token=b", "?other=a"] {
            check_page(&page(&format!("{path}{query}")).await.expect(400));
        }
        let mean = r#"?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E%27"#;
        let shown = check_page(&page(&format!("{path}{mean}")).await.expect(200));
        assert!(shown.contains("&quot;&gt;&lt;script&gt;"), "{shown}");
        let own = path.rsplit('/').next().unwrap();
        assert!(shown.contains(&format!(r#"method="post" action="{own}""#)), "{shown}");
        let form = server.call(Method::POST, path);
        check_page(&form.body(FORM, "other=a").await.expect(400));
        let form = server.call(Method::POST, path);
        check_page(&form.body(FORM, "token=x&password=Correct-Horse-2").await.expect(400));
        server.clock.advance(MINUTE);
    }
    server.get("/reset/").await.refused(404, "not_found");
}

#[tokio::test]
async fn password_is_reset_by_a_page() {
    let server = Server::start().await;
    let ada = server.join(Role::VIEWER).await;
    let (_, secret) = server.users.reset_link(&UserId::from(&*ada.id)).await.unwrap().unwrap();
    let token = secret.expose();
    let page = server.get(&format!("/reset?token={token}")).header("accept", BROWSERS[0]);
    assert!(check_page(&page.await.expect(200)).contains(r#"name="password" type="password""#));
    let reset = |password: &str| {
        let call = server.call(Method::POST, "/reset");
        call.body(FORM, format!("token={token}&password={password}"))
    };
    // As good as before, and so is the page.
    let weak = check_page(&reset("weak%3Cb%3E").await.expect(422));
    assert!(weak.contains(&format!(r#"value="{token}""#)) && weak.contains("role=\"alert\""));
    assert!(!weak.contains("weak<b>") && !weak.contains("weak&lt;"), "{weak}");
    check_page(&reset("Another-Horse-1").await.expect(200));
    check_page(&reset("Another-Horse-2").await.expect(400));
    server.login(&ada.email, "Another-Horse-1").await.expect(200);
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
    browser.click("summary").await;
    browser.shows("details[open]", "201").await;
    browser.picture("docs.png").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.stop().await;
    program.stop().await;
}

#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn api_is_tried_by_hand() {
    let directory = directory_with_keys();
    let admin = [("ADMIN_EMAIL", "root@example.com"), ("ADMIN_PASSWORD", PASSWORD)];
    let settings = [
        &admin[..],
        &[("RATE_LIMIT_PUBLIC", "60/20s"), ("RATE_LIMIT_REGISTER", "9/1h"), ("RUST_LOG", "off")],
    ]
    .concat();
    let program = Program::start(directory.path(), &settings).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/", program.base)).await;
    browser.fill("#email", "ada@example.com").await;
    browser.fill("#password", PASSWORD).await;
    browser.click("[value=register]").await;
    browser.shows("#said", "POST /auth/register: 201").await;
    browser.click("[value=login]").await;
    browser.shows("#said", "Email not verified").await;
    let letter = crate::settings::letter(&directory).await;
    let link = letter.lines().find(|line| line.starts_with(&program.base)).unwrap();
    browser.fill("#link", link).await;
    browser.click("#verify button").await;
    browser.shows("#said", "POST /auth/verify: 200").await;
    browser.click("[value=login]").await;
    browser.shows("#me", "ada@example.com, viewer").await;
    browser.click("[data-ask='POST /projects']").await;
    browser.shows("#said", "403. Insufficient permissions").await;
    browser.fill("#key-name", "robot").await;
    browser.click("#new-key button").await;
    browser.shows("#key", "wdn_").await;
    browser.shows("#keys", "robot").await;
    browser.picture("member.png").await;
    browser.click("#logout").await;
    browser.shows("#me", "Nobody").await;

    browser.fill("#email", "root@example.com").await;
    browser.fill("#password", PASSWORD).await;
    browser.click("[value=login]").await;
    browser.shows("#me", "root@example.com, admin").await;
    browser.click("[data-ask='POST /projects']").await;
    browser.shows("#said", "201").await;
    browser.click("#logout").await;

    browser.click("[data-ask='GET /public/status']").await;
    for _ in 0..3 {
        browser.click("#burst").await;
        browser.shows("#said", "25 times").await;
    }
    browser.shows("#said", "refused").await;
    let marks = browser.run("return document.querySelectorAll('#window-ip .refused').length").await;
    assert!(marks.as_u64().unwrap() > 0, "{marks}");
    browser.picture("limits.png").await;
    browser.resize(390, 844).await;
    let overflows = browser.run("return document.documentElement.scrollWidth > innerWidth").await;
    assert_eq!(overflows, json!(false));
    browser.picture("phone.png").await;
    browser.shows("#window-ip", "60 of 60 left\nwindow 20 s").await;
    let complaints = browser.complaints().await;
    let policy = complaints.iter().filter(|text| text.contains("Content Security Policy"));
    assert_eq!(policy.count(), 0, "{complaints:?}");
    browser.stop().await;
    program.stop().await;
}

#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn pages_work_in_a_browser() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    let browser = Browser::start().await;
    let ada = json!({"email": "ada@example.com", "password": PASSWORD});
    program.post("/auth/register", ada.clone()).await.expect(201);
    let link = crate::settings::letter(&directory).await;
    let link = link.lines().find(|line| line.starts_with(&program.base)).unwrap().to_owned();
    browser.open(&link).await;
    assert_eq!(browser.title().await, "Confirm your e-mail address");
    browser.resize(390, 700).await;
    browser.picture("verify.png").await;
    program.post("/auth/login", ada.clone()).await.refused(403, "email_not_verified");
    browser.click("button").await;
    browser.shows("[role=status]", "is confirmed").await;
    assert_eq!(browser.url().await, format!("{}/auth/verify", program.base));
    program.post("/auth/login", ada).await.expect(200);
    browser.open(&link).await;
    browser.click("button").await;
    browser.shows("[role=alert]", "Invalid or expired verification token").await;
    let complaints = browser.complaints().await;
    let ours = complaints.iter().filter(|text| !text.contains("favicon") && !text.contains("400"));
    assert_eq!(ours.count(), 0, "{complaints:?}");
    browser.stop().await;
    program.stop().await;
}
