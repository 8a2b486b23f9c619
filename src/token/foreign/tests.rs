use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

use super::*;
use crate::{
    ManualClock, Plan, Role,
    token::{
        SigningKey,
        backend::{
            rand::SystemRandom,
            signature::{RSA_PSS_SHA256, RsaKeyPair},
        },
    },
};

macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/support/keys/", $name, ".pem")).as_slice()
    };
}

/// What `ManualClock` shows at first.
const NOW: u64 = 1_767_225_600;

/// An issuer with a key of ours, and a shape of its own.
struct Issuer {
    key: SigningKey,
    jwk: Value,
    header: Value,
    claims: Value,
}

impl Issuer {
    /// Its JWKS has this besides the key, tokens this header and these claims.
    fn new(pem: &[u8], jwk: Value, header: Value, claims: Value) -> Self {
        let key = SigningKey::from_pem(pem).unwrap();
        let mut of_key = serde_json::to_value(key.verifying_key().jwk()).unwrap();
        for name in ["use", "alg", "kid"] {
            of_key.as_object_mut().unwrap().remove(name);
        }
        merge(&mut of_key, jwk);
        let mut all = json!({"iat": NOW, "exp": NOW + 3600});
        merge(&mut all, claims);
        Self { key, jwk: of_key, header, claims: all }
    }

    fn jwks(&self) -> Jwks {
        let encryption = json!({"kty": "RSA", "use": "enc", "kid": "1", "n": "AQAB", "e": "AQAB"});
        serde_json::from_value(json!({"keys": [encryption, self.jwk]})).unwrap()
    }

    fn token(&self, header: Value, claims: Value) -> String {
        let (mut all_header, mut all_claims) = (self.header.clone(), self.claims.clone());
        merge(&mut all_header, header);
        merge(&mut all_claims, claims);
        let signed = format!("{}.{}", encode(&all_header), encode(&all_claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL.encode(signature))
    }
}

fn encode(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

/// `null` removes.
fn merge(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else { panic!("no objects") };
    for (name, value) in from {
        match value {
            Value::Null => drop(into.remove(&name)),
            value => drop(into.insert(name, value)),
        }
    }
}

fn clock() -> SharedClock {
    Arc::new(ManualClock::new())
}

fn verifier(issuer: &Issuer, name: &str, audience: &str) -> TokenVerifier {
    TokenVerifier::new(name, audience).with_clock(clock()).with_jwks(&issuer.jwks())
}

/// A key of RSA, and a token of the plainest shape.
fn plain() -> Issuer {
    Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "1", "use": "sig", "alg": "RS256"}),
        json!({"alg": "RS256", "kid": "1", "typ": "JWT"}),
        json!({"iss": "https://id.example", "aud": "api", "sub": "ada"}),
    )
}

