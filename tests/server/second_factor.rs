//! The second factor: turning it on and off, and the login in two steps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};
use tower_warden::{Clock, Role};

use crate::{
    reply::Reply,
    sessions::parts,
    support::{Api, Call, MINUTE, PASSWORD, SECOND, Server, Session, at_once, count},
};

const STEP: Duration = Duration::from_secs(30);

/// An authenticator app, by the RFC and not by the crate's own code.
pub(crate) struct App(Vec<u8>);

impl App {
    pub(crate) fn reading(secret: &str) -> Self {
        let value = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'2'..=b'7' => c - b'2' + 26,
            _ => panic!("no base 32: {secret}"),
        };
        let bits: String = secret.bytes().map(|c| format!("{:05b}", value(c))).collect();
        let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
        Self((0..bits.len() / 8).map(|n| byte(8 * n)).collect())
    }

    /// What it shows now, or so many steps earlier or later.
    fn shows(&self, server: &Server, steps: i64) -> String {
        self.shows_at(server.clock.now(), steps)
    }

    pub(crate) fn shows_at(&self, now: SystemTime, steps: i64) -> String {
        let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs() / 30;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &now.checked_add_signed(steps).unwrap().to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 0xf);
        let number = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }
}

/// A member whose second factor has just been turned on, and that another code is due.
struct Protected {
    member: Session,
    app: App,
    recovery_codes: Vec<String>,
}

async fn protected(server: &Server) -> Protected {
    let member = server.join(Role::VIEWER).await;
    let app = begin(server, &member).await;
    let code = app.shows(server, 0);
    let reply = confirm(server, &member, &code).await.expect(200);
    let codes = reply.json()["recovery_codes"].as_array().unwrap().clone();
    let recovery_codes = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    server.clock.advance(STEP);
    Protected { member, app, recovery_codes }
}

async fn begin(server: &Server, member: &Session) -> App {
    let reply = server.post("/auth/totp", json!({"current_password": PASSWORD})).by(member).await;
    App::reading(&reply.expect(200).text("secret"))
}

fn confirm(server: &Server, member: &Session, code: &str) -> Call {
    server.post("/auth/totp/confirm", json!({"code": code})).by(member)
}

fn disable(server: &Server, member: &Session, password: &str, code: &str) -> Call {
    let body = json!({"current_password": password, "code": code});
    server.post("/auth/totp/disable", body).by(member)
}

/// The first step, and what it leaves for the second.
async fn first_step(server: &Server, member: &Session) -> String {
    let reply = server.login(&member.email, PASSWORD).await;
    reply.refused(403, "second_factor_required").text("login_token")
}

fn second_step(server: &Server, login_token: &str, code: &str) -> Call {
    server.post("/auth/login/totp", json!({"login_token": login_token, "code": code}))
}

#[tokio::test]
async fn nothing_is_on_before_a_code_confirms_it() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    confirm(&server, &member, "000000").await.refused(409, "totp_not_pending");
    let reply = server.post("/auth/totp", json!({"current_password": PASSWORD})).by(&member).await;
    let setup = reply.expect(200).json();
    let (secret, uri) = (setup["secret"].as_str().unwrap(), setup["uri"].as_str().unwrap());
    assert_eq!(secret.len(), 32);
    let account = member.email.replace('@', "%40");
    assert!(uri.starts_with(&format!("otpauth://totp/tower-warden:{account}?secret={secret}&")));
    server.login(&member.email, PASSWORD).await.expect(200);
    assert_eq!(server.get("/auth/me").by(&member).await.json()["totp"], false);

    // Another in place of it; the code of the first is none.
    let first = App::reading(secret);
    let second = begin(&server, &member).await;
    let wrong = confirm(&server, &member, &first.shows(&server, 0)).await;
    wrong.refused(403, "wrong_code");
    let reply = confirm(&server, &member, &second.shows(&server, 0)).await.expect(200).json();
    let codes = reply["recovery_codes"].as_array().unwrap();
    assert_eq!(codes.len(), 10);
    for code in codes {
        let (left, right) = code.as_str().unwrap().split_once('-').unwrap();
        let plain = |half: &str| half.len() == 5 && half.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(plain(left) && plain(right), "{code}");
    }
    assert_eq!(server.get("/auth/me").by(&member).await.json()["totp"], true);
    first_step(&server, &member).await;

    // It ends nothing, and is there once.
    server.refresh(&member.refresh).await.expect(200);
    confirm(&server, &member, &second.shows(&server, 1)).await.refused(409, "totp_not_pending");
    let again = server.post("/auth/totp", json!({"current_password": PASSWORD})).by(&member).await;
    again.refused(409, "totp_enabled");
}

