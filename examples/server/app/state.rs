//! What the handlers share.

use axum::extract::FromRef;
use http::HeaderValue;
use tower_warden::{
    ApiKeyService, TokenService, UserService,
    second_factor::{LoginSteps, TotpService},
};

use super::{Limits, ProjectStore};

/// The services behind the API. Cheap to clone.
#[derive(Clone, Debug, FromRef)]
pub struct App {
    pub users: UserService,
    pub tokens: TokenService,
    pub keys: ApiKeyService,
    pub totp: TotpService,
    pub login: LoginSteps,
    pub projects: ProjectStore,
    #[from_ref(skip)]
    pub limits: Limits,
    #[from_ref(skip)]
    pub cors_allowed_origins: Vec<HeaderValue>,
    /// Whether clients come over HTTPS.
    #[from_ref(skip)]
    pub https: bool,
}