#[test]
fn tokens_in_the_shapes_of_the_great_issuers_are_read() {
    let auth0 = Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "j3kD", "use": "sig", "alg": "RS256", "x5t": "j3kD", "x5c": ["MIIC"]}),
        json!({"alg": "RS256", "typ": "at+jwt", "kid": "j3kD"}),
        json!({
            "iss": "https://shop.eu.auth0.com/", "sub": "auth0|64a1", "azp": "client",
            "aud": ["https://api.shop.example", "https://shop.eu.auth0.com/userinfo"],
            "scope": "openid profile", "permissions": ["read:orders", "write:orders"],
            "https://shop.example/roles": ["Customer", "Administrator"],
        }),
    );
    let mapping = ClaimMapping::new()
        .with_roles_at(["https://shop.example/roles"], [("Administrator", Role::ADMIN)]);
    let caller = verifier(&auth0, "https://shop.eu.auth0.com/", "https://api.shop.example")
        .with_mapping(mapping)
        .verify(&auth0.token(json!({}), json!({})))
        .unwrap();
    assert_eq!((caller.user_id().as_str(), caller.role()), ("auth0|64a1", &Role::ADMIN));
    let scopes: Vec<_> = caller.scopes().collect();
    assert_eq!(scopes, ["openid", "profile", "read:orders", "write:orders"]);

    let keycloak = Issuer::new(
        pem!("es256-private"),
        json!({"kid": "FJ86", "use": "sig", "alg": "ES256"}),
        json!({"alg": "ES256", "typ": "JWT", "kid": "FJ86"}),
        json!({
            "iss": "https://id.example/realms/shop", "aud": "account", "sub": "f3b1", "typ": "Bearer",
            "azp": "shop", "sid": "5e6a", "jti": "onrtro:1", "acr": "1", "auth_time": NOW - 60,
            "realm_access": {"roles": ["offline_access", "editor"]},
            "resource_access": {"account": {"roles": ["manage-account"]}}, "plan": "paid",
        }),
    );
    let mapping = ClaimMapping::new().with_roles_at(
        ["realm_access", "roles"],
        [("admin", Role::ADMIN), ("editor", Role::EDITOR)],
    );
    let caller = verifier(&keycloak, "https://id.example/realms/shop", "account")
        .with_mapping(mapping)
        .verify(&keycloak.token(json!({}), json!({})))
        .unwrap();
    assert_eq!((caller.role(), caller.plan()), (&Role::EDITOR, Some(&Plan::PAID)));
    assert_eq!((caller.session_id(), caller.token_id()), (Some("5e6a"), Some("onrtro:1")));
    assert_eq!(caller.auth_time(), Some(UNIX_EPOCH + Duration::from_secs(NOW - 60)));

    // Access tokens of Cognito have no `typ` and no `aud`.
    let cognito = Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "abc=", "use": "sig", "alg": "RS256"}),
        json!({"alg": "RS256", "kid": "abc="}),
        json!({
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", "sub": "9c41",
            "client_id": "7lhl", "token_use": "access", "scope": "aws.cognito.signin.user.admin",
            "cognito:groups": ["admins"], "username": "ada", "auth_time": NOW, "version": 2,
        }),
    );
    let mapping = ClaimMapping::new().with_roles_at(["cognito:groups"], [("admins", Role::ADMIN)]);
    let cognito_verifier =
        verifier(&cognito, "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", "7lhl")
            .with_audience_claim("client_id")
            .with_required_claim("token_use", "access")
            .with_mapping(mapping);
    let caller = cognito_verifier.verify(&cognito.token(json!({}), json!({}))).unwrap();
    assert_eq!(caller.role(), &Role::ADMIN);
    let id_token = cognito.token(json!({}), json!({"token_use": "id"}));
    assert!(cognito_verifier.verify(&id_token).is_err());

    // Keys of Entra have no `alg`, headers name the certificate.
    let entra = Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "-KI3", "use": "sig", "x5t": "-KI3", "x5c": ["MIID"], "issuer": "https://…"}),
        json!({"alg": "RS256", "typ": "JWT", "kid": "-KI3", "x5t": "-KI3"}),
        json!({
            "iss": "https://login.microsoftonline.com/t/v2.0", "aud": "api://shop", "sub": "pair-wise",
            "oid": "0000-oid", "tid": "t", "roles": ["Shop.Admin"], "scp": "Orders.Read Orders.Write",
            "nbf": NOW, "ver": "2.0", "amr": ["pwd", "mfa"], "uti": "x",
        }),
    );
    let mapping = ClaimMapping::new()
        .with_user_id_at(["oid"])
        .with_user_id_prefix("entra:")
        .with_roles_at(["roles"], [("Shop.Admin", Role::ADMIN)]);
    let caller = verifier(&entra, "https://login.microsoftonline.com/t/v2.0", "api://shop")
        .with_algorithms([Algorithm::Rs256])
        .with_mapping(mapping)
        .verify(&entra.token(json!({}), json!({})))
        .unwrap();
    assert_eq!(caller.user_id().as_str(), "entra:0000-oid");
    assert_eq!(caller.amr(), ["pwd", "mfa"]);
    assert!(caller.scopes().any(|scope| scope == "Orders.Write"));

    let google = Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "b2b8", "use": "sig", "alg": "RS256"}),
        json!({"alg": "RS256", "kid": "b2b8", "typ": "JWT"}),
        json!({
            "iss": "https://accounts.google.com", "aud": "1-x.apps.googleusercontent.com",
            "azp": "1-x.apps.googleusercontent.com", "sub": "1076", "email": "ada@example.com",
            "email_verified": true,
        }),
    );
    let caller = verifier(&google, "https://accounts.google.com", "1-x.apps.googleusercontent.com")
        .verify(&google.token(json!({}), json!({})))
        .unwrap();
    assert_eq!((caller.role(), &caller.claims()["email_verified"]), (&Role::VIEWER, &json!(true)));

    let okta = Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "U5R8", "use": "sig", "alg": "RS256"}),
        json!({"alg": "RS256", "kid": "U5R8"}),
        json!({
            "iss": "https://shop.okta.com/oauth2/default", "aud": "api://default", "sub": "ada@example.com",
            "uid": "00u1", "cid": "client", "scp": ["openid", "orders"], "ver": 1, "jti": "AT.1",
        }),
    );
    let caller = verifier(&okta, "https://shop.okta.com/oauth2/default", "api://default")
        .with_mapping(ClaimMapping::new().with_user_id_at(["uid"]))
        .verify(&okta.token(json!({}), json!({})))
        .unwrap();
    assert_eq!(caller.user_id().as_str(), "00u1");
    assert_eq!(caller.scopes().collect::<Vec<_>>(), ["openid", "orders"]);
}

