use serde_json::json;

use super::*;
use crate::{Clock, ManualClock};

macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/support/keys/", $name, ".pem")).as_slice()
    };
}

/// What `ManualClock` shows at first.
const NOW: u64 = 1_767_225_600;

fn now() -> SystemTime {
    ManualClock::new().now()
}

fn rules() -> Rules {
    Rules {
        issuer: "https://id.example".into(),
        audiences: vec!["api".into()],
        lifetime: Duration::from_secs(900),
        leeway: Duration::ZERO,
        subjects: Subjects::default(),
    }
}

fn key(pem: &[u8]) -> SigningKey {
    SigningKey::from_pem(pem).unwrap()
}

fn ada() -> Identity {
    Identity::new(UserId::from("ada"), Role::EDITOR).with_plan(Plan::PAID)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => panic!("no object"),
    }
}

/// Makes tokens by hand: a genuine one, but for what a case changes.
struct Forge {
    key: SigningKey,
}

impl Forge {
    fn new() -> Self {
        Self { key: key(pem!("rsa-private")) }
    }

    fn header(&self) -> Value {
        json!({"alg": "RS256", "typ": "at+jwt", "kid": self.key.verifying_key().key_id()})
    }

    fn claims() -> Value {
        json!({
            "iss": "https://id.example", "aud": "api", "sub": "ada", "role": "editor",
            "iat": NOW, "exp": NOW + 900, "jti": "1", "sid": "s", "auth_time": NOW, "amr": ["pwd"],
        })
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let signed = BASE64URL.encode(header) + "." + &BASE64URL.encode(claims);
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        signed + "." + &BASE64URL.encode(signature)
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        self.token(&header.to_string(), &Self::claims().to_string())
    }

    fn without_header(&self, name: &str) -> String {
        let mut header = object(self.header());
        header.remove(name);
        self.token(&Value::Object(header).to_string(), &Self::claims().to_string())
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        self.with_claims(Value::Object(Map::from_iter([(name.to_owned(), value)])))
    }

    fn with_claims(&self, changed: Value) -> String {
        let mut claims = object(Self::claims());
        claims.extend(object(changed));
        self.token(&self.header().to_string(), &Value::Object(claims).to_string())
    }

    fn without_claim(&self, name: &str) -> String {
        let mut claims = object(Self::claims());
        claims.remove(name);
        self.token(&self.header().to_string(), &Value::Object(claims).to_string())
    }

    fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        rules().verify(token, &KeySet::new(key(pem!("rsa-private"))), now())
    }
}

