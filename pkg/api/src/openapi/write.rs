//! Writing documents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::definition::{Definitions, references};
use super::description::Descriptions;
use super::merge::{Additions, Extension};
use super::operation::{Answer, Body, Operation, definition_name, list_name};
use super::{KUBERNETES, Version, custom, group_versions, parameter};
use crate::resource::{Resource, ResourceTable};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A JSON object that is written member by member.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        // Writing to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *self.out, key);
        self.out.push(b':');
        self.out
    }

    fn member(&mut self, key: &str, value: &Value) {
        let _ = serde_json::to_writer(self.key(key), value);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// A document of the operations and of every definition that they lead to.
pub(super) fn document<E: AsRef<Extension>>(
    table: &ResourceTable,
    operations: Vec<Operation>,
    version: Version,
    extensions: &[E],
) -> Vec<u8> {
    let names = definitions(table, &operations);
    let more = Additions::of(table, &names, extensions);
    let mut out = Vec::with_capacity(64 * 1024);
    let mut document = Object::begin(&mut out);
    let security = json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
        "description": "A bearer token"}});
    let info = json!({"title": "Kubernetes", "version": KUBERNETES});
    match version {
        Version::V2 => {
            document.member("swagger", &"2.0".into());
            document.member("info", &info);
            let mut all = Object::begin(document.key("paths"));
            paths(operations, version, |path, item| all.member(path, &item));
            more.paths.iter().for_each(|(path, item)| all.member(path, item));
            all.end();
            let mut all = Object::begin(document.key("definitions"));
            schemas(table, &names, version, |name, schema| all.member(name, &more.extended(name, schema)));
            more.definitions.iter().for_each(|(name, schema)| all.member(name, schema));
            all.end();
            document.member("securityDefinitions", &security);
            document.member("security", &json!([{"BearerToken": []}]));
        }
        Version::V3 => {
            document.member("openapi", &"3.0.0".into());
            document.member("info", &info);
            let mut all = Object::begin(document.key("paths"));
            paths(operations, version, |path, item| all.member(path, &item));
            all.end();
            let mut components = Object::begin(document.key("components"));
            let mut all = Object::begin(components.key("schemas"));
            schemas(table, &names, version, |name, schema| all.member(name, &schema));
            all.end();
            components.member("securitySchemes", &security);
            components.end();
        }
    }
    document.end();
    out
}

/// Names of all definitions that the operations lead to.
pub(super) fn definitions(table: &ResourceTable, operations: &[Operation]) -> BTreeSet<String> {
    let custom: BTreeMap<String, &Resource> =
        table.iter().filter(|r| r.is_custom()).map(|r| (definition_name(r), &**r)).collect();
    let mut names = BTreeSet::new();
    let mut open: Vec<String> = operations.iter().flat_map(direct).filter(|name| !name.is_empty()).collect();
    while let Some(name) = open.pop() {
        open.extend(references(&name).into_iter().map(str::to_owned).filter(|name| !names.contains(name)));
        if custom.contains_key(&name) {
            open.push(format!("{META}.ObjectMeta"));
        } else if crate::schema::find(&name).is_none() && name.ends_with("List") {
            open.push(format!("{META}.ListMeta"));
        }
        names.insert(name);
    }
    names
}

fn direct(operation: &Operation) -> Vec<String> {
    let mut names = match &operation.answer {
        Answer::Object(name, _) => vec![name.clone()],
        Answer::Watchable(name) => vec![name.clone(), format!("{META}.WatchEvent")],
        Answer::Text | Answer::Nothing => Vec::new(),
    };
    names.extend(operation.body.as_ref().map(body_name));
    names
}

fn body_name(body: &Body) -> String {
    match body {
        Body::Object(name) => name.clone(),
        Body::Patch => format!("{META}.Patch"),
        Body::DeleteOptions => format!("{META}.DeleteOptions"),
    }
}

/// Makes the schema of each name.
pub(super) fn schemas(
    table: &ResourceTable,
    names: &BTreeSet<String>,
    version: Version,
    mut each: impl FnMut(&str, Value),
) {
    let makes = Definitions { version, descriptions: Descriptions::unpack() };
    let mut rows = BTreeMap::new();
    for row in table.iter() {
        rows.insert(definition_name(row), (row, &row.kind));
        rows.insert(list_name(row), (row, &row.list_kind));
    }
    for name in names {
        let row = rows.get(name);
        let mut schema = match row {
            Some((row, kind)) if row.is_custom() && **kind == row.list_kind => {
                custom::list(row, version, &makes.descriptions)
            }
            Some((row, _)) if row.is_custom() => custom::object(row, version, &makes.descriptions),
            _ => makes.schema(name),
        };
        let kinds = kinds(table, name, row.map(|(row, kind)| (&***row, kind.as_str())));
        if !kinds.is_empty() {
            schema["x-kubernetes-group-version-kind"] = kinds.into();
        }
        each(name, schema);
    }
}