#[test]
fn what_is_not_genuine_is_invalid() {
    let issuer = plain();
    let verifier = verifier(&issuer, "https://id.example", "api");
    let header = |name: &str, value: Value| issuer.token(json!({ name: value }), json!({}));
    let claim = |name: &str, value: Value| issuer.token(json!({}), json!({ name: value }));
    verifier.verify(&header("kid", json!(null))).expect("the only key needs no name");
    verifier.verify(&header("x5t", json!("x"))).expect("it only names a certificate");
    verifier.verify(&header("typ", json!("application/at+jwt"))).unwrap();
    verifier.verify(&claim("aud", json!(["other", "api"]))).unwrap();
    verifier.verify(&claim("iat", json!(null))).unwrap();

    let good = issuer.token(json!({}), json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let hs256 = {
        let signed =
            format!("{}.{}", encode(&json!({"alg": "HS256", "kid": "1"})), encode(&issuer.claims));
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pem!("rsa-public"));
        format!("{signed}.{}", BASE64URL.encode(ring::hmac::sign(&secret, signed.as_bytes())))
    };
    let stranger =
        Issuer { key: SigningKey::from_pem(pem!("other-rsa-private")).unwrap(), ..plain() };
    let mut cases = vec![
        ("two parts", signed.to_owned(), "not three parts"),
        ("a part too many", format!("{good}.{signature}"), "not three parts"),
        ("padded", format!("{good}="), "base64url"),
        ("17 KiB", claim("x", json!("x".repeat(17 * 1024))), "too long"),
        ("no signature", format!("{signed}."), "signature"),
        ("another key", stranger.token(json!({}), json!({})), "signature"),
        ("HS256 with the public key", hs256, "alg"),
        ("none", header("alg", json!("none")), "alg"),
        ("an algorithm that the key is not for", header("alg", json!("PS256")), "alg"),
        ("another kind of key", header("alg", json!("ES256")), "alg"),
        ("an unknown key", header("kid", json!("2")), "kid"),
        ("kid a path", header("kid", json!("../1")), "kid"),
        ("kid a number", header("kid", json!(1)), "kid"),
        ("typ of something else", header("typ", json!("logout+jwt")), "typ"),
        ("typ a number", header("typ", json!(1)), "typ"),
        ("iss of another", claim("iss", json!("https://id.example/")), "iss"),
        ("iss a list", claim("iss", json!(["https://id.example"])), "iss"),
        ("no iss", claim("iss", json!(null)), "iss"),
        ("aud of another", claim("aud", json!("API")), "aud"),
        ("no aud", claim("aud", json!(null)), "aud"),
        ("no exp", claim("exp", json!(null)), "exp"),
        ("exp text", claim("exp", json!("1")), "exp"),
        ("exp a fraction", claim("exp", json!(1.5)), "exp"),
        ("lives for two days", claim("exp", json!(NOW + 172_800)), "lifetime"),
        ("issued tomorrow", claim("iat", json!(NOW + 61)), "iat"),
        ("not yet", claim("nbf", json!(NOW + 61)), "nbf"),
        ("no sub", claim("sub", json!(null)), "sub"),
        ("sub empty", claim("sub", json!("")), "sub"),
        ("sub a number", claim("sub", json!(7)), "sub"),
    ];
    for name in REFUSED_HEADERS {
        cases.push((name, header(name, json!({})), "refused header"));
    }
    for (case, token, reason) in cases {
        let result = verifier.verify(&token);
        let matches = matches!(result, Err(TokenError::Invalid(found)) if found == reason);
        assert!(matches, "{case}: {result:?}");
    }
    let expired = claim("exp", json!(NOW));
    let before = issuer.token(json!({}), json!({"iat": NOW - 60, "exp": NOW}));
    assert!(verifier.verify(&expired).is_err());
    assert!(matches!(verifier.verify(&before), Err(TokenError::Expired)));
    assert!(verifier.clone().with_leeway(Duration::from_secs(1)).verify(&before).is_ok());
}

