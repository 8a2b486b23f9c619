//! API keys, presented as Bearer tokens: from the `Authorization` header to the identity that an
//! [`ApiKeyService`] finds for it.

use super::{AuthError, Authenticate, bearer::bearer};
use crate::{Answer, ApiKeyService, Identity, RequestHead, api_key::ApiKeyError};

/// Asks its store at most once a second about a key.
impl Authenticate for ApiKeyService {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        let key = match bearer(request.headers) {
            Ok(key) => key,
            Err(error) => return Answer::Ready(Err(error)),
        };
        match self.verify_bytes(key) {
            Answer::Ready(outcome) => Answer::Ready(outcome.map_err(AuthError::from)),
            Answer::Pending(outcome) => {
                Answer::pending(async { outcome.await.map_err(AuthError::from) })
            }
        }
    }
}

impl From<ApiKeyError> for AuthError {
    fn from(error: ApiKeyError) -> Self {
        match error {
            ApiKeyError::Expired => Self::Expired,
            ApiKeyError::Revoked => Self::Revoked,
            ApiKeyError::Invalid(reason) => Self::Invalid(reason),
            ApiKeyError::Store(error) => Self::Unavailable(error),
        }
    }
}