#[test]
fn what_is_signed_is_verified_with_any_algorithm() {
    for (pem, header) in [
        (pem!("rsa-private"), r#"{"alg":"RS256","#),
        (pem!("es256-private"), r#"{"alg":"ES256","#),
        (pem!("ed25519-private"), r#"{"alg":"EdDSA","#),
    ] {
        let keys = KeySet::new(key(pem));
        let token = rules().sign(&ada(), "s", keys.signing_key(), now()).unwrap();
        let identity = rules().verify(&token, &keys, now()).unwrap();
        assert_eq!(identity.user_id(), ada().user_id(), "{header}");
        assert_eq!(identity.role(), &Role::EDITOR);
        assert_eq!(identity.plan(), Some(&Plan::PAID));
        assert_eq!(identity.token_id().unwrap().len(), 36);
        assert_eq!(identity.session_id(), Some("s"));
        assert_eq!((identity.auth_time(), identity.issued_at()), (Some(now()), Some(now())));
        assert!(identity.amr().is_empty());
        assert_eq!(identity.expires_at(), Some(now() + Duration::from_secs(900)));
        assert!(identity.claims().is_empty());
        assert!(token.starts_with(&BASE64URL.encode(header)), "{header}");
    }
}

#[test]
fn how_and_when_a_caller_proved_who_it_is_is_carried() {
    let keys = KeySet::new(key(pem!("ed25519-private")));
    let login = now() - Duration::from_secs(3600);
    let caller = ada().with_auth_time(login).with_amr(["pwd", "otp"]);
    let token = rules().sign(&caller, "s", keys.signing_key(), now()).unwrap();
    let identity = rules().verify(&token, &keys, now()).unwrap();
    assert_eq!(identity.auth_time(), Some(login));
    assert_eq!(identity.amr(), ["pwd", "otp"]);
}

#[test]
fn a_token_names_all_audiences_and_any_of_them_takes_it() {
    let keys = KeySet::new(key(pem!("ed25519-private")));
    let audiences = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    let both = Rules { audiences: audiences(&["api", "shop"]), ..rules() };
    let token = both.sign(&ada(), "s", keys.signing_key(), now()).unwrap();
    for (names, good) in
        [(&["api"][..], true), (&["shop"], true), (&["x", "shop"], true), (&["x"], false)]
    {
        let rules = Rules { audiences: audiences(names), ..rules() };
        assert_eq!(rules.verify(&token, &keys, now()).is_ok(), good, "{names:?}");
    }
}

#[test]
fn further_claims_are_carried() {
    let further = object(json!({"tenant": ["a"], "scope": "read write"}));
    let identity = ada().with_claims(further.clone());
    let keys = KeySet::new(key(pem!("ed25519-private")));
    let token = rules().sign(&identity, "s", keys.signing_key(), now()).unwrap();
    assert_eq!(rules().verify(&token, &keys, now()).unwrap().claims(), &further);
}

#[test]
fn what_would_be_refused_later_is_not_signed() {
    let keys = KeySet::new(key(pem!("ed25519-private")));
    let mut cases = vec![
        (Identity::new(UserId::from(""), Role::VIEWER), "user id"),
        (Identity::new(UserId::from("ada"), Role::from("")), "role"),
        (ada().with_plan(Plan::from("")), "plan"),
    ];
    cases.extend(OWN_CLAIMS.map(|own| (ada().with_claim(own, 1), own)));
    for (identity, what) in cases {
        let signed = rules().sign(&identity, "s", keys.signing_key(), now());
        assert_eq!(signed, Err(Unsigned::Identity(what)));
    }
}

#[test]
fn only_users_that_can_be_are_signed_and_verified() {
    let keys = KeySet::new(key(pem!("ed25519-private")));
    let picky = Rules { subjects: Subjects(Arc::new(UserId::is_uuid)), ..rules() };
    let sign = |rules: &Rules, id| {
        let caller = Identity::new(id, Role::VIEWER);
        rules.sign(&caller, "s", keys.signing_key(), now())
    };
    let known = sign(&picky, UserId::random()).unwrap();
    assert!(picky.verify(&known, &keys, now()).is_ok());
    assert_eq!(sign(&picky, UserId::from("ada")), Err(Unsigned::Identity("user id")));
    let ada = sign(&rules(), UserId::from("ada")).unwrap();
    let refused = picky.verify(&ada, &keys, now());
    assert!(matches!(refused, Err(TokenError::Invalid("sub"))), "{refused:?}");
}

#[test]
fn genuine_tokens_of_other_shapes_are_good() {
    let forge = Forge::new();
    for (case, token) in [
        ("plain", forge.with_claims(json!({}))),
        ("long typ", forge.with_header("typ", json!("application/at+jwt"))),
        ("unknown header", forge.with_header("x", json!([1]))),
        ("one of several audiences", forge.with_claim("aud", json!(["other", "api"]))),
        ("a plan", forge.with_claim("plan", json!("gold"))),
        ("not before now", forge.with_claim("nbf", json!(NOW))),
        ("a minute ahead", forge.with_claims(json!({"iat": NOW + 60, "exp": NOW + 960}))),
        ("its last second", forge.with_claims(json!({"iat": NOW - 899, "exp": NOW + 1}))),
    ] {
        assert!(forge.verify(&token).is_ok(), "{case}");
    }
}

#[test]
fn forged_and_malformed_tokens_are_invalid() {
    let forge = Forge::new();
    let good = forge.with_claims(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();

    let own_header = forge.header().to_string();
    let own_claims = Forge::claims().to_string();
    let twice = |json: &str, member: &str| format!("{},{member}}}", &json[..json.len() - 1]);

    let stranger = Forge { key: key(pem!("other-rsa-private")) };
    let by_stranger = stranger.token(&own_header, &own_claims);
    let expired = Value::Object({
        let mut claims = object(Forge::claims());
        claims.extend(object(json!({"iat": NOW - 1800, "exp": NOW - 900})));
        claims
    });
    let expired_by_stranger = stranger.token(&own_header, &expired.to_string());

    let hs256 = {
        let mut header = forge.header();
        header["alg"] = json!("HS256");
        let signed = BASE64URL.encode(header.to_string()) + "." + claims;
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pem!("rsa-public"));
        let tag = ring::hmac::sign(&secret, signed.as_bytes());
        signed + "." + &BASE64URL.encode(tag)
    };
    let unsigned = |alg: &str| {
        let mut header = forge.header();
        header["alg"] = json!(alg);
        format!("{}.{claims}.", BASE64URL.encode(header.to_string()))
    };
    // 256 bytes leave four bits of the last digit unused, which must be zero.
    let (last_at, last) = good.char_indices().last().unwrap();
    let trailing_bits = format!("{}{}", &good[..last_at], char::from(last as u8 + 1));
    let padded = format!("{good}==");

    let mut cases = vec![
        ("nothing", String::new(), "not three parts"),
        ("two parts", signed.to_owned(), "not three parts"),
        ("four parts", format!("{good}."), "not three parts"),
        ("9 KiB", forge.with_claim("x", json!("x".repeat(9 * 1024))), "too long"),
        ("a space before", format!(" {good}"), "base64url"),
        ("padded", padded, "base64url"),
        ("trailing bits", trailing_bits, "base64url"),
        ("other alphabet", good.replacen(signature, "++//", 1), "base64url"),
        ("no JSON", forge.token("{", &own_claims), "JSON"),
        ("header is no object", forge.token("[]", &own_claims), "JSON"),
        ("claims are no object", forge.token(&own_header, "[]"), "JSON"),
        ("duplicate header", forge.token(&twice(&own_header, r#""kid":"x""#), &own_claims), "JSON"),
        (
            "duplicate claim",
            forge.token(&own_header, &twice(&own_claims, r#""sub":"eve""#)),
            "JSON",
        ),
        ("alg none", unsigned("none"), "alg"),
        ("HS256 with the public key", hs256, "alg"),
        ("other algorithm of the key", forge.with_header("alg", json!("PS256")), "alg"),
        ("no alg", forge.without_header("alg"), "alg"),
        ("no signature", unsigned("RS256"), "signature"),
        ("no header", format!(".{claims}.{signature}"), "JSON"),
        ("other key", by_stranger, "signature"),
        ("expired forgery", expired_by_stranger, "signature"),
        (
            "other claims",
            {
                let eve = BASE64URL.encode(own_claims.replace("ada", "eve"));
                format!("{header}.{eve}.{signature}")
            },
            "signature",
        ),
        ("unknown kid", stranger.token(&stranger.header().to_string(), &own_claims), "kid"),
        ("kid is a path", forge.with_header("kid", json!("../../etc/passwd")), "kid"),
        ("kid is a number", forge.with_header("kid", json!(1)), "kid"),
        ("no kid", forge.without_header("kid"), "kid"),
        ("typ JWT", forge.with_header("typ", json!("JWT")), "typ"),
        ("no typ", forge.without_header("typ"), "typ"),
        ("iss of another", forge.with_claim("iss", json!("https://evil.example")), "iss"),
        ("iss an array", forge.with_claim("iss", json!(["https://id.example"])), "iss"),
        ("no iss", forge.without_claim("iss"), "iss"),
        ("aud of another", forge.with_claim("aud", json!("other")), "aud"),
        ("aud of others", forge.with_claim("aud", json!(["other", "API"])), "aud"),
        ("aud empty", forge.with_claim("aud", json!([])), "aud"),
        ("aud mixed", forge.with_claim("aud", json!(["api", 1])), "aud"),
        ("no aud", forge.without_claim("aud"), "aud"),
        ("exp a float", forge.with_claim("exp", json!(900.0 + NOW as f64)), "exp"),
        ("exp text", forge.with_claim("exp", json!((NOW + 900).to_string())), "exp"),
        ("exp negative", forge.with_claim("exp", json!(-1)), "exp"),
        ("no exp", forge.without_claim("exp"), "exp"),
        ("iat a float", forge.with_claim("iat", json!(0.5 + NOW as f64)), "iat"),
        ("no iat", forge.without_claim("iat"), "iat"),
        ("61 s ahead", forge.with_claims(json!({"iat": NOW + 61, "exp": NOW + 900})), "iat"),
        ("never", forge.with_claims(json!({"iat": u64::MAX - 9, "exp": u64::MAX})), "iat"),
        ("lives too long", forge.with_claim("exp", json!(NOW + 901)), "lifetime"),
        ("lives no time", forge.with_claim("exp", json!(NOW)), "lifetime"),
        ("ends before it begins", forge.with_claim("exp", json!(NOW - 1)), "lifetime"),
        ("nbf in the future", forge.with_claim("nbf", json!(NOW + 1)), "nbf"),
        ("nbf text", forge.with_claim("nbf", json!("0")), "nbf"),
        ("no sub", forge.without_claim("sub"), "sub"),
        ("sub empty", forge.with_claim("sub", json!("")), "sub"),
        ("sub a number", forge.with_claim("sub", json!(1)), "sub"),
        ("no role", forge.without_claim("role"), "role"),
        ("role a list", forge.with_claim("role", json!(["admin"])), "role"),
        ("plan null", forge.with_claim("plan", json!(null)), "plan"),
        ("no jti", forge.without_claim("jti"), "jti"),
        ("no sid", forge.without_claim("sid"), "sid"),
        ("sid empty", forge.with_claim("sid", json!("")), "sid"),
        ("sid a number", forge.with_claim("sid", json!(1)), "sid"),
        ("no auth_time", forge.without_claim("auth_time"), "auth_time"),
        ("auth_time text", forge.with_claim("auth_time", json!("1")), "auth_time"),
        ("no amr", forge.without_claim("amr"), "amr"),
        ("amr text", forge.with_claim("amr", json!("pwd")), "amr"),
        ("amr mixed", forge.with_claim("amr", json!(["pwd", 1])), "amr"),
    ];
    for name in REFUSED_HEADERS {
        cases.push((name, forge.with_header(name, json!({})), "refused header"));
    }
    for (case, token, reason) in cases {
        let result = forge.verify(&token);
        let matches = matches!(result, Err(TokenError::Invalid(found)) if found == reason);
        assert!(matches, "{case}: {result:?}");
    }
}

#[test]
fn a_genuine_token_is_expired_from_its_exp_on() {
    let forge = Forge::new();
    let keys = KeySet::new(key(pem!("rsa-private")));
    let token = forge.with_claims(json!({}));
    let end = now() + Duration::from_secs(900);
    let tick = Duration::from_nanos(1);

    assert!(rules().verify(&token, &keys, end - tick).is_ok());
    assert!(matches!(rules().verify(&token, &keys, end), Err(TokenError::Expired)));

    let lenient = Rules { leeway: Duration::from_secs(5), ..rules() };
    let end = end + Duration::from_secs(5);
    assert!(lenient.verify(&token, &keys, end - tick).is_ok());
    assert!(matches!(lenient.verify(&token, &keys, end), Err(TokenError::Expired)));
}
