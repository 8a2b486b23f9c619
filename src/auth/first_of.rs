//! [`FirstOf`]: several ways in.

use std::sync::Arc;

use super::{AuthError, Authenticate};
use crate::{Answer, Identity, RequestHead};

/// Asks several authenticators in turn: the first that knows the caller is believed.
///
/// Where none does, the client is told what helps it most: that its credentials can't be checked at
/// the moment, or were revoked, or are expired, rather than that another authenticator makes nothing
/// of them. Where one finds two of what it reads ([`AuthError::Ambiguous`]: two `Authorization` headers,
/// two cookies of one name), the request is refused, whoever after it would know the caller. What
/// different authenticators read may stand in one request.
///
/// ```
/// use tower_warden::{ApiKeyService, RequireAuth, TokenService, auth::FirstOf};
/// # use tower_warden::{store::memory::MemoryStore, token::{KeySet, SigningKey}};
/// # let store = MemoryStore::new();
/// # let signing = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(signing, "https://id.example", "api", store.clone());
/// let keys = ApiKeyService::new(store);
/// // People come with access tokens, machines with keys.
/// let auth = RequireAuth::new(FirstOf::new().or(keys).or(tokens));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct FirstOf(Vec<Arc<dyn Authenticate>>);

impl FirstOf {
    /// Nobody to ask, yet: nobody is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more to ask, after the others. Those that tell at once, and without cost, that a
    /// credential is none of theirs go first.
    pub fn or(mut self, authenticator: impl Authenticate) -> Self {
        self.0.push(Arc::new(authenticator));
        self
    }
}

impl<const N: usize> From<[Arc<dyn Authenticate>; N]> for FirstOf {
    fn from(authenticators: [Arc<dyn Authenticate>; N]) -> Self {
        Self(authenticators.into())
    }
}

type Outcome = Result<Identity, AuthError>;

impl Authenticate for FirstOf {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Outcome> {
        let mut told = AuthError::Missing;
        let mut asked = self.0.iter().map(|authenticator| authenticator.authenticate(request));
        while let Some(answer) = asked.next() {
            match answer {
                Answer::Ready(outcome) => match settled(outcome) {
                    Ok(outcome) => return Answer::Ready(outcome),
                    Err(error) => told = more_helpful(told, error),
                },
                pending @ Answer::Pending(_) => {
                    // The request doesn't wait along: the others are asked now, and heard after.
                    let rest: Vec<_> = std::iter::once(pending).chain(asked).collect();
                    return Answer::pending(first_of(rest, told));
                }
            }
        }
        Answer::Ready(Err(told))
    }
}

async fn first_of(answers: Vec<Answer<Outcome>>, mut told: AuthError) -> Outcome {
    for answer in answers {
        match settled(answer.await) {
            Ok(outcome) => return outcome,
            Err(error) => told = more_helpful(told, error),
        }
    }
    Err(told)
}

/// What is final, as it is; otherwise why the next one is heard.
fn settled(outcome: Outcome) -> Result<Outcome, AuthError> {
    match outcome {
        Err(AuthError::Ambiguous(_)) | Ok(_) => Ok(outcome),
        Err(error) => Err(error),
    }
}

fn more_helpful(a: AuthError, b: AuthError) -> AuthError {
    let rank = |error: &AuthError| match error {
        AuthError::Missing => 0,
        AuthError::Invalid(_) => 1,
        AuthError::CrossSite => 2,
        AuthError::Expired => 3,
        AuthError::Revoked => 4,
        // A good credential may be among these.
        AuthError::Unavailable(_) => 5,
        AuthError::Ambiguous(_) => 6,
    };
    if rank(&b) >= rank(&a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use http::{Request, header};

    use super::*;
    use crate::{Role, StoreError, UserId};

    /// Knows one word; answers at once or later.
    #[derive(Debug)]
    struct Knows(&'static str, bool, fn() -> AuthError);

    impl Authenticate for Knows {
        fn authenticate(&self, request: RequestHead<'_>) -> Answer<Outcome> {
            let outcome = match request.headers.get(header::AUTHORIZATION) {
                Some(word) if word == self.0 => {
                    Ok(Identity::new(UserId::from(self.0), Role::VIEWER))
                }
                Some(_) => Err((self.2)()),
                None => Err(AuthError::Missing),
            };
            if self.1 { Answer::pending(async { outcome }) } else { Answer::Ready(outcome) }
        }
    }

    async fn ask(auth: &FirstOf, word: Option<&str>) -> Outcome {
        let mut request = Request::new(());
        if let Some(word) = word {
            request.headers_mut().insert(header::AUTHORIZATION, word.parse().unwrap());
        }
        auth.authenticate(RequestHead::from(&request)).await
    }

    #[tokio::test]
    async fn first_that_knows_the_caller_is_believed() {
        for later in [[false, false], [false, true], [true, false], [true, true]] {
            let auth = FirstOf::new().or(Knows("a", later[0], || AuthError::Expired)).or(Knows(
                "b",
                later[1],
                || AuthError::Invalid("b"),
            ));
            for word in ["a", "b"] {
                let caller = ask(&auth, Some(word)).await.unwrap();
                assert_eq!(caller.user_id().as_str(), word);
            }
            assert!(matches!(ask(&auth, Some("c")).await, Err(AuthError::Expired)));
            assert!(matches!(ask(&auth, None).await, Err(AuthError::Missing)));
        }
        assert!(matches!(ask(&FirstOf::new(), Some("a")).await, Err(AuthError::Missing)));
    }

    #[tokio::test]
    async fn two_of_a_kind_are_refused_though_one_further_on_would_know_another() {
        /// Knows whoever comes, by something else.
        #[derive(Debug)]
        struct Gateway;

        impl Authenticate for Gateway {
            fn authenticate(&self, _: RequestHead<'_>) -> Answer<Outcome> {
                Answer::Ready(Ok(Identity::new(UserId::from("anybody"), Role::VIEWER)))
            }
        }
        for later in [false, true] {
            let auth =
                FirstOf::new().or(Knows("a", later, || AuthError::Ambiguous("word"))).or(Gateway);
            assert!(matches!(ask(&auth, Some("a, b")).await, Err(AuthError::Ambiguous(_))));
            assert_eq!(ask(&auth, Some("a")).await.unwrap().user_id().as_str(), "a");
        }
    }

    #[tokio::test]
    async fn an_outage_of_one_makes_nobodys_credential_bad() {
        let away = || AuthError::Unavailable(StoreError::unavailable("away"));
        for auth in [
            FirstOf::new().or(Knows("a", true, away)).or(Knows("b", false, || AuthError::Revoked)),
            FirstOf::new().or(Knows("a", false, || AuthError::Revoked)).or(Knows("b", true, away)),
        ] {
            assert!(matches!(ask(&auth, Some("c")).await, Err(AuthError::Unavailable(_))));
        }
    }
}
