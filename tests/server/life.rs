//! Accounts for life: forgotten and changed passwords, changed addresses, suspension, deletion.

use serde_json::{Value, json};
use tower_warden::Role;

use crate::support::{Api, MINUTE, PASSWORD, SECOND, Server, Session, at_once, token_in};

const NEW: &str = "Another-Horse-2";

impl Server {
    async fn forgot(&self, email: &str) {
        let asked = self.post("/auth/password/forgot", json!({"email": email})).await;
        assert!(asked.expect(202).body.is_empty());
    }

    /// The token of a link to reset the password.
    async fn reset_token(&self, email: &str) -> String {
        self.forgot(email).await;
        token_in(&self.letter().await)
    }

    fn reset(&self, token: &str, password: &str) -> crate::support::Call {
        self.post("/auth/password/reset", json!({"token": token, "password": password}))
    }

    fn change_password(&self, current: &str, new: &str) -> crate::support::Call {
        let body = json!({"current_password": current, "password": new});
        self.post("/auth/password/change", body)
    }

    fn change_email(&self, current: &str, email: &str) -> crate::support::Call {
        let body = json!({"current_password": current, "email": email});
        self.post("/auth/email/change", body)
    }

    async fn suspend(&self, admin: &Session, who: &str, suspended: bool) -> Value {
        let path = format!("/admin/users/{who}");
        self.patch(&path, json!({"suspended": suspended})).by(admin).await.expect(200).json()
    }

    /// A session that was opened by a password.
    async fn log_in(&self, email: &str, password: &str) -> Session {
        let pair = self.login(email, password).await.expect(200);
        let access = pair.text("access_token");
        let me = self.get("/auth/me").bearer(&access).await.expect(200);
        let (id, refresh) = (me.text("id"), pair.text("refresh_token"));
        Session { id, email: email.to_owned(), access, refresh }
    }
}

#[tokio::test]
async fn forgotten_password_is_set_by_a_link_that_works_once() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let session = server.log_in("ada@example.com", PASSWORD).await;
    let token = server.reset_token(" Ada@Example.com ").await;

    assert_eq!(server.reset(&token, "weak").await.field_errors()[0], "password: too_short");
    assert!(server.reset(&token, NEW).await.expect(204).body.is_empty());
    assert_eq!(server.letter().await.subject(), "Your password was changed");
    server.reset(&token, "Third-Horse-3").await.refused(400, "invalid_reset_token");
    server.refresh(&session.refresh).await.refused(401, "invalid_refresh_token");
    server.login("ada@example.com", PASSWORD).await.refused(401, "invalid_credentials");
    server.log_in("ada@example.com", NEW).await;
}

#[tokio::test]
async fn link_of_a_forgotten_password_ends_after_30_minutes_or_by_a_newer_one() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let first = server.reset_token("ada@example.com").await;
    server.clock.advance(MINUTE - SECOND);
    server.forgot("ada@example.com").await;
    server.assert_no_letter().await;
    server.clock.advance(SECOND);
    let second = server.reset_token("ada@example.com").await;
    server.reset(&first, NEW).await.refused(400, "invalid_reset_token");
    server.clock.advance(30 * MINUTE);
    server.reset(&second, NEW).await.refused(400, "invalid_reset_token");
    server.reset("", NEW).await.refused(400, "invalid_reset_token");
}

#[tokio::test]
async fn forgotten_password_of_nobody_is_answered_alike() {
    let server = Server::start().await;
    for email in ["nobody@example.com", "no address", ""] {
        server.forgot(email).await;
    }
    let wrong = server.post("/auth/password/forgot", json!({"email": 1})).await;
    assert_eq!(wrong.field_errors(), ["email: invalid_type"]);
    server.assert_no_letter().await;
}

#[tokio::test]
async fn reset_proves_the_address_of_a_stranger_s_registration() {
    let server = Server::start().await;
    let link = server.register("ada@example.com").await; // by somebody else
    let token = server.reset_token("ada@example.com").await;
    server.reset(&token, NEW).await.expect(204);
    server.login("ada@example.com", PASSWORD).await.refused(401, "invalid_credentials");
    server.log_in("ada@example.com", NEW).await;
    let verify = server.get(&format!("/auth/verify?token={link}")).await;
    verify.refused(400, "invalid_verification_token");
}

#[tokio::test]
async fn tokens_of_one_purpose_never_work_for_another() {
    let server = Server::start().await;
    let verification = server.register("bob@example.com").await;
    server.register_verified("ada@example.com").await;
    let session = server.log_in("ada@example.com", PASSWORD).await;
    let reset = server.reset_token("ada@example.com").await;
    server.change_email(PASSWORD, "new@example.com").by(&session).await.expect(202);
    let change = token_in(&server.letter().await);
    for (token, purpose) in [(&verification, 0), (&reset, 1), (&change, 2)] {
        if purpose != 0 {
            let reply = server.get(&format!("/auth/verify?token={token}")).await;
            reply.refused(400, "invalid_verification_token");
        }
        if purpose != 1 {
            server.reset(token, NEW).await.refused(400, "invalid_reset_token");
        }
        if purpose != 2 {
            let reply = server.post("/auth/email/confirm", json!({"token": token})).await;
            reply.refused(400, "invalid_email_token");
        }
    }
}

