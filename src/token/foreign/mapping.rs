//! From the claims of an issuer to an identity.

use serde_json::{Map, Value};

use super::super::{TokenError, claims::instant};
use crate::{Identity, Plan, Role, UserId};

/// What the claims of another issuer say of a caller.
///
/// Unless told otherwise the id is `sub`, the role is the text at `role`, or [`Role::VIEWER`] where
/// there is none, and the plan is the text at `plan`. Scopes are read where issuers put them (`scope`,
/// `scp`, `permissions`), and are then the words of the claim `scope`, so that
/// [`Require::scope`](crate::Require::scope) finds them. All other claims are kept as they are.
///
/// ```
/// use tower_warden::{Role, token::ClaimMapping};
/// // Keycloak's realm roles, the strongest first.
/// let keycloak = ClaimMapping::new().with_roles_at(
///     ["realm_access", "roles"],
///     [("admin", Role::ADMIN), ("editor", Role::EDITOR)],
/// );
/// // A claim that a rule of Auth0's adds: dots in its name are part of it.
/// let auth0 = ClaimMapping::new()
///     .with_roles_at(["https://app.example/roles"], [("Administrator", Role::ADMIN)])
///     .with_user_id_prefix("auth0:");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClaimMapping {
    user_id: Path,
    prefix: Box<str>,
    roles: Path,
    /// Empty: the role is the text itself.
    named: Vec<(Box<str>, Role)>,
    otherwise: Role,
    plan: Path,
    scopes: Vec<Path>,
}

/// Names from the claims inward.
type Path = Vec<Box<str>>;

impl Default for ClaimMapping {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimMapping {
    /// The usual claims.
    pub fn new() -> Self {
        Self {
            user_id: path(["sub"]),
            prefix: Box::default(),
            roles: path(["role"]),
            named: Vec::new(),
            otherwise: Role::VIEWER,
            plan: path(["plan"]),
            scopes: ["scope", "scp", "permissions"].map(|name| path([name])).into(),
        }
    }

    /// The same with the id of the user at another place than `sub`. It must be text, and never be
    /// given to anybody else: an address of mail is none.
    pub fn with_user_id_at(self, at: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { user_id: path(at), ..self }
    }

    /// The same with this before each id, so that users of different issuers are never taken for one
    /// another.
    pub fn with_user_id_prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into().into(), ..self }
    }

    /// The same with roles read at this place, a text or a list of them, of which the first counts that
    /// is found in these names' order.
    pub fn with_roles_at(
        self,
        at: impl IntoIterator<Item = impl Into<String>>,
        named: impl IntoIterator<Item = (impl Into<String>, Role)>,
    ) -> Self {
        let named = named.into_iter().map(|(name, role)| (name.into().into(), role));
        Self { roles: path(at), named: named.collect(), ..self }
    }

    /// The same with another role than [`Role::VIEWER`] for whom the claims say none.
    pub fn with_role_otherwise(self, role: Role) -> Self {
        Self { otherwise: role, ..self }
    }

    /// The same with the plan at another place.
    pub fn with_plan_at(self, at: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { plan: path(at), ..self }
    }

    /// The same with scopes at one more place: a text of words, or a list of them.
    pub fn with_scopes_at(mut self, at: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes.push(path(at));
        self
    }

    /// Whom these claims identify; of which tenant, where there are several.
    pub(super) fn identity(
        &self,
        mut claims: Map<String, Value>,
        tenant: Option<&str>,
    ) -> Result<Identity, TokenError> {
        let id = find(&claims, &self.user_id).and_then(Value::as_str);
        let id = id.filter(|id| !id.is_empty()).ok_or(TokenError::Invalid("sub"))?;
        let user_id = match tenant {
            Some(tenant) => format!("{}{tenant}:{id}", self.prefix),
            None => format!("{}{id}", self.prefix),
        };
        let user_id = UserId::from(user_id);
        let mut identity = Identity::new(user_id, self.role(&claims));
        if let Some(plan) = find(&claims, &self.plan).and_then(Value::as_str) {
            identity = identity.with_plan(Plan::from(plan));
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if let Some(id) = text("jti") {
            identity = identity.with_token_id(id);
        }
        if let Some(id) = text("sid") {
            identity = identity.with_session_id(id);
        }
        if let Some(at) = claims.get("auth_time").and_then(Value::as_u64) {
            identity = identity.with_auth_time(instant(at, "auth_time")?);
        }
        if let Some(methods) = claims.get("amr") {
            identity = identity.with_amr(text_of(methods));
        }
        let scopes = self.scopes(&claims);
        if !scopes.is_empty() {
            claims.insert("scope".into(), scopes.into());
        }
        Ok(identity.with_claims(claims))
    }

    fn role(&self, claims: &Map<String, Value>) -> Role {
        let found = find(claims, &self.roles).map(text_of).unwrap_or_default();
        let role = match &self.named[..] {
            [] => found.first().map(|role| Role::from(*role)),
            named => {
                let mut named = named.iter();
                named.find(|(name, _)| found.contains(&&**name)).map(|(_, role)| role.clone())
            }
        };
        role.filter(|role| !role.as_str().is_empty()).unwrap_or_else(|| self.otherwise.clone())
    }

    fn scopes(&self, claims: &Map<String, Value>) -> String {
        let mut scopes: Vec<&str> = Vec::new();
        for found in self.scopes.iter().filter_map(|at| find(claims, at)) {
            for scope in text_of(found).into_iter().flat_map(str::split_ascii_whitespace) {
                if !scopes.contains(&scope) {
                    scopes.push(scope);
                }
            }
        }
        scopes.join(" ")
    }
}

fn path(names: impl IntoIterator<Item = impl Into<String>>) -> Path {
    names.into_iter().map(|name| name.into().into()).collect()
}

fn find<'a>(claims: &'a Map<String, Value>, path: &Path) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(&**first)?, |value, name| value.get(&**name))
}

/// One text, or a list of them; what is no text is left out.
pub(in crate::token) fn text_of(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