#[tokio::test]
async fn login_takes_two_steps() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let token = first_step(&server, &member).await;
    let reply = second_step(&server, &token, &app.shows(&server, 0)).await.expect(200);
    let [_, claims] = parts(&reply.text("access_token"));
    assert_eq!(claims["amr"], json!(["pwd", "otp"]));
    assert_eq!(claims["sub"], member.id);
    server.get("/auth/me").bearer(&reply.text("access_token")).await.expect(200);
    // It is used up.
    server.clock.advance(STEP);
    let again = second_step(&server, &token, &app.shows(&server, 0)).await;
    again.refused(401, "invalid_code");
    // Without one a login says so.
    let other = server.join(Role::VIEWER).await;
    let reply = server.login(&other.email, PASSWORD).await.expect(200);
    assert_eq!(parts(&reply.text("access_token"))[1]["amr"], json!(["pwd"]));
}

#[tokio::test]
async fn code_is_good_one_step_either_way_and_once() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    server.clock.advance(4 * STEP);
    let login = async |steps| {
        let token = first_step(&server, &member).await;
        second_step(&server, &token, &app.shows(&server, steps)).await.status.as_u16()
    };
    assert_eq!(login(-2).await, 401);
    assert_eq!(login(2).await, 401);
    assert_eq!(login(-1).await, 200);
    assert_eq!(login(-1).await, 401);
    assert_eq!(login(1).await, 200);
    // Before the last one used.
    assert_eq!(login(0).await, 401);
}

#[tokio::test]
async fn code_that_confirmed_it_is_used() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let app = begin(&server, &member).await;
    let code = app.shows(&server, 0);
    confirm(&server, &member, &code).await.expect(200);
    let token = first_step(&server, &member).await;
    second_step(&server, &token, &code).await.refused(401, "invalid_code");
    second_step(&server, &token, &app.shows(&server, 1)).await.expect(200);
}

#[tokio::test]
async fn of_many_logins_with_one_code_at_once_one_wins() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(first_step(&server, &member).await);
    }
    let code = app.shows(&server, 0);
    let replies = at_once(tokens.iter().map(|token| second_step(&server, token, &code))).await;
    assert_eq!((count(&replies, 200), count(&replies, 401)), (1, 3));
}

#[tokio::test]
async fn any_text_is_a_code_and_spaces_do_not_matter() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let token = first_step(&server, &member).await;
    for wrong in ["", "0", "１２３４５６"] {
        second_step(&server, &token, wrong).await.refused(401, "invalid_code");
    }
    let code = app.shows(&server, 0);
    let spaced = format!(" {} {}\t", &code[..3], &code[3..]);
    second_step(&server, &token, &spaced).await.expect(200);
    for (body, errors) in [
        (json!({}), &["login_token: required", "code: required"][..]),
        (
            json!({"login_token": 1, "code": 2}),
            &["login_token: invalid_type", "code: invalid_type"],
        ),
        (json!({"login_token": token, "code": "", "email": ""}), &[": unknown_field"]),
    ] {
        assert_eq!(server.post("/auth/login/totp", body).await.field_errors(), errors);
    }
}

