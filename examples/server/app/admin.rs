//! What admins see and change of users.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    Json as Answered, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::{get, patch},
};
use serde::{Deserialize, Serialize};
use tower_warden::{
    ApiKeyService, Identity, Plan, RequireRole, Role, UserId, UserService,
    user::{User, UserChange, UserCursor, UserPage},
};
use uuid::Uuid;

use super::{
    App,
    auth::UserView,
    body::{FromMembers, Json, Members},
    error::{Answer, invalid_request, method_not_allowed},
    projects::{ThingId, no_method_of_a_thing},
};

pub fn router() -> Router<App> {
    let admins = RequireRole::any_of([Role::ADMIN]);
    let list = get(list).route_layer(admins.clone()).fallback(method_not_allowed);
    let change = patch(change).route_layer(admins).fallback(no_method_of_a_thing);
    Router::new().route("/admin/users", list).route("/admin/users/{id}", change)
}

async fn list(
    State(users): State<UserService>,
    query: Result<Query<Page>, QueryRejection>,
) -> Answer<Answered<PageView>> {
    let Query(page) = query.map_err(|_| invalid_request("email, limit or after can't be used"))?;
    let limit = page.limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(invalid_request("limit is from 1 to 100"));
    }
    let after = page.after.as_deref().map(cursor);
    let after = after.map(|cursor| cursor.ok_or_else(|| invalid_request("after is no cursor")));
    let after = after.transpose()?;
    let (users, next) = match page.email {
        Some(email) => (users.find_by_email(email).await?.into_iter().collect(), None),
        None => {
            // One more than is asked for tells whether there is a next page.
            let page = after.into_iter().fold(UserPage::new(limit + 1), UserPage::after);
            let mut found = users.list(&page).await?;
            let more = found.len() > limit as usize;
            found.truncate(limit as usize);
            let next = found.last().filter(|_| more).map(next);
            (found, next)
        }
    };
    Ok(Answered(PageView { users: users.into_iter().map(UserView::from).collect(), next }))
}

/// Where a page ended, as `next` says it.
fn next(user: &User) -> String {
    let since = user.created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}_{}", since.as_micros(), user.id)
}

fn cursor(text: &str) -> Option<UserCursor> {
    let (micros, id) = text.split_once('_')?;
    let id = Uuid::try_parse(id).ok()?.to_string();
    let made = UNIX_EPOCH.checked_add(Duration::from_micros(micros.parse().ok()?))?;
    Some(UserCursor::new(made, UserId::from(id)))
}

async fn change(
    State(users): State<UserService>,
    State(keys): State<ApiKeyService>,
    ThingId(id): ThingId,
    caller: Identity,
    Json(Change(change)): Json<Change>,
) -> Answer<Answered<UserView>> {
    // That the token says who is an admin isn't enough: the store looks who is one now.
    let user = users.update(&UserId::from(id), change.by(caller.user_id())).await?;
    keys.forget(&user.id);
    Ok(Answered(user.into()))
}

struct Change(UserChange);

impl FromMembers for Change {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (role, plan) = (members.optional("role"), members.optional("plan"));
        let (suspended, totp) = (members.optional("suspended"), members.optional("totp"));
        if role.is_none() && plan.is_none() && suspended.is_none() && totp.is_none() {
            members.errors().add("", "required", "must have a role, a plan, suspended or totp");
        }
        if totp.as_ref().is_some_and(|totp| *totp != false) {
            members.errors().add("totp", "invalid_value", "must be false");
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
        change.suspended = suspended.and_then(|value| {
            if !value.is_boolean() {
                members.errors().add("suspended", "invalid_type", "must be true or false");
            }
            value.as_bool()
        });
        change.second_factor_off = totp.is_some();
        Some(Self(change))
    }
}

#[derive(Serialize)]
struct PageView {
    users: Vec<UserView>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    email: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}
