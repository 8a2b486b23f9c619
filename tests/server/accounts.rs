//! Accounts: registration, passwords, addresses, and how they are verified.

use serde_json::json;
use tower_warden::{Clock, Role};

use crate::{
    reply::assert_members,
    support::{Api, DAY, MINUTE, PASSWORD, SECOND, Server, at_once, count, token_in},
};

#[tokio::test]
async fn registration_succeeds() {
    let server = Server::start().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let user = server.post("/auth/register", body).await.expect(201).json();
    let members =
        ["id", "email", "role", "plan", "email_verified", "suspended", "totp", "created_at"];
    assert_members(user.as_object().unwrap(), &members);
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(user["role"], "viewer");
    assert_eq!(user["plan"], json!(null));
    assert_eq!(user["email_verified"], false);
    let id = user["id"].as_str().unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().hyphenated().to_string(), id);
    let created_at = user["created_at"].as_str().unwrap();
    assert_eq!(humantime::parse_rfc3339(created_at).unwrap(), server.clock.now());
}

#[tokio::test]
async fn duplicate_address_is_refused() {
    let server = Server::start().await;
    server.register("ada@example.com").await;
    for same in ["ada@example.com", "ADA@Example.COM", "  ada@example.com\t"] {
        let body = json!({"email": same, "password": PASSWORD});
        server.post("/auth/register", body).await.refused(409, "email_taken");
    }
    server.assert_no_letter().await;
}

#[tokio::test]
async fn weak_password_is_refused() {
    let server = Server::start().await;
    let of_72_bytes = format!("Aa1{}", "x".repeat(69));
    let of_73_bytes = format!("Aa1{}", "é".repeat(35));
    for (password, violations) in [
        ("Abcdefgh1", &["too_short"][..]),
        ("Äöüäöüäö1", &["too_short"]),
        ("Abcdefghi1", &[]),
        ("Äöüäöüäöü1", &[]),
        (&of_72_bytes, &[]),
        (&of_73_bytes, &["too_long"]),
        ("correct-horse-1", &["no_uppercase"]),
        ("CORRECT-HORSE-1", &["no_lowercase"]),
        ("Correct-Horse-I", &["no_digit"]),
        ("Correct-Horse-\u{661}", &["no_digit"]),
        ("Correct\0Horse-1", &["contains_nul"]),
        ("", &["too_short", "no_uppercase", "no_lowercase", "no_digit"]),
    ] {
        let email = format!("u{}@example.com", uuid::Uuid::new_v4().simple());
        let body = json!({"email": email, "password": password});
        let reply = server.post("/auth/register", body).await;
        if violations.is_empty() {
            reply.expect(201);
        } else {
            let expected: Vec<_> =
                violations.iter().map(|code| format!("password: {code}")).collect();
            assert_eq!(reply.field_errors(), expected, "{password:?}");
        }
    }
}

#[tokio::test]
async fn verification_token_is_made_and_mailed() {
    let server = Server::start().await;
    let body = json!({"email": " Ada@Example.com", "password": PASSWORD});
    server.post("/auth/register", body).header("host", "evil.example").await.expect(201);
    let letter = server.letter().await;
    assert_eq!(letter.to().as_str(), "ada@example.com");
    let token = token_in(&letter);
    let link = format!("https://api.example/auth/verify?token={token}");
    assert!(letter.text().lines().any(|line| line == link), "{}", letter.text());

    let path = format!("/auth/verify?token={token}");
    let verified = server.get(&path).await.expect(200).json();
    assert_eq!(verified, json!({"email_verified": true}));
    server.login("ada@example.com", PASSWORD).await.expect(200);
    server.get(&path).await.refused(400, "invalid_verification_token");
}