#[tokio::test]
async fn changed_password_ends_every_other_session() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let other = server.log_in("ada@example.com", PASSWORD).await;
    let this = server.log_in("ada@example.com", PASSWORD).await;
    let reset = server.reset_token("ada@example.com").await;

    for new in ["weak", NEW] {
        let wrong = server.change_password("Wrong-Horse-1", new).by(&this).await;
        wrong.refused(403, "wrong_password");
    }
    let weak = server.change_password(PASSWORD, "weak").by(&this).await;
    assert_eq!(weak.field_errors()[0], "password: too_short");
    let pair = server.change_password(PASSWORD, NEW).by(&this).await.expect(200);
    assert_eq!(pair.header("cache-control"), Some("no-store"));
    assert_eq!(server.letter().await.subject(), "Your password was changed");

    server.refresh(&other.refresh).await.refused(401, "invalid_refresh_token");
    server.get("/auth/me").by(&this).await.expect(200);
    let next = server.refresh(&pair.text("refresh_token")).await.expect(200);
    server.get("/auth/me").bearer(&next.text("access_token")).await.expect(200);
    server.reset(&reset, "Third-Horse-3").await.refused(400, "invalid_reset_token");
    server.login("ada@example.com", PASSWORD).await.refused(401, "invalid_credentials");
    // The one that was replaced is as used as any other.
    server.refresh(&this.refresh).await.refused(401, "invalid_refresh_token");
    server.refresh(&next.text("refresh_token")).await.refused(401, "invalid_refresh_token");
}

#[tokio::test]
async fn address_changes_once_the_new_one_is_confirmed() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let session = server.log_in("ada@example.com", PASSWORD).await;
    let wrong = server.change_email("Wrong-Horse-1", "new@example.com").by(&session).await;
    wrong.refused(403, "wrong_password");
    let own = server.change_email(PASSWORD, "ADA@example.com").by(&session).await;
    assert_eq!(own.field_errors(), ["email: unchanged"]);
    let none = server.change_email(PASSWORD, "no address").by(&session).await;
    assert_eq!(none.field_errors(), ["email: invalid_email"]);
    server.register_verified("bob@example.com").await;
    let taken = server.change_email(PASSWORD, "bob@example.com").by(&session).await;
    taken.refused(409, "email_taken");

    server.change_email(PASSWORD, "new@example.com").by(&session).await.expect(202);
    let mut letters = [server.letter().await, server.letter().await];
    letters.sort_by_key(|letter| letter.to().to_string());
    assert_eq!(letters[0].to().as_str(), "ada@example.com");
    assert_eq!(letters[1].to().as_str(), "new@example.com");
    let token = token_in(&letters[1]);
    server.change_email(PASSWORD, "third@example.com").by(&session).await.expect(202);
    server.assert_no_letter().await;
    assert_eq!(server.get("/auth/me").by(&session).await.text("email"), "ada@example.com");

    let confirmed = server.post("/auth/email/confirm", json!({"token": token})).await.expect(200);
    assert_eq!(confirmed.json(), json!({"email": "new@example.com"}));
    let again = server.post("/auth/email/confirm", json!({"token": token})).await;
    again.refused(400, "invalid_email_token");
    assert_eq!(server.get("/auth/me").by(&session).await.text("email"), "new@example.com");
    server.login("ada@example.com", PASSWORD).await.refused(401, "invalid_credentials");
    server.log_in("new@example.com", PASSWORD).await;
    server.register("ada@example.com").await;
}

#[tokio::test]
async fn address_that_was_taken_meanwhile_uses_the_link_up() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let session = server.log_in("ada@example.com", PASSWORD).await;
    server.change_email(PASSWORD, "new@example.com").by(&session).await.expect(202);
    let letters = [server.letter().await, server.letter().await];
    let letter = letters.iter().find(|letter| letter.to().as_str() == "new@example.com");
    let token = token_in(letter.unwrap());
    server.register("new@example.com").await;
    for (status, code) in [(409, "email_taken"), (400, "invalid_email_token")] {
        let reply = server.post("/auth/email/confirm", json!({"token": token})).await;
        reply.refused(status, code);
    }
}