#[tokio::test]
async fn login_token_dies_at_its_fifth_wrong_code() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let token = first_step(&server, &member).await;
    for n in 0..5 {
        let from = format!("203.0.113.{n}");
        second_step(&server, &token, "0").from(&from).await.refused(401, "invalid_code");
    }
    let late = second_step(&server, &token, &app.shows(&server, 0)).from("192.0.2.1");
    late.await.refused(401, "invalid_code");
    // The code was not used up.
    let token = first_step(&server, &member).await;
    for n in 0..4 {
        let from = format!("203.0.113.{n}");
        second_step(&server, &token, "0").from(&from).await.refused(401, "invalid_code");
    }
    second_step(&server, &token, &app.shows(&server, 0)).from("192.0.2.1").await.expect(200);
}

#[tokio::test]
async fn of_many_codes_at_once_no_more_than_five_are_tried() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let token = first_step(&server, &member).await;
    let guess = |n: u8| second_step(&server, &token, "0").from(&format!("203.0.113.{n}"));
    at_once((0..20).map(guess)).await;
    let late = second_step(&server, &token, &app.shows(&server, 0)).await;
    late.refused(401, "invalid_code");
}

#[tokio::test]
async fn login_token_lives_5_minutes() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let (first, second) = (first_step(&server, &member).await, first_step(&server, &member).await);
    server.clock.advance(5 * MINUTE - SECOND);
    second_step(&server, &first, &app.shows(&server, 0)).await.expect(200);
    server.clock.advance(SECOND);
    let late = second_step(&server, &second, &app.shows(&server, 1)).await;
    late.refused(401, "invalid_code");
    for none in ["", "x", &"0".repeat(64), &member.refresh, &member.access] {
        let call = second_step(&server, none, &app.shows(&server, 1)).from("192.0.2.1");
        call.await.refused(401, "invalid_code");
    }
}

/// Whoever plants a token of their own in somebody's login, or holds one of somebody's, gets nowhere.
#[tokio::test]
async fn a_login_token_is_one_users_and_takes_that_users_codes_only() {
    let server = Server::start().await;
    let (ada, eve) = (protected(&server).await, protected(&server).await);
    let (adas, eves) =
        (first_step(&server, &ada.member).await, first_step(&server, &eve.member).await);
    let from = |n: u8, call: Call| call.from(&format!("203.0.113.{n}"));
    for (n, token, code) in [
        (1, &eves, ada.app.shows(&server, 0)),
        (2, &adas, eve.app.shows(&server, 0)),
        (3, &eves, ada.recovery_codes[0].clone()),
        (4, &adas, eve.recovery_codes[0].clone()),
        (5, &adas, eves.clone()),
        (6, &adas.to_uppercase(), ada.app.shows(&server, 0)),
        (7, &format!("{adas} "), ada.app.shows(&server, 0)),
        (8, &format!("{adas}\0"), ada.app.shows(&server, 0)),
    ] {
        from(n, second_step(&server, token, &code)).await.refused(401, "invalid_code");
    }
    // Nothing of that used up a code of the other, and each gets in by what is theirs: as themselves.
    for (n, protected, token) in [(11, &ada, &adas), (12, &eve, &eves)] {
        let reply = from(n, second_step(&server, token, &protected.recovery_codes[0])).await;
        let [_, claims] = parts(&reply.expect(200).text("access_token"));
        assert_eq!(claims["sub"], protected.member.id);
        let token = first_step(&server, &protected.member).await;
        from(n, second_step(&server, &token, &protected.app.shows(&server, 0))).await.expect(200);
    }
}

#[tokio::test]
async fn of_many_ways_to_finish_one_login_at_once_one_wins() {
    let server = Server::start().await;
    let Protected { member, app, recovery_codes } = protected(&server).await;
    let token = first_step(&server, &member).await;
    let codes = [app.shows(&server, 0), app.shows(&server, 1), recovery_codes[0].clone()];
    let replies = at_once(codes.iter().map(|code| second_step(&server, &token, code))).await;
    assert_eq!((count(&replies, 200), count(&replies, 401)), (1, 2));
}

