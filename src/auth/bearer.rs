//! Bearer tokens (RFC 6750, section 2.1): from the `Authorization` header to the identity that a
//! [`TokenService`] finds in it.

use http::{HeaderMap, HeaderValue, header};

use super::{AuthError, Authenticate};
use crate::{
    Answer, Identity, RequestHead, TokenService,
    token::{Hs256Bridge, TokenError, TokenVerifier},
};

/// Asks no store: the answer is there at once.
impl Authenticate for TokenService {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let identity = bearer(request.headers).and_then(|token| Ok(self.verify_bytes(token)?));
        Answer::Ready(identity)
    }
}

impl From<TokenError> for AuthError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::Expired,
            TokenError::Invalid(reason) => Self::Invalid(reason),
            TokenError::Store(error) => Self::Unavailable(error),
            TokenError::Revoked => Self::Revoked,
            TokenError::Signing | TokenError::InvalidIdentity(_) | TokenError::Overtaken => {
                Self::Invalid("not signed")
            }
        }
    }
}

/// Asks no store either.
impl Authenticate for TokenVerifier {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let identity = bearer(request.headers).and_then(|token| Ok(self.verify_bytes(token)?));
        Answer::Ready(identity)
    }
}

impl Authenticate for Hs256Bridge {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let identity = bearer(request.headers).and_then(|token| Ok(self.verify_bytes(token)?));
        Answer::Ready(identity)
    }
}

/// The Bearer token that a request presents (RFC 6750, section 2.1), for authenticators of your own.
/// What it is worth is not looked at.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use tower_warden::auth::{AuthError, bearer};
/// let mut headers = HeaderMap::new();
/// assert!(matches!(bearer(&headers), Err(AuthError::Missing)));
/// headers.insert("authorization", HeaderValue::from_static("Bearer abc"));
/// assert_eq!(bearer(&headers)?, b"abc");
/// headers.append("authorization", HeaderValue::from_static("Bearer def"));
/// assert!(matches!(bearer(&headers), Err(AuthError::Ambiguous(_))));
/// # Ok::<(), AuthError>(())
/// ```
///
/// # Errors
/// [`AuthError::Missing`] without a header of this scheme, [`AuthError::Ambiguous`] with two
/// `Authorization` headers.
pub fn bearer(headers: &HeaderMap) -> Result<&[u8], AuthError> {
    let value = headers.get(&header::AUTHORIZATION).ok_or(AuthError::Missing)?;
    // Of most requests no header comes twice, which is soon known.
    if headers.len() > headers.keys_len()
        && headers.get_all(&header::AUTHORIZATION).iter().nth(1).is_some()
    {
        return Err(AuthError::Ambiguous("Authorization header"));
    }
    token(value).ok_or(AuthError::Missing)
}

fn token(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_first_chunk::<7>()?;
    // In the case that nearly all write it takes two comparisons.
    if scheme != b"Bearer " && !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    Some(rest.trim_ascii()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_header_of_the_bearer_scheme_presents_a_token() {
        let found = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            }
            bearer(&headers).map(<[u8]>::to_owned).map_err(|error| error.to_string())
        };
        let missing = Err(AuthError::Missing.to_string());
        for (values, expected) in [
            (&[][..], missing.clone()),
            (&[&b""[..]], missing.clone()),
            (&[b"Bearer"], missing.clone()),
            (&[b"Bearer  "], missing.clone()),
            (&[b"Basic YTpi"], missing.clone()),
            (&[b"Bearerx y"], missing),
            (&[b"Bearer a.b.c"], Ok(b"a.b.c".to_vec())),
            (&[b"bEARER   a.b.c"], Ok(b"a.b.c".to_vec())),
            (&[b"Bearer a b"], Ok(b"a b".to_vec())),
            (&[b"Bearer \xff"], Ok(b"\xff".to_vec())),
            (
                &[b"Bearer a", b"Bearer a"],
                Err("there is more than one Authorization header".to_owned()),
            ),
        ] {
            assert_eq!(found(values), expected, "{values:?}");
        }
    }
}
