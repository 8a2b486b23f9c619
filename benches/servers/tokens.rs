//! What clients present: as many tokens as there are users, all good.

use std::{fs, path::Path};

use tower_warden::{
    Identity, Role, UserId,
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenService},
};

pub(crate) const USERS: usize = 1_000;
pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const AUDIENCE: &str = "api";

pub(crate) fn pem(name: &str) -> Vec<u8> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/keys");
    fs::read(keys.join(name)).expect("a key file")
}

pub(crate) fn token_service() -> TokenService {
    let key = SigningKey::from_pem(&pem("rsa-private.pem")).expect("a key");
    TokenService::new(KeySet::new(key), ISSUER, AUDIENCE, MemoryStore::default())
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn access_tokens() -> Vec<String> {
    let service = token_service();
    let mut tokens = Vec::new();
    for user in 0..USERS {
        let caller = Identity::new(UserId::from(format!("user-{user}")), Role::EDITOR);
        let pair = service.issue(&caller).await.expect("a token");
        tokens.push(pair.access_token().to_owned());
    }
    tokens
}