#[tokio::test]
async fn recovery_code_works_in_place_of_a_code_once() {
    let server = Server::start().await;
    let Protected { member, recovery_codes, .. } = protected(&server).await;
    let login = async |code: &str| {
        let token = first_step(&server, &member).await;
        second_step(&server, &token, code).await
    };
    let reply = login(&recovery_codes[0]).await.expect(200);
    assert_eq!(parts(&reply.text("access_token"))[1]["amr"], json!(["pwd", "otp"]));
    login(&recovery_codes[0]).await.refused(401, "invalid_code");
    login(&recovery_codes[1].to_uppercase()).await.expect(200);
    login(&recovery_codes[2].replace('-', "")).await.expect(200);
    login(&format!(" {} ", recovery_codes[3])).await.expect(200);
    login(&recovery_codes[4][..5]).await.refused(401, "invalid_code");

    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(first_step(&server, &member).await);
    }
    let code = &recovery_codes[5];
    let replies = at_once(tokens.iter().map(|token| second_step(&server, token, code))).await;
    assert_eq!((count(&replies, 200), count(&replies, 401)), (1, 2));
}

#[tokio::test]
async fn it_is_turned_off_with_password_and_code() {
    let server = Server::start().await;
    let Protected { member, app, recovery_codes } = protected(&server).await;
    let code = app.shows(&server, 0);
    disable(&server, &member, "Wrong-Horse-1", &code).await.refused(403, "wrong_password");
    disable(&server, &member, PASSWORD, "000").await.refused(403, "wrong_code");
    disable(&server, &member, PASSWORD, &code).await.expect(204);
    assert_eq!(server.get("/auth/me").by(&member).await.json()["totp"], false);
    server.login(&member.email, PASSWORD).await.expect(200);
    // What is off has no codes.
    server.clock.advance(STEP);
    for code in [&app.shows(&server, 0), &recovery_codes[0]] {
        disable(&server, &member, PASSWORD, code).await.refused(403, "wrong_code");
    }
    begin(&server, &member).await;
}

#[tokio::test]
async fn wrong_codes_count_as_wrong_passwords_do() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let token = first_step(&server, &member).await;
    let left = |reply: Reply| reply.limiter("login").remaining;
    let setup = || server.post("/auth/totp", json!({"current_password": "Wrong-Horse-1"}));
    let wrong = server.login(&member.email, "Wrong-Horse-1").await;
    assert_eq!(left(wrong.refused(401, "invalid_credentials")), 4);
    let wrong = second_step(&server, &token, "0").await;
    assert_eq!(left(wrong.refused(401, "invalid_code")), 3);
    let wrong = setup().by(&member).await;
    assert_eq!(left(wrong.refused(403, "wrong_password")), 2);
    let wrong = disable(&server, &member, PASSWORD, "0").await;
    assert_eq!(left(wrong.refused(403, "wrong_code")), 1);
    // What goes well, or wrong in another way, takes nothing.
    let taken = server.post("/auth/totp", json!({"current_password": PASSWORD})).by(&member).await;
    assert_eq!(left(taken.refused(409, "totp_enabled")), 1);
    let stranger = setup().await.refused(401, "authentication_required");
    assert_eq!(stranger.limiter_names(), ["ip"]);
    assert_eq!(left(server.login(&member.email, PASSWORD).await), 1);
    let wrong = second_step(&server, "x", "0").await;
    assert_eq!(left(wrong.refused(401, "invalid_code")), 0);

    for call in [
        second_step(&server, &token, &app.shows(&server, 0)),
        disable(&server, &member, PASSWORD, &app.shows(&server, 0)),
        confirm(&server, &member, "0"),
        setup().by(&member),
    ] {
        call.await.refused(429, "too_many_login_attempts");
    }
    // A 429 is no try.
    second_step(&server, &token, &app.shows(&server, 0)).from("192.0.2.1").await.expect(200);
}