#[tokio::test]
async fn deleted_account_is_gone_and_its_address_free() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let session = server.log_in("ada@example.com", PASSWORD).await;
    let deletion = |password| server.post("/auth/me/delete", json!({"current_password": password}));
    deletion("Wrong-Horse-1").by(&session).await.refused(403, "wrong_password");
    assert!(deletion(PASSWORD).by(&session).await.expect(204).body.is_empty());
    server.refresh(&session.refresh).await.refused(401, "invalid_refresh_token");
    server.login("ada@example.com", PASSWORD).await.refused(401, "invalid_credentials");
    server.register_verified("ada@example.com").await;

    let admin = server.join(Role::ADMIN).await;
    deletion(PASSWORD).by(&admin).await.refused(409, "last_admin");
}

#[tokio::test]
async fn suspended_account_is_closed_until_an_admin_opens_it() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    server.register_verified("ada@example.com").await;
    let session = server.log_in("ada@example.com", PASSWORD).await;
    let reset = server.reset_token("ada@example.com").await;

    let user = server.suspend(&admin, &session.id, true).await;
    assert_eq!(user["suspended"], true);
    server.refresh(&session.refresh).await.refused(401, "invalid_refresh_token");
    server.login("ada@example.com", PASSWORD).await.refused(403, "account_suspended");
    server.login("ada@example.com", NEW).await.refused(401, "invalid_credentials");
    server.reset(&reset, NEW).await.refused(400, "invalid_reset_token");
    server.clock.advance(MINUTE);
    server.forgot("ada@example.com").await;
    server.assert_no_letter().await;

    assert_eq!(server.suspend(&admin, &session.id, false).await["suspended"], false);
    server.refresh(&session.refresh).await.refused(401, "invalid_refresh_token");
    server.log_in("ada@example.com", PASSWORD).await;

    let last = server.patch(&format!("/admin/users/{}", admin.id), json!({"suspended": true}));
    last.by(&admin).await.refused(409, "last_admin");
    let wrong = server.patch(&format!("/admin/users/{}", admin.id), json!({"suspended": 1}));
    assert_eq!(wrong.by(&admin).await.field_errors(), ["suspended: invalid_type"]);
}

#[tokio::test]
async fn demoted_admin_cannot_come_back_by_an_old_token() {
    let server = Server::start().await;
    let (root, admin) = (server.join(Role::ADMIN).await, server.join(Role::ADMIN).await);
    let path = format!("/admin/users/{}", admin.id);
    server.patch(&path, json!({"role": "viewer"})).by(&root).await.expect(200);
    let back = server.patch(&path, json!({"role": "admin"})).by(&admin).await;
    // Once the feed of revocations tells of it, the token itself is no longer good.
    assert!([401, 403].contains(&back.status.as_u16()), "{back:?}");
    let me = server.get(&format!("/admin/users?email={}", admin.email)).by(&root).await.json();
    assert_eq!(me["users"][0]["role"], "viewer");
}

#[tokio::test]
async fn of_two_admins_who_suspend_each_other_one_stays() {
    let server = Server::start().await;
    let admins = [server.join(Role::ADMIN).await, server.join(Role::ADMIN).await];
    let replies = at_once([(0, 1), (1, 0)].map(|(by, who)| {
        let path = format!("/admin/users/{}", admins[who].id);
        server.patch(&path, json!({"suspended": true})).by(&admins[by])
    }));
    let ok = replies.await.into_iter().filter(|reply| reply.status == 200).count();
    assert_eq!(ok, 1);
}

#[tokio::test]
async fn admins_list_users_the_newest_first() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    for n in 0..4 {
        server.clock.advance(SECOND);
        server.register(&format!("u{n}@example.com")).await;
    }
    let get = async |query: &str| {
        server.get(&format!("/admin/users{query}")).by(&admin).await.expect(200).json()
    };
    let emails = |page: &Value| -> Vec<String> {
        let users = page["users"].as_array().unwrap().iter();
        users.map(|user| user["email"].as_str().unwrap().to_owned()).collect()
    };
    let all = get("").await;
    assert_eq!(emails(&all)[..2], ["u3@example.com", "u2@example.com"]);
    assert_eq!((emails(&all).len(), &all["next"]), (5, &json!(null)));
    let (mut query, mut seen) = ("?limit=2".to_owned(), vec![]);
    loop {
        let page = get(&query).await;
        seen.extend(emails(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=2&after={next}");
    }
    assert_eq!(seen, emails(&all));

    assert_eq!(emails(&get("?email=U1%40example.com").await), ["u1@example.com"]);
    for nobody in ["?email=nobody%40example.com", "?email=no%20address", "?email="] {
        assert_eq!(get(nobody).await, json!({"users": [], "next": null}));
    }
    for bad in ["?limit=0", "?limit=101", "?limit=x", "?after=x", "?limit=1&limit=2"] {
        let reply = server.get(&format!("/admin/users{bad}")).by(&admin).await;
        reply.refused(400, "invalid_request");
    }
    let viewer = server.join(Role::VIEWER).await;
    server.get("/admin/users").by(&viewer).await.refused(403, "insufficient_permissions");
}
