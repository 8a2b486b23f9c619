//! What admins change of users.

use axum::{Json as Answered, Router, extract::State, routing::patch};
use tower_warden::{ApiKeyService, Plan, RequireRole, Role, UserId, UserService, user::UserChange};

use super::{
    App,
    auth::UserView,
    body::{FromMembers, Json, Members},
    error::Answer,
    projects::{ThingId, no_method_of_a_thing},
};

pub fn router() -> Router<App> {
    let admins = RequireRole::any_of([Role::ADMIN]);
    let change = patch(change).route_layer(admins).fallback(no_method_of_a_thing);
    Router::new().route("/admin/users/{id}", change)
}

async fn change(
    State(users): State<UserService>,
    State(keys): State<ApiKeyService>,
    ThingId(id): ThingId,
    Json(Change(change)): Json<Change>,
) -> Answer<Answered<UserView>> {
    let user = users.update(&UserId::from(id), change).await?;
    keys.forget(&user.id);
    Ok(Answered(user.into()))
}

struct Change(UserChange);

impl FromMembers for Change {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (role, plan) = (members.optional("role"), members.optional("plan"));
        if role.is_none() && plan.is_none() {
            members.errors().add("", "required", "must have a role or a plan");
        }
        let mut change = UserChange::new();
        change.role = role.and_then(|value| members.role(&value));
        change.plan = plan.map(|value| {
            let plans = [Plan::FREE, Plan::PAID, Plan::ENTERPRISE];
            let plan = plans.into_iter().find(|plan| value == plan.as_str());
            if plan.is_none() && !value.is_null() {
                let detail = "must be free, paid, enterprise or null";
                members.errors().add("plan", "invalid_value", detail);
            }
            plan
        });
        Some(Self(change))
    }
}
