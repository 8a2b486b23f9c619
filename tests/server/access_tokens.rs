//! Access tokens: what is taken for one, and what is not.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};
use tower_warden::{Clock, Role};

use crate::{
    reply::Reply,
    support::{Api, PRIVATE_KEY, Server},
};

const OTHER_KEY: &str = include_str!("../support/keys/other-rsa-private.pem");
const PUBLIC_KEY: &str = include_str!("../support/keys/rsa-public.pem");

#[tokio::test]
async fn forged_tokens_are_refused() {
    let mint = Mint::new().await;
    mint.me(&mint.rs256(|_, _| {})).await.expect(200);

    let (header, claims) = mint.genuine();
    let genuine = mint.rs256(|_, _| {});
    let (unsigned, signature) = genuine.rsplit_once('.').unwrap();
    let none = json!({"alg": "none", "typ": "at+jwt", "kid": header["kid"]});
    let mut hs256 = header.clone();
    hs256["alg"] = json!("HS256");
    let hmac_by = |key: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        token(&hs256, &claims, |text| hmac::sign(&key, text).as_ref().to_vec())
    };
    for (case, forged) in [
        ("no kid", mint.rs256(|header, _| drop(remove(header, "kid")))),
        ("unknown kid", mint.rs256(|header, _| header["kid"] = json!("x"))),
        ("kid is a path", mint.rs256(|header, _| header["kid"] = json!("../../dev/null"))),
        ("no typ", mint.rs256(|header, _| drop(remove(header, "typ")))),
        ("typ JWT", mint.rs256(|header, _| header["typ"] = json!("JWT"))),
        ("other alg", mint.rs256(|header, _| header["alg"] = json!("RS512"))),
        ("brings its key", mint.rs256(|header, _| header["jwk"] = json!({"kty": "RSA"}))),
        ("crit", mint.rs256(|header, _| header["crit"] = json!(["exp"]))),
        ("alg none", token(&none, &claims, |_| Vec::new())),
        ("alg none, signed", token(&none, &claims, |text| sign(PRIVATE_KEY, text))),
        ("HS256 by the public key", hmac_by(PUBLIC_KEY.as_bytes())),
        ("HS256 by its DER", hmac_by(&der(PUBLIC_KEY))),
        ("other key", token(&header, &claims, |text| sign(OTHER_KEY, text))),
        (
            "other claims",
            format!("{}.{}.{signature}", encode(&header), encode(&with_role(&claims, "admin"))),
        ),
        ("no signature", token(&header, &claims, |_| Vec::new())),
        ("two parts", unsigned.to_owned()),
        ("four parts", format!("{genuine}.x")),
        ("padded", format!("{genuine}=")),
        ("no token", "x".to_owned()),
        ("two words", format!("{genuine} {genuine}")),
        ("too long", format!("{genuine}{}", "x".repeat(8192))),
        ("61 s from the future", mint.rs256(|_, claims| shift(claims, 61))),
        ("lives too long", mint.rs256(|_, claims| add(claims, "exp", 1))),
        ("ends before it begins", mint.rs256(|_, claims| add(claims, "exp", -901))),
        ("no exp", mint.rs256(|_, claims| drop(remove(claims, "exp")))),
        ("no iat", mint.rs256(|_, claims| drop(remove(claims, "iat")))),
        ("exp is text", mint.rs256(|_, claims| claims["exp"] = json!(claims["exp"].to_string()))),
        (
            "exp is no integer",
            mint.rs256(|_, claims| claims["exp"] = json!(claims["exp"].as_f64())),
        ),
        ("other issuer", mint.rs256(|_, claims| claims["iss"] = json!("other"))),
        ("two issuers", mint.rs256(|_, claims| claims["iss"] = json!(["tower-warden"]))),
        ("other audience", mint.rs256(|_, claims| claims["aud"] = json!("other"))),
        ("no audience", mint.rs256(|_, claims| drop(remove(claims, "aud")))),
        ("no subject", mint.rs256(|_, claims| drop(remove(claims, "sub")))),
        ("no role", mint.rs256(|_, claims| drop(remove(claims, "role")))),
        ("plan null", mint.rs256(|_, claims| claims["plan"] = Value::Null)),
        ("no jti", mint.rs256(|_, claims| drop(remove(claims, "jti")))),
        ("no session", mint.rs256(|_, claims| drop(remove(claims, "sid")))),
        ("no auth_time", mint.rs256(|_, claims| drop(remove(claims, "auth_time")))),
        ("no amr", mint.rs256(|_, claims| drop(remove(claims, "amr")))),
        ("no user's id", mint.rs256(|_, claims| claims["sub"] = json!("ada"))),
        (
            "not yet",
            mint.rs256(|_, claims| {
                claims["nbf"] = claims["iat"].clone();
                add(claims, "nbf", 1);
            }),
        ),
        ("expired forgery", token(&header, &shifted(&claims, -900), |text| sign(OTHER_KEY, text))),
    ] {
        let reply = mint.me(&forged).await;
        assert_eq!(reply.error(), (401, "invalid_token"), "{case}");
    }
}