#[tokio::test]
async fn what_asks_for_a_password_or_code_needs_someone_signed_in() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    for (path, body, errors) in [
        ("/auth/totp", json!({}), &["current_password: required"][..]),
        ("/auth/totp/confirm", json!({"code": 1}), &["code: invalid_type"]),
        ("/auth/totp/disable", json!({"code": ""}), &["current_password: required"]),
    ] {
        let call = || server.post(path, body.clone());
        call().await.refused(401, "authentication_required");
        assert_eq!(call().by(&member).await.field_errors(), errors);
        server.get(path).by(&member).await.refused(405, "method_not_allowed");
        let key = server.post("/auth/keys", json!({"name": "x"})).by(&member).await.text("key");
        call().bearer(&key).await.refused(403, "insufficient_permissions");
    }
}

#[tokio::test]
async fn admin_takes_it_off_and_the_user_is_told() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let admin = server.join(Role::ADMIN).await;
    let path = format!("/admin/users/{}", member.id);
    for wrong in [json!({"totp": true}), json!({"totp": null}), json!({"totp": 0})] {
        let reply = server.patch(&path, wrong).by(&admin).await;
        assert_eq!(reply.field_errors(), ["totp: invalid_value"]);
    }
    let token = first_step(&server, &member).await;
    let user = server.patch(&path, json!({"totp": false})).by(&admin).await.expect(200).json();
    assert_eq!((&user["totp"], &user["id"]), (&Value::Bool(false), &json!(member.id)));
    let letter = server.letter().await;
    assert_eq!(letter.to().as_str(), member.email);
    assert!(letter.text().contains("second factor"));
    server.login(&member.email, PASSWORD).await.expect(200);
    let late = second_step(&server, &token, &app.shows(&server, 0)).await;
    late.refused(401, "invalid_code");
    // Of what isn't on nobody is told.
    server.patch(&path, json!({"totp": false})).by(&admin).await.expect(200);
    server.assert_no_letter().await;
}

#[tokio::test]
async fn what_an_admin_changes_at_once_is_done_as_a_whole_or_not_at_all() {
    let server = Server::start().await;
    let Protected { member, .. } = protected(&server).await;
    let admin = server.join(Role::ADMIN).await;
    let path = format!("/admin/users/{}", member.id);
    // The last admin has a second factor, and must stay.
    let setup = begin(&server, &admin).await;
    confirm(&server, &admin, &setup.shows(&server, 0)).await.expect(200);
    let own = format!("/admin/users/{}", admin.id);
    let both = json!({"role": "viewer", "totp": false});
    server.patch(&own, both).by(&admin).await.refused(409, "last_admin");
    assert_eq!(server.get("/auth/me").by(&admin).await.json()["totp"], true);
    server.assert_no_letter().await;

    let all = json!({"role": "editor", "plan": "paid", "suspended": true, "totp": false});
    let user = server.patch(&path, all).by(&admin).await.expect(200).json();
    assert_eq!(
        [&user["role"], &user["plan"], &user["suspended"], &user["totp"]],
        [&json!("editor"), &json!("paid"), &json!(true), &json!(false)]
    );
    assert!(server.letter().await.text().contains("second factor"));
}