/// The group versions and kinds that a definition is served under.
fn kinds(table: &ResourceTable, name: &str, row: Option<(&Resource, &str)>) -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    if let Some((row, name)) = row {
        return vec![kind(&row.group, &row.version, name)];
    }
    let Some(ty) = crate::schema::find(name) else { return Vec::new() };
    let (package, short) = name.rsplit_once('.').unwrap_or(("", name));
    if package == META {
        return match short {
            "DeleteOptions" | "WatchEvent" => {
                group_versions(table).iter().map(|(group, version)| kind(group, version, short)).collect()
            }
            _ if ty.type_meta => vec![kind("", "v1", short)],
            _ => Vec::new(),
        };
    }
    let versions = group_versions(table);
    let mut served = versions.iter().filter(|_| ty.type_meta);
    let of = served.find(|(group, version)| {
        let api_version = crate::name::api_version(group, version);
        crate::schema::by_kind(&api_version, short).is_some_and(|found| found.name == name)
    });
    of.map(|(group, version)| vec![kind(group, version, short)]).unwrap_or_default()
}

/// Makes the item of each path.
pub(super) fn paths(operations: Vec<Operation>, version: Version, mut each: impl FnMut(&str, Value)) {
    let mut by_path: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_path.entry(operation.path.clone()).or_default().push(operation);
    }
    for (path, operations) in by_path {
        let mut item = Map::new();
        let kind = operations[0].kind.as_ref().map_or("", |kind| &kind.kind);
        let parameters = parameter::in_path(&path, kind, version);
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        for operation in &operations {
            item.insert(operation.method.into(), render(operation, version));
        }
        each(&path, item.into());
    }
}

fn render(operation: &Operation, version: Version) -> Value {
    let mut parameters: Vec<Value> = operation.query.iter().map(|name| parameter::query(name, version)).collect();
    let mut rendered = json!({
        "description": operation.description, "operationId": operation.id, "tags": [operation.tag],
    });
    let custom = operation.kind.as_ref().is_some_and(|k| !k.group.ends_with(".k8s.io") && k.group.contains('.'));
    if let Some(body) = &operation.body {
        let schema = json!({"$ref": version.reference(&body_name(body))});
        let required = *body != Body::DeleteOptions;
        match version {
            Version::V2 => {
                let mut parameter = json!({"in": "body", "name": "body", "schema": schema});
                if required {
                    parameter["required"] = true.into();
                }
                parameters.push(parameter);
            }
            Version::V3 => {
                let mut request = json!({"content": content(&consumes(body, custom), &schema)});
                if required {
                    request["required"] = true.into();
                }
                rendered["requestBody"] = request;
            }
        }
    }
    if version == Version::V2 {
        let consumes = match &operation.body {
            Some(body @ Body::Patch) => consumes(body, custom),
            _ => vec!["*/*"],
        };
        rendered["consumes"] = consumes.into();
        rendered["produces"] = produces(&operation.answer, custom).into();
        rendered["schemes"] = json!(["https"]);
    }
    if !parameters.is_empty() {
        rendered["parameters"] = parameters.into();
    }
    rendered["responses"] = responses(&operation.answer, custom, version);
    if !operation.action.is_empty() {
        rendered["x-kubernetes-action"] = operation.action.into();
    }
    if let Some(kind) = &operation.kind {
        rendered["x-kubernetes-group-version-kind"] =
            json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    }
    rendered
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn consumes(body: &Body, custom: bool) -> Vec<&'static str> {
    match body {
        // Strategic merge needs merge keys, which custom resources do not have.
        Body::Patch => PATCHES.into_iter().filter(|p| !custom || !p.contains("strategic")).collect(),
        _ if custom => vec![JSON, YAML],
        _ => vec![JSON, YAML, PROTOBUF],
    }
}

fn produces(answer: &Answer, custom: bool) -> Vec<&'static str> {
    let mut types = match answer {
        Answer::Text | Answer::Nothing => return vec!["*/*"],
        _ if custom => vec![JSON, YAML],
        _ => vec![JSON, YAML, PROTOBUF],
    };
    if matches!(answer, Answer::Watchable(_)) {
        types.push("application/json;stream=watch");
        if !custom {
            types.push("application/vnd.kubernetes.protobuf;stream=watch");
        }
    }
    types
}

fn responses(answer: &Answer, custom: bool, version: Version) -> Value {
    let (schema, codes): (Value, &[u16]) = match answer {
        Answer::Object(name, codes) => (json!({"$ref": version.reference(name)}), codes),
        Answer::Watchable(name) => (json!({"$ref": version.reference(name)}), &[200]),
        Answer::Text => (json!({"type": "string"}), &[200]),
        Answer::Nothing => (Value::Null, &[]),
    };
    let mut responses = Map::new();
    for code in codes {
        let description = match code {
            200 => "OK",
            201 => "Created",
            _ => "Accepted",
        };
        let response = match version {
            Version::V2 => json!({"description": description, "schema": schema}),
            Version::V3 => json!({"description": description, "content": content(&produces(answer, custom), &schema)}),
        };
        responses.insert(code.to_string(), response);
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    responses.into()
}