#[tokio::test]
async fn genuine_tokens_are_taken() {
    let mint = Mint::new().await;
    for (case, genuine) in [
        ("60 s from the future", mint.rs256(|_, claims| shift(claims, 60))),
        ("one second left", mint.rs256(|_, claims| shift(claims, -899))),
        ("full media type", mint.rs256(|header, _| header["typ"] = json!("application/at+jwt"))),
        ("several audiences", mint.rs256(|_, claims| claims["aud"] = json!(["other", "api"]))),
    ] {
        assert_eq!(mint.me(&genuine).await.status, 200, "{case}");
    }
    mint.me(&mint.rs256(|_, claims| shift(claims, -900))).await.refused(401, "token_expired");
}

#[tokio::test]
async fn role_is_the_tokens_and_a_made_up_one_passes_nowhere() {
    let mint = Mint::new().await;
    let token = mint.rs256(|_, claims| claims["role"] = json!("superadmin"));
    mint.me(&token).await.expect(200);
    mint.server.get("/analytics").bearer(&token).await.refused(403, "insufficient_permissions");
}

#[tokio::test]
async fn without_a_bearer_token_authentication_is_required() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    server.get("/auth/me").await.refused(401, "authentication_required");
    for value in ["", " ", "Bearer", "Bearer ", "Basic YTpi", &member.access, "Bearerx y"] {
        let reply = server.get("/auth/me").header("authorization", value).await;
        reply.refused(401, "authentication_required");
    }
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        let value = format!("{scheme} {}", member.access);
        server.get("/auth/me").header("authorization", value).await.expect(200);
    }
    server
        .get("/auth/me")
        .header("authorization", b"Bearer \xff")
        .await
        .refused(401, "invalid_token");
}

#[tokio::test]
async fn two_authorization_headers_are_refused_everywhere_and_counted_by_address() {
    let server = Server::start().await;
    let member = server.join(Role::ADMIN).await;
    let mut left = 100;
    for path in ["/auth/me", "/projects", "/public/status", "/auth/login", "/nowhere"] {
        for others in ["Basic YTpi", &format!("Bearer {}", member.access)] {
            let call = server.get(path).by(&member).header("authorization", others);
            let reply = call.from("192.0.2.1").await.refused(400, "invalid_request");
            left -= 1;
            assert_eq!(reply.limiter_names(), ["ip"], "{path}");
            assert_eq!(reply.remaining(), left, "{path}");
        }
    }
    for _ in 0..left {
        server.get("/public/status").from("192.0.2.1").await.expect(200);
    }
    for path in ["/auth/me", "/public/status"] {
        let twice = server.get(path).by(&member).bearer("x").from("192.0.2.1");
        twice.await.refused(429, "rate_limited");
    }
}

/// Makes tokens with the server's own key.
struct Mint {
    server: Server,
    claims: Value,
    header: Value,
}

impl Mint {
    async fn new() -> Self {
        let server = Server::start().await;
        let jwks = server.get("/.well-known/jwks.json").await.json();
        let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": jwks["keys"][0]["kid"]});
        let now = server.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let member = server.join(Role::VIEWER).await;
        let claims = json!({
            "iss": "tower-warden", "aud": "api", "sub": member.id, "role": "viewer", "jti": "1",
            "iat": now, "exp": now + 900, "sid": "s", "auth_time": now, "amr": ["pwd"],
        });
        Self { server, claims, header }
    }

    fn genuine(&self) -> (Value, Value) {
        (self.header.clone(), self.claims.clone())
    }

    /// A token with a right signature, changed before it was signed.
    fn rs256(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let (mut header, mut claims) = self.genuine();
        change(&mut header, &mut claims);
        token(&header, &claims, |text| sign(PRIVATE_KEY, text))
    }

    async fn me(&self, token: &str) -> Reply {
        self.server.get("/auth/me").bearer(token).await
    }
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = BASE64URL.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn encode(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

fn sign(pem: &str, text: &[u8]) -> Vec<u8> {
    let key = RsaKeyPair::from_pkcs8(&der(pem)).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).unwrap();
    signature
}

fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64.decode(lines).unwrap()
}

fn remove(object: &mut Value, member: &str) -> Option<Value> {
    object.as_object_mut().unwrap().remove(member)
}

fn add(claims: &mut Value, claim: &str, seconds: i64) {
    claims[claim] = json!(claims[claim].as_i64().unwrap() + seconds);
}

/// The same life, earlier or later.
fn shift(claims: &mut Value, seconds: i64) {
    add(claims, "iat", seconds);
    add(claims, "exp", seconds);
}

fn with_role(claims: &Value, role: &str) -> Value {
    let mut claims = claims.clone();
    claims["role"] = json!(role);
    claims
}

fn shifted(claims: &Value, seconds: i64) -> Value {
    let mut claims = claims.clone();
    shift(&mut claims, seconds);
    claims
}
