//! The pages that links in mail open.

use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tower_warden::{Role, UserId};

use crate::{
    browser::Browser,
    program::{Program, directory_with_keys},
    settings::letter_about,
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

/// The link of the letter about this.
async fn link(directory: &TempDir, program: &Program, about: &str) -> String {
    let letter = letter_about(directory, about).await;
    letter.lines().find(|line| line.starts_with(&program.base)).unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn pages_work_in_a_browser() {
    let directory = directory_with_keys();
    let program = Program::start(directory.path(), &[]).await;
    let browser = Browser::start().await;
    let login = |email: &str, password: &str| {
        program.post("/auth/login", json!({"email": email, "password": password}))
    };
    let (ada, other) = ("ada@example.com", "Another-Horse-2");
    let new = json!({"email": ada, "password": PASSWORD});
    program.post("/auth/register", new).await.expect(201);

    let verify = link(&directory, &program, "Confirm your e-mail address").await;
    browser.open(&verify).await;
    assert_eq!(browser.title().await, "Confirm your e-mail address");
    browser.assert_accessible().await;
    login(ada, PASSWORD).await.refused(403, "email_not_verified");
    browser.click("button").await;
    browser.shows("[role=status]", "is confirmed").await;
    assert_eq!(browser.url().await, format!("{}/auth/verify", program.base));
    browser.assert_accessible().await;
    login(ada, PASSWORD).await.expect(200);
    browser.open(&verify).await;
    browser.click("button").await;
    browser.shows("[role=alert]", "Invalid or expired verification token").await;

    program.post("/auth/password/forgot", json!({"email": ada})).await.expect(202);
    browser.open(&link(&directory, &program, "Set a new password").await).await;
    browser.assert_accessible().await;
    browser.fill("#password", "weak").await;
    browser.click("button").await;
    browser.shows("[role=alert]", "at least 10 characters").await;
    browser.assert_accessible().await;
    browser.fill("#password", other).await;
    browser.click("button").await;
    browser.shows("[role=status]", "password is changed").await;
    assert_eq!(browser.url().await, format!("{}/reset", program.base));
    login(ada, PASSWORD).await.refused(401, "invalid_credentials");
    let session = login(ada, other).await.expect(200).text("access_token");

    let change = json!({"current_password": other, "email": "ada@new.example"});
    program.post("/auth/email/change", change).bearer(&session).await.expect(202);
    browser.open(&link(&directory, &program, "new e-mail address").await).await;
    browser.assert_accessible().await;
    login("ada@new.example", other).await.refused(401, "invalid_credentials");
    browser.click("button").await;
    browser.shows("[role=status]", "has the new e-mail address").await;
    login("ada@new.example", other).await.expect(200);
    browser.open(&format!("{}/confirm-email", program.base)).await;
    browser.shows("[role=alert]", "not complete").await;
    browser.assert_accessible().await;
    browser.assert_no_complaints().await;
    browser.stop().await;
    program.stop().await;
}
