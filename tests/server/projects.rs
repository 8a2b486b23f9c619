//! Projects: who may do what to them, and how they are listed.

use serde_json::{Value, json};
use tower_warden::{Clock, Role};

use crate::{
    reply::assert_members,
    support::{Api, NO_ID, SECOND, Server, Session},
};

#[tokio::test]
async fn viewer_lists_projects() {
    let server = Server::start().await;
    let (viewer, editor) = (server.join(Role::VIEWER).await, server.join(Role::EDITOR).await);
    let empty = server.get("/projects").by(&viewer).await.expect(200).json();
    assert_eq!(empty, json!({"projects": [], "next": null}));

    let id = server.create_project(&editor, "Apollo").await;
    let page = server.get("/projects").by(&viewer).await.expect(200).json();
    let project = server.get(&format!("/projects/{id}")).by(&viewer).await.expect(200).json();
    assert_eq!(page, json!({"projects": [project], "next": null}));
}

#[tokio::test]
async fn viewer_cannot_create_projects() {
    let server = Server::start().await;
    let viewer = server.join(Role::VIEWER).await;
    let create = server.post("/projects", json!({"name": "Apollo"})).by(&viewer);
    create.await.refused(403, "insufficient_permissions");
}

#[tokio::test]
async fn editor_creates_projects() {
    let server = Server::start().await;
    let editor = server.join(Role::EDITOR).await;
    let created = server.post("/projects", json!({"name": " Apollo\n"})).by(&editor).await;
    let created = created.expect(201);
    let project = created.json();
    assert_members(project.as_object().unwrap(), &["id", "name", "owner_id", "created_at"]);
    assert_eq!((&project["name"], &project["owner_id"]), (&json!("Apollo"), &json!(editor.id)));
    let created_at = humantime::parse_rfc3339(&created.text("created_at")).unwrap();
    assert_eq!(created_at, server.clock.now());

    let location = created.header("location").unwrap();
    assert_eq!(location, format!("/projects/{}", created.text("id")));
    assert_eq!(server.get(location).by(&editor).await.expect(200).json(), project);
}

#[tokio::test]
async fn only_admin_deletes_projects() {
    let server = Server::start().await;
    let editor = server.join(Role::EDITOR).await;
    let path = format!("/projects/{}", server.create_project(&editor, "Apollo").await);
    for role in [Role::VIEWER, Role::EDITOR] {
        let caller = server.join(role).await;
        let delete = server.delete(&path).by(&caller);
        delete.await.refused(403, "insufficient_permissions");
    }
    let admin = server.join(Role::ADMIN).await;
    assert!(server.delete(&path).by(&admin).await.expect(204).body.is_empty());
    server.delete(&path).by(&admin).await.refused(404, "not_found");
    server.get(&path).by(&admin).await.refused(404, "not_found");
}

#[tokio::test]
async fn editors_rename_each_others_projects() {
    let server = Server::start().await;
    let (editor, other) = (server.join(Role::EDITOR).await, server.join(Role::EDITOR).await);
    let path = format!("/projects/{}", server.create_project(&editor, "Apollo").await);
    let before = server.get(&path).by(&editor).await.json();
    server.clock.advance(SECOND);
    let rename = server.patch(&path, json!({"name": " Gemini "})).by(&other);
    let mut expected = before;
    expected["name"] = json!("Gemini");
    assert_eq!(rename.await.expect(200).json(), expected);
    assert_eq!(server.get(&path).by(&editor).await.json(), expected);
    let nowhere = server.patch(&format!("/projects/{NO_ID}"), json!({"name": "x"}));
    nowhere.by(&other).await.refused(404, "not_found");
}

#[tokio::test]
async fn name_has_1_to_200_characters_after_trimming() {
    let server = Server::start().await;
    let editor = server.join(Role::EDITOR).await;
    let (of_200, of_201) = ("é".repeat(200), "é".repeat(201));
    for (name, code) in [
        ("x", None),
        (of_200.as_str(), None),
        (&format!("  {of_200}\t"), None),
        ("", Some("too_short")),
        (" \u{a0}\r\n", Some("too_short")),
        (&of_201, Some("too_long")),
        ("a\0b", Some("contains_nul")),
    ] {
        let reply = server.post("/projects", json!({"name": name})).by(&editor).await;
        match code {
            None => assert_eq!(reply.expect(201).text("name"), name.trim()),
            Some(code) => assert_eq!(reply.field_errors(), [format!("name: {code}")], "{name:?}"),
        }
    }
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_repeat() {
    let server = Server::start().await;
    let editor = server.join(Role::EDITOR).await;
    let mut created = Vec::new();
    for n in 0..120 {
        created.push(server.create_project(&editor, &format!("p{n}")).await);
        // Some of the same moment, some not.
        server.clock.advance(SECOND * (n % 3));
    }
    for limit in [1, 7, 50, 60, 100] {
        let listed = walk(&server, &editor, limit).await;
        assert!(listed.windows(2).all(|two| two[0].1 >= two[1].1), "newest first");
        let mut ids: Vec<_> = listed.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        created.sort_unstable();
        assert_eq!(ids, created, "limit {limit}");
    }
    let first = server.get("/projects").by(&editor).await.json();
    assert_eq!(first["projects"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn what_is_added_or_deleted_meanwhile_does_not_disturb_the_walk() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let mut created = Vec::new();
    for n in 0..6 {
        created.push(server.create_project(&admin, &format!("p{n}")).await);
        server.clock.advance(SECOND);
    }
    let first = server.get("/projects?limit=3").by(&admin).await.json();
    let last_of_it = first["projects"][2]["id"].as_str().unwrap();
    server.delete(&format!("/projects/{last_of_it}")).by(&admin).await.expect(204);
    server.create_project(&admin, "new").await;

    let next = format!("/projects?limit=3&after={}", first["next"].as_str().unwrap());
    let second = server.get(&next).by(&admin).await.json();
    let ids: Vec<_> = projects(&second).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [&created[2], &created[1], &created[0]].map(Clone::clone));
    assert_eq!(second["next"], json!(null));
}

#[tokio::test]
async fn unusable_page_is_refused() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1.5",
        "limit=",
        "limit=x",
        "limit=99999999999999999999",
        "limit=1&limit=2",
        "after=",
        "after=x",
        "after=1_x",
        "after=1_2_3",
        "after=1&after=2",
        &format!("after=x_{NO_ID}"),
    ] {
        let reply = server.get(&format!("/projects?{query}")).by(&admin).await;
        assert_eq!(reply.error(), (400, "invalid_request"), "{query}");
    }
    for query in ["limit=1", "limit=100", &format!("after=1_{NO_ID}"), "other=1"] {
        server.get(&format!("/projects?{query}")).by(&admin).await.expect(200);
    }
}

/// All pages of so many.
async fn walk(server: &Server, caller: &Session, limit: u32) -> Vec<(String, String)> {
    let mut listed = Vec::new();
    let mut path = format!("/projects?limit={limit}");
    loop {
        // Too many pages for one minute.
        server.clock.advance(SECOND / 4);
        let page = server.get(&path).by(caller).await.expect(200).json();
        listed.extend(projects(&page));
        match &page["next"] {
            Value::Null => return listed,
            next => {
                assert_eq!(projects(&page).len(), limit as usize);
                path = format!("/projects?limit={limit}&after={}", next.as_str().unwrap());
            }
        }
    }
}

/// Identifier and time of each project of a page.
fn projects(page: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let projects = page["projects"].as_array().unwrap();
    projects.iter().map(|project| (text(&project["id"]), text(&project["created_at"]))).collect()
}