#[tokio::test]
async fn address_has_one_canonical_form() {
    let server = Server::start().await;
    for (sent, shown) in [
        ("  Grace@Example.COM\n", Some("grace@example.com")),
        ("o'neil+x@xn--bcher-kva.example", Some("o'neil+x@xn--bcher-kva.example")),
        ("grace@bücher.example", None),
        ("gräce@example.com", None),
        ("grace@example", None),
        ("grace@example.com\r\nBcc: x@example.com", None),
        ("grace@example.com\0", None),
        ("", None),
    ] {
        let body = json!({"email": sent, "password": PASSWORD});
        let reply = server.post("/auth/register", body).await;
        match shown {
            Some(shown) => assert_eq!(reply.expect(201).text("email"), shown),
            None => assert_eq!(reply.field_errors(), ["email: invalid_email"], "{sent:?}"),
        }
    }
    server.users.verify_email(&token_in(&server.letter().await)).await.unwrap();
    server.login("\tGRACE@example.com ", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn of_many_who_register_one_address_at_once_one_succeeds() {
    let server = Server::start().await;
    let calls = (0..20).map(|n| {
        let email = if n % 2 == 0 { "ada@example.com" } else { "ADA@example.com" };
        server.post("/auth/register", json!({"email": email, "password": PASSWORD}))
    });
    let replies = at_once(calls).await;
    assert_eq!((count(&replies, 201), count(&replies, 409)), (1, 19));
    server.letter().await;
    server.assert_no_letter().await;
    assert_eq!(server.users.count().await.unwrap(), 1);
}

#[tokio::test]
async fn link_works_for_24_hours() {
    let server = Server::start().await;
    let (first, second) =
        (server.register("a@example.com").await, server.register("b@example.com").await);
    server.clock.advance(DAY - SECOND);
    server.get(&format!("/auth/verify?token={first}")).await.expect(200);
    server.clock.advance(SECOND);
    let late = server.get(&format!("/auth/verify?token={second}")).await;
    late.refused(400, "invalid_verification_token");
}

#[tokio::test]
async fn other_text_verifies_nothing() {
    let server = Server::start().await;
    let token = server.register("ada@example.com").await;
    for query in [
        format!("?token={}", "0".repeat(64)),
        format!("?token={}", token.to_uppercase()),
        format!("?token={token}0"),
        "?token=%00".to_owned(),
        "?token=".to_owned(),
    ] {
        let reply = server.get(&format!("/auth/verify{query}")).await;
        reply.refused(400, "invalid_verification_token");
    }
    for query in [
        "".to_owned(),
        "?".to_owned(),
        format!("?token={token}&token={token}"),
        format!("?Token={token}"),
    ] {
        server.get(&format!("/auth/verify{query}")).await.refused(400, "invalid_request");
    }
    server.get(&format!("/auth/verify?token={token}")).await.expect(200);
}

#[tokio::test]
async fn head_verify_changes_nothing() {
    let server = Server::start().await;
    let path = format!("/auth/verify?token={}", server.register("ada@example.com").await);
    for _ in 0..2 {
        server.head(&path).await.expect(200);
    }
    server.login("ada@example.com", PASSWORD).await.refused(403, "email_not_verified");
    server.get(&path).await.expect(200);
    server.head(&path).await.expect(400);
}

#[tokio::test]
async fn new_link_is_mailed_at_most_once_a_minute_and_the_old_one_dies() {
    let server = Server::start().await;
    let resend = || server.post("/auth/verify/resend", json!({"email": "ADA@example.com"}));
    let old = server.register("ada@example.com").await;
    server.clock.advance(MINUTE - SECOND);
    assert!(resend().await.expect(202).body.is_empty());
    server.assert_no_letter().await;

    server.clock.advance(SECOND);
    let replies = at_once((0..5).map(|_| resend())).await;
    assert_eq!(count(&replies, 202), 5);
    let letter = server.letter().await;
    server.assert_no_letter().await;
    assert_eq!(letter.to().as_str(), "ada@example.com");
    let new = token_in(&letter);
    server
        .get(&format!("/auth/verify?token={old}"))
        .await
        .refused(400, "invalid_verification_token");
    server.get(&format!("/auth/verify?token={new}")).await.expect(200);

    server.clock.advance(MINUTE);
    resend().await.expect(202);
    server.assert_no_letter().await;
}

#[tokio::test]
async fn resend_does_not_tell_who_is_registered() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    server.register("ada@example.com").await;
    server.clock.advance(MINUTE);
    for email in ["nobody@example.com", &member.email, "ada@example.com"] {
        let reply = server.post("/auth/verify/resend", json!({"email": email})).await.expect(202);
        assert!(reply.body.is_empty(), "{email}");
    }
    assert_eq!(server.letter().await.to().as_str(), "ada@example.com");
    server.assert_no_letter().await;
}