#[test]
fn the_algorithm_is_one_that_is_allowed_and_that_the_key_is_for() {
    let mut issuer = plain();
    issuer.jwk.as_object_mut().unwrap().remove("alg");
    let pair = RsaKeyPair::from_pkcs8(&{
        let pem = String::from_utf8(pem!("rsa-private").to_vec()).unwrap();
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(lines).unwrap()
    })
    .unwrap();
    let signed = format!("{}.{}", encode(&json!({"alg": "PS256"})), encode(&issuer.claims));
    let mut signature = vec![0; 256];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    let ps256 = format!("{signed}.{}", BASE64URL.encode(signature));
    let rs256 = issuer.token(json!({}), json!({}));

    let any = verifier(&issuer, "https://id.example", "api");
    assert!(any.verify(&ps256).is_ok() && any.verify(&rs256).is_ok());
    let strict = any.with_algorithms([Algorithm::Ps256]);
    assert!(strict.verify(&ps256).is_ok());
    assert!(matches!(strict.verify(&rs256), Err(TokenError::Invalid("alg"))));
}

#[test]
fn other_keys_take_the_place_of_these_at_once_and_for_all_clones() {
    let issuer = plain();
    let verifier = verifier(&issuer, "https://id.example", "api");
    let clone = verifier.clone();
    let token = issuer.token(json!({}), json!({}));
    assert!(clone.verify(&token).is_ok());
    verifier.set_jwks(&Jwks::default());
    assert!(matches!(clone.verify(&token), Err(TokenError::Invalid("kid"))));
    verifier.set_jwks(&issuer.jwks());
    assert!(clone.verify(&token).is_ok());
}

#[test]
fn what_one_accepts_a_stricter_clone_does_not_remember() {
    let issuer = plain();
    let lenient = verifier(&issuer, "https://id.example", "api");
    let token = issuer.token(json!({}), json!({}));
    lenient.verify(&token).unwrap();
    assert!(lenient.clone().with_required_claim("scope", "x").verify(&token).is_err());
    assert!(lenient.clone().with_algorithms([Algorithm::Es256]).verify(&token).is_err());
    assert!(lenient.verify(&token).is_ok());
}

#[test]
fn an_own_key_may_be_given_as_such() {
    let key = SigningKey::from_pem(pem!("ed25519-private")).unwrap();
    let kid = key.verifying_key().key_id().to_owned();
    let issuer = Issuer::new(
        pem!("ed25519-private"),
        json!({}),
        json!({"alg": "EdDSA", "kid": kid}),
        json!({"iss": "me", "aud": "api", "sub": "ada"}),
    );
    let verifier =
        TokenVerifier::new("me", "api").with_clock(clock()).with_key(key.verifying_key());
    assert!(verifier.verify(&issuer.token(json!({}), json!({}))).is_ok());
}

/// Entra, as one of its tenants has it.
fn entra(tenant: &str, key_of: Value) -> Issuer {
    Issuer::new(
        pem!("rsa-private"),
        json!({"kid": "-KI3", "use": "sig", "issuer": key_of}),
        json!({"alg": "RS256", "typ": "JWT", "kid": "-KI3"}),
        json!({
            "iss": format!("https://login.microsoftonline.com/{tenant}/v2.0"), "aud": "api://shop",
            "sub": "pair-wise", "oid": "0000-oid", "tid": tenant,
        }),
    )
}

const ENTRA: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";

