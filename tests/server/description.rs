//! What `/openapi.json` promises: the routes that there are, and of each answer its status, headers and form.

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use http::{Method, StatusCode};
use serde_json::{Map, Value};
use tower_warden::Role;

use crate::{
    refusals::ROUTES,
    reply::Reply,
    support::{Api, NO_ID, SECOND, Server},
};

static API: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../examples/server/app/openapi.json")).unwrap()
});

/// For people, and what tells programs of the rest.
const NOT_DESCRIBED: [&str; 6] = ["/", "/app.js", "/app.css", "/docs", "/docs.js", "/openapi.json"];

/// Holds an answer against what is described.
pub(crate) fn check(reply: &Reply, method: &Method, path: &str) {
    let of_connection = [StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];
    let preflight = method == Method::OPTIONS && reply.status == StatusCode::OK;
    let Some(operations) = operations(path) else { return };
    if preflight || of_connection.contains(&reply.status) {
        return;
    }
    let method = if method == Method::HEAD { "get" } else { &method.as_str().to_lowercase() };
    let status = reply.status.as_str();
    let described = |operation: &'static Value| operation["responses"].get(status);
    let response = match operations.get(method) {
        Some(operation) => described(operation),
        None => operations.values().find_map(described),
    };
    let Some(response) = response.map(resolved) else {
        panic!("{method} {path} has an answer that isn't described: {reply:?}")
    };
    for (name, header) in members(&response["headers"]) {
        let needed = resolved(header)["required"] == true;
        assert!(!needed || reply.header(name).is_some(), "{method} {path} lacks {name}: {reply:?}");
    }
    if reply.body.is_empty() {
        return;
    }
    let kind = reply.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let Some(content) = response["content"].get(kind) else {
        panic!("{method} {path} answers {kind:?}, which isn't described: {reply:?}")
    };
    if kind.ends_with("json") {
        assert!(fits(&content["schema"], &reply.json()), "{method} {path}: {reply:?}");
    }
}

/// Those of the path that this one is of.
fn operations(path: &str) -> Option<&'static Map<String, Value>> {
    let fits = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(t, p)| t == p || t.starts_with('{'))
    };
    let (_, operations) = members(&API["paths"]).find(|(template, _)| fits(template))?;
    operations.as_object()
}

fn members(object: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    object.as_object().into_iter().flatten().map(|(name, member)| (&**name, member))
}

/// What a reference within the description leads to.
fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => API.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// Whether a value is what a schema says, as far as the description uses JSON Schema.
fn fits(schema: &'static Value, value: &Value) -> bool {
    members(schema).all(|(keyword, says)| match keyword {
        "$ref" => fits(resolved(schema), value),
        "allOf" => says.as_array().unwrap().iter().all(|schema| fits(schema, value)),
        "anyOf" => says.as_array().unwrap().iter().any(|schema| fits(schema, value)),
        "type" => match says {
            Value::Array(types) => types.iter().any(|name| is_of_type(name, value)),
            name => is_of_type(name, value),
        },
        "enum" => says.as_array().unwrap().contains(value),
        "const" => says == value,
        "items" => value.as_array().is_none_or(|all| all.iter().all(|item| fits(says, item))),
        "properties" => value.as_object().is_none_or(|object| {
            members(says).all(|(name, schema)| object.get(name).is_none_or(|v| fits(schema, v)))
        }),
        "required" => {
            says.as_array().unwrap().iter().all(|n| value.get(n.as_str().unwrap()).is_some())
        }
        "additionalProperties" => {
            assert_eq!(says, false);
            value.as_object().is_none_or(|object| {
                object.keys().all(|name| schema["properties"].get(name).is_some())
            })
        }
        "minimum" => value.as_f64() >= says.as_f64(),
        "minLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 >= number(says))
        }
        "maxLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 <= number(says))
        }
        "minItems" => value.as_array().is_none_or(|all| all.len() as u64 >= number(says)),
        "maxItems" => value.as_array().is_none_or(|all| all.len() as u64 <= number(says)),
        "description" | "format" | "pattern" => true,
        other => panic!("the description uses {other}: say here what that is"),
    })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("no type: {other}"),
    }
}

/// The paths that the app's routers name. Read from its sources: a router doesn't tell.
fn routed() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/server/app");
    let mut paths = BTreeSet::new();
    for file in fs::read_dir(sources).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&file).unwrap();
            for after in source.split(".route(").skip(1) {
                let path = after.trim_start().strip_prefix('"').and_then(|p| p.split_once('"'));
                let (path, _) = path.unwrap_or_else(|| panic!("{file:?}: a path that isn't text"));
                paths.insert(path.to_owned());
            }
        }
    }
    paths
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let mut routes = BTreeSet::new();
    for path in routed().into_iter().filter(|path| !NOT_DESCRIBED.contains(&&**path)) {
        let call = server.call("BREW".parse().unwrap(), &path.replace("{id}", NO_ID));
        let reply = call.by(&admin).await.expect(405);
        for method in reply.header("allow").unwrap().split(',').filter(|method| *method != "HEAD") {
            routes.insert((method.to_owned(), path.clone()));
        }
        server.clock.advance(SECOND);
    }
    let mut described = BTreeSet::new();
    for (path, operations) in members(&API["paths"]) {
        for (method, operation) in members(operations) {
            let id = (method.to_uppercase(), path.to_owned());
            let row = ROUTES.iter().find(|(m, p, _)| (*m, *p) == (&*id.0, &*id.1));
            let (_, _, least) = row.unwrap_or_else(|| panic!("{id:?}: who is it for?"));
            assert_eq!(operation["security"].is_array(), least.is_some(), "{id:?}");
            for always in ["405", "429", "500", "503"] {
                assert!(operation["responses"].get(always).is_some(), "{id:?} {always}");
            }
            described.insert(id);
        }
    }
    assert_eq!(described, routes);
    assert_eq!(described.len(), ROUTES.len());
    for path in NOT_DESCRIBED {
        let page = server.get(path).header("accept", "text/html").await;
        assert!(page.status == StatusCode::OK, "{path}: {page:?}");
    }
}

#[tokio::test]
async fn description_is_of_this_version() {
    let server = Server::start().await;
    let served = server.get("/openapi.json").await.expect(200).json();
    assert_eq!(served, *API);
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn values_are_held_against_their_schemas() {
    let user = serde_json::json!({
        "id": NO_ID, "email": "ada@example.com", "role": "viewer", "plan": null,
        "email_verified": true, "suspended": false, "totp": false, "created_at": "2030-01-31T12:00:00Z",
    });
    let schema = &API["components"]["schemas"]["User"];
    assert!(fits(schema, &user));
    for (member, value) in [
        ("plan", Value::from("gold")),
        ("role", Value::Null),
        ("hash", Value::from("x")),
        ("totp", 1.into()),
    ] {
        let mut wrong = user.clone();
        wrong[member] = value;
        assert!(!fits(schema, &wrong), "{wrong}");
    }
    let mut lacking = user;
    lacking.as_object_mut().unwrap().remove("id");
    assert!(!fits(schema, &lacking));
}
