//! Projects: viewers read, editors write, admins delete.

use axum::{
    Json as Answered, Router,
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    response::IntoResponse,
    routing::{delete, get, patch, post},
};
use http::{StatusCode, header, request::Parts};
use serde::{Deserialize, Serialize};
use tower_warden::{Identity, Problem, RequireRole, Role};
use uuid::Uuid;

use super::{
    App, ProjectStore,
    body::{FromMembers, Json, Members},
    error::{Answer, invalid_request, method_not_allowed},
    projects_store::{Cursor, Project},
};

pub fn router() -> Router<App> {
    let writers = RequireRole::any_of([Role::EDITOR, Role::ADMIN]);
    let admins = RequireRole::any_of([Role::ADMIN]);
    Router::new()
        .route(
            "/projects",
            get(list).merge(post(create).route_layer(writers.clone())).fallback(method_not_allowed),
        )
        .route(
            "/projects/{id}",
            get(show)
                .merge(patch(rename).route_layer(writers))
                .merge(delete(remove).route_layer(admins))
                .fallback(no_method_of_a_thing),
        )
}

async fn list(
    State(projects): State<ProjectStore>,
    query: Result<Query<Page>, QueryRejection>,
) -> Answer<Answered<PageView>> {
    let Query(page) = query.map_err(|_| invalid_request("limit or after can't be used"))?;
    let limit = page.limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(invalid_request("limit is from 1 to 100"));
    }
    let after = page.after.as_deref().map(Cursor::parse);
    let after = after.map(|cursor| cursor.ok_or_else(|| invalid_request("after is no cursor")));
    let (projects, next) = projects.list(limit, after.transpose()?).await?;
    Ok(Answered(PageView {
        projects: projects.into_iter().map(ProjectView::from).collect(),
        next: next.map(|cursor| cursor.to_string()),
    }))
}

async fn create(
    State(projects): State<ProjectStore>,
    caller: Identity,
    Json(Named { name }): Json<Named>,
) -> Answer<impl IntoResponse> {
    let project = projects.create(name, caller.user_id()).await?;
    let location = [(header::LOCATION, format!("/projects/{}", project.id))];
    Ok((StatusCode::CREATED, location, Answered(ProjectView::from(project))))
}

async fn show(
    State(projects): State<ProjectStore>,
    ThingId(id): ThingId,
) -> Answer<Answered<ProjectView>> {
    let project = projects.find(&id).await?.ok_or_else(Problem::not_found)?;
    Ok(Answered(ProjectView::from(project)))
}

async fn rename(
    State(projects): State<ProjectStore>,
    ThingId(id): ThingId,
    Json(Named { name }): Json<Named>,
) -> Answer<Answered<ProjectView>> {
    let project = projects.rename(&id, &name).await?.ok_or_else(Problem::not_found)?;
    Ok(Answered(ProjectView::from(project)))
}

async fn remove(State(projects): State<ProjectStore>, ThingId(id): ThingId) -> Answer<StatusCode> {
    match projects.delete(&id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

/// 404 for an id that can be none, and only then 405.
pub async fn no_method_of_a_thing(_: ThingId) -> Problem {
    method_not_allowed().await
}

/// The `{id}` of a path: a UUID in its one canonical form. Anything else can name nothing.
pub struct ThingId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for ThingId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        let canonical = Uuid::try_parse(&text).is_ok_and(|id| id.hyphenated().to_string() == text);
        // Encoded differently it would be another path to the same thing.
        if canonical && parts.uri.path().rsplit('/').next() == Some(&text) {
            Ok(Self(text))
        } else {
            Err(Problem::not_found())
        }
    }
}

#[derive(Serialize)]
struct ProjectView {
    id: String,
    name: String,
    owner_id: String,
    created_at: String,
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        Self {
            id: project.id,
            name: project.name,
            owner_id: project.owner_id,
            created_at: humantime::format_rfc3339_micros(project.created_at).to_string(),
        }
    }
}

#[derive(Serialize)]
struct PageView {
    projects: Vec<ProjectView>,
    next: Option<String>,
}

struct Named {
    name: String,
}

impl FromMembers for Named {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { name: members.name()? })
    }
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    after: Option<String>,
}