#[test]
fn tokens_of_many_tenants_are_bound_to_their_own() {
    let (ours, other) = ("72f988bf-86f1", "9188040d-6c67");
    let issuer = entra(ours, json!(ENTRA));
    let these = verifier(&issuer, ENTRA, "api://shop")
        .with_tenants([ours])
        .with_mapping(ClaimMapping::new().with_user_id_at(["oid"]).with_user_id_prefix("entra:"));
    let any = these.clone().with_any_tenant();
    let good = issuer.token(json!({}), json!({}));
    for verifier in [&these, &any] {
        let caller = verifier.verify(&good).unwrap();
        assert_eq!(caller.user_id().as_str(), "entra:72f988bf-86f1:0000-oid");
        assert_eq!(caller.claims()["tid"], ours);
    }
    let of_other = entra(other, json!(ENTRA)).token(json!({}), json!({}));
    assert!(matches!(these.verify(&of_other), Err(TokenError::Invalid("tid"))));
    let caller = any.verify(&of_other).unwrap();
    assert_eq!(caller.user_id().as_str(), "entra:9188040d-6c67:0000-oid");

    let claim = |name: &str, value: Value| issuer.token(json!({}), json!({ name: value }));
    let at = |place: &str| json!(format!("https://login.microsoftonline.com/{place}/v2.0"));
    for (case, token, reason) in [
        ("iss of another", claim("iss", at(other)), "iss"),
        ("tid of another", claim("tid", json!(other)), "iss"),
        ("the pattern itself", claim("iss", json!(ENTRA)), "iss"),
        ("no iss", claim("iss", json!(null)), "iss"),
        ("iss a list", claim("iss", json!([at(ours)])), "iss"),
        ("no tid", claim("tid", json!(null)), "tid"),
        ("tid a list", claim("tid", json!([ours])), "tid"),
        ("tid empty", issuer.token(json!({}), json!({"tid": "", "iss": at("")})), "tid"),
        ("tid a path", issuer.token(json!({}), json!({"tid": "a/b", "iss": at("a/b")})), "tid"),
        (
            "tid the place itself",
            issuer.token(json!({}), json!({"tid": "{tenantid}", "iss": ENTRA})),
            "tid",
        ),
        ("a slash more", claim("iss", json!(format!("{}/", at(ours).as_str().unwrap()))), "iss"),
    ] {
        let result = any.verify(&token);
        let matches = matches!(result, Err(TokenError::Invalid(found)) if found == reason);
        assert!(matches, "{case}: {result:?}");
    }
    // Without being told of tenants, the name is a name.
    let literal = verifier(&issuer, ENTRA, "api://shop");
    assert!(matches!(literal.verify(&good), Err(TokenError::Invalid("iss"))));
}

#[test]
fn a_key_of_one_tenant_signs_for_no_other() {
    let (ours, other) = ("72f988bf-86f1", "9188040d-6c67");
    let of_other = json!(format!("https://login.microsoftonline.com/{other}/v2.0"));
    for (key_of, good) in [(json!(ENTRA), true), (json!(null), true), (of_other, false)] {
        let issuer = entra(ours, key_of.clone());
        let any = verifier(&issuer, ENTRA, "api://shop").with_any_tenant();
        let result = any.verify(&issuer.token(json!({}), json!({})));
        assert_eq!(result.is_ok(), good, "{key_of}: {result:?}");
    }
}

#[test]
#[should_panic(expected = "an issuer of tenants has {tenantid} in its name")]
fn tenants_need_a_place_in_the_name() {
    let _ = TokenVerifier::new("https://id.example", "api").with_any_tenant();
}