#[tokio::test]
async fn deletion_needs_a_code_where_it_is_on() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let delete = |body: Value| server.post("/auth/me/delete", body).by(&member);
    let with = |code: &str| delete(json!({"current_password": PASSWORD, "code": code}));
    let missing = delete(json!({"current_password": PASSWORD})).await;
    assert_eq!(missing.field_errors(), ["code: required"]);
    let odd = delete(json!({"current_password": PASSWORD, "code": 1})).await;
    assert_eq!(odd.field_errors(), ["code: invalid_type"]);
    let neither = delete(json!({})).await.field_errors();
    assert_eq!(neither, ["current_password: required", "code: required"]);
    let unknown = delete(json!({"current_password": PASSWORD, "x": 1})).await.field_errors();
    assert_eq!(unknown, [": unknown_field", "code: required"]);
    let wrong = json!({"current_password": "Wrong-Horse-1"});
    delete(wrong).await.refused(403, "wrong_password");
    delete(json!({"current_password": "Wrong-Horse-1"})).await.refused(403, "wrong_password");
    with("0").await.refused(403, "wrong_code");
    let token = first_step(&server, &member).await;
    let key = server.post("/auth/keys", json!({"name": "x"})).by(&member).await.text("key");
    server.get("/projects").bearer(&key).await.expect(200);
    with(&app.shows(&server, 0)).await.expect(204);

    // All that was its is gone.
    server.get("/projects").bearer(&key).await.refused(401, "token_revoked");
    let late = second_step(&server, &token, &app.shows(&server, 1)).await;
    late.refused(401, "invalid_code");
    server.login(&member.email, PASSWORD).await.refused(401, "invalid_credentials");
}

#[tokio::test]
async fn suspension_ends_keys_and_logins_for_good_and_leaves_the_second_factor() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let Protected { member, app, .. } = protected(&server).await;
    let key = server.post("/auth/keys", json!({"name": "x"})).by(&member).await.text("key");
    server.get("/projects").bearer(&key).await.expect(200);
    let token = first_step(&server, &member).await;
    let path = format!("/admin/users/{}", member.id);
    let suspend = |suspended: bool| server.patch(&path, json!({"suspended": suspended})).by(&admin);
    suspend(true).await.expect(200);
    server.get("/projects").bearer(&key).await.refused(401, "token_revoked");
    second_step(&server, &token, &app.shows(&server, 0)).await.refused(401, "invalid_code");
    server.login(&member.email, PASSWORD).await.refused(403, "account_suspended");

    let user = suspend(false).await.expect(200);
    assert_eq!(user.json()["totp"], true);
    server.get("/projects").bearer(&key).await.refused(401, "token_revoked");
    second_step(&server, &token, &app.shows(&server, 0)).await.refused(401, "invalid_code");
    let token = first_step(&server, &member).await;
    second_step(&server, &token, &app.shows(&server, 0)).await.expect(200);
}

#[tokio::test]
async fn changed_password_ends_a_login_between_its_steps_and_leaves_keys() {
    let server = Server::start().await;
    let Protected { member, app, .. } = protected(&server).await;
    let key = server.post("/auth/keys", json!({"name": "x"})).by(&member).await.text("key");
    let token = first_step(&server, &member).await;
    let body = json!({"current_password": PASSWORD, "password": "Another-Horse-1"});
    server.post("/auth/password/change", body).by(&member).await.expect(200);
    second_step(&server, &token, &app.shows(&server, 0)).await.refused(401, "invalid_code");
    server.get("/projects").bearer(&key).await.expect(200);
}

#[tokio::test]
async fn wrong_codes_count_by_account_from_all_addresses_together() {
    let server = Server::with(|app| {
        app.limits.quotas.account = tower_warden::Quota::new(3, 60 * MINUTE).unwrap();
    })
    .await;
    let Protected { member, app, .. } = protected(&server).await;
    let token = first_step(&server, &member).await;
    let step =
        |n: u8, code: &str| second_step(&server, &token, code).from(&format!("203.0.113.{n}"));
    for n in 0..3 {
        step(n, "0").await.refused(401, "invalid_code");
    }
    let reply = step(9, &app.shows(&server, 0)).await.refused(429, "too_many_login_attempts");
    assert_eq!(reply.json()["violated-policies"], json!(["account"]));
}