#[test]
fn a_key_on_p521_is_used_where_the_backend_has_the_curve() {
    // Made with another library than ours.
    let jwk = json!({
        "kty": "EC", "crv": "P-521", "kid": "1",
        "x": "AJBwV6GPEpFgHXBXGzKkphcE3myfgEZygZLvz3jEEGRm6WS8JZsulqGaPx7JxwYGgZp3uZIGbF8qUHLrMSg5Kden",
        "y": "AdO0Ho6nVgL8jy4nOVIFg9WktAqh7z4ycGL1L8OacfpobNnqGx4dHthgna6qBacJ0x6c3aPC1f4dR_LjFw40_bPz",
    });
    let token = "eyJhbGciOiJFUzUxMiIsImtpZCI6IjEiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJhcGkiLCJzdWIiOiJhZGEiLCJpYXQiOjE3NjcyMjU2MDAsImV4cCI6MTc2NzIyOTIwMH0.\
        AR7Cx8ka4mhMSWvrPBNVe0YwxxtT-SdNPm3r5RhtlV87fA5Dv-u41Cu69-lW9likU-AXRnEA4y1nAtbIjgP2XsnN\
        AKl3KIgejhGd0iL7qj9193Ov6tMO3APVzp_A8Ypm-uZpB9SxSAlGsB2F2VkFfQ50PFK_t4lmRDzX0pLc8a-iLhvr";
    let verifier = TokenVerifier::new("https://id.example", "api")
        .with_clock(clock())
        .with_jwks(&serde_json::from_value(json!({"keys": [jwk]})).unwrap());
    match verifier.verify(token) {
        Ok(caller) if cfg!(feature = "aws-lc-rs") => assert_eq!(caller.user_id().as_str(), "ada"),
        Err(TokenError::Invalid("kid")) if !cfg!(feature = "aws-lc-rs") => {}
        other => panic!("{other:?}"),
    }
    let strict = verifier.with_algorithms([Algorithm::Es384]);
    assert!(matches!(strict.verify(token), Err(TokenError::Invalid("alg"))));
}

#[test]
fn keys_that_are_secrets_or_not_for_signatures_are_left_out() {
    let issuer = plain();
    let secret = [b'k'; 32];
    let oct = json!({"kty": "oct", "kid": "1", "use": "sig", "alg": "HS256", "k": BASE64URL.encode(secret)});
    let with = |changed: Value| {
        let mut jwk = issuer.jwk.clone();
        merge(&mut jwk, changed);
        jwk
    };
    for (case, jwk, known) in [
        ("a secret", oct.clone(), 0),
        ("for encryption", with(json!({"use": "enc"})), 0),
        ("for wrapping keys", with(json!({"use": null, "key_ops": ["wrapKey", "encrypt"]})), 0),
        ("for verifying", with(json!({"use": null, "key_ops": ["verify"]})), 1),
        ("for what only its owner does", with(json!({"key_ops": ["sign"]})), 0),
        ("of an algorithm that is none", with(json!({"alg": "none"})), 0),
        ("of a symmetric one", with(json!({"alg": "HS256"})), 0),
        ("of another kind", with(json!({"alg": "ES256"})), 0),
        ("of a curve without y", json!({"kty": "EC", "crv": "P-256", "x": "AQAB"}), 0),
        ("on no curve", json!({"kty": "EC", "crv": "secp256k1", "x": "AQAB", "y": "AQAB"}), 0),
        ("of no number", with(json!({"n": "not base64url!"})), 0),
    ] {
        let jwks: Jwks = serde_json::from_value(json!({"keys": [jwk]})).unwrap();
        assert_eq!(ForeignKeys::read(&jwks).ids().count(), known, "{case}");
    }
    // A secret in the set makes no secret of it, under whatever name.
    let jwks = serde_json::from_value(json!({"keys": [oct, issuer.jwk]})).unwrap();
    let verifier =
        TokenVerifier::new("https://id.example", "api").with_clock(clock()).with_jwks(&jwks);
    let signed =
        format!("{}.{}", encode(&json!({"alg": "HS256", "kid": "1"})), encode(&issuer.claims));
    let tag = ring::hmac::sign(
        &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret),
        signed.as_bytes(),
    );
    let forged = format!("{signed}.{}", BASE64URL.encode(tag));
    assert!(matches!(verifier.verify(&forged), Err(TokenError::Invalid("alg"))));
    verifier.verify(&issuer.token(json!({}), json!({}))).unwrap();
}

#[test]
fn of_two_keys_of_one_name_none_is_believed() {
    let issuer = plain();
    let mut other = serde_json::to_value(
        SigningKey::from_pem(pem!("other-rsa-private")).unwrap().verifying_key().jwk(),
    )
    .unwrap();
    merge(&mut other, json!({"kid": "1", "alg": "RS256"}));
    for keys in [json!([issuer.jwk, other]), json!([other, issuer.jwk])] {
        let jwks = serde_json::from_value(json!({"keys": keys})).unwrap();
        let verifier =
            TokenVerifier::new("https://id.example", "api").with_clock(clock()).with_jwks(&jwks);
        let refused = verifier.verify(&issuer.token(json!({}), json!({})));
        assert!(matches!(refused, Err(TokenError::Invalid("kid"))), "{refused:?}");
    }
}
