//! Objects as rows of a table, as clients print them.

mod cells;
mod columns;
mod descriptions;
mod duration;
pub mod jsonpath;
mod network;
mod pod;
mod policy;

pub use duration::{age, human_duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::codec::partial_object_metadata;
use crate::resource::{PrinterColumn, Resource};
use columns::{Cell, Column};
use descriptions::description;

/// What each row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the query parameter `includeObject`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// How a table is asked for.
#[derive(Clone, Debug)]
pub struct TableOptions<'a> {
    pub include: IncludeObject,
    /// Leaves the column definitions out, as after the first event of a watch.
    pub no_headers: bool,
    /// Version of meta.k8s.io: `v1` or `v1beta1`.
    pub version: &'a str,
    /// What ages are counted to.
    pub now: Timestamp,
}

impl Default for TableOptions<'_> {
    fn default() -> Self {
        Self { include: IncludeObject::Metadata, no_headers: false, version: "v1", now: Timestamp::now() }
    }
}

/// A Table of objects of the resource, or of Scale objects of its subresource.
///
/// `list_meta` is the metadata of the list, or of the single object; of it the table takes what lists have.
pub fn render(resource: &Resource, objects: &[&Value], list_meta: &Value, options: &TableOptions) -> Value {
    let columns = Columns::of(resource, objects);
    let mut metadata = Map::new();
    for key in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = list_meta.get(key) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    let mut objects = objects.to_vec();
    if resource.plural == "flowschemas" {
        objects.sort_by_key(|o| (o["spec"]["matchingPrecedence"].as_i64(), o["metadata"]["name"].as_str()));
    }
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, &columns, object, options)).collect();
    let definitions = if options.no_headers { Value::Null } else { columns.definitions() };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", options.version),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn row(resource: &Resource, columns: &Columns, object: &Value, options: &TableOptions) -> Value {
    let mut cells = columns.cells(object, options.now);
    if resource.plural == "ipaddresses" {
        // A cell more than there are columns: what clients of this resource get.
        cells.push(age(&object["metadata"]["creationTimestamp"], options.now).into());
    }
    let mut row = Map::new();
    row.insert("cells".to_owned(), cells.into());
    if resource.plural == "pods"
        && let Some(phase) = object["status"]["phase"].as_str().filter(|p| matches!(*p, "Succeeded" | "Failed"))
    {
        let message = "The pod has run to its end.";
        let done = json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]);
        row.insert("conditions".to_owned(), done);
    }
    row.insert(
        "object".to_owned(),
        match options.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial_object_metadata(object, options.version),
            IncludeObject::Object => whole(resource, object),
        },
    );
    row.into()
}

/// Items of lists do not say their kind; objects in rows do.
fn whole(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut() {
        members.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        members.entry("kind").or_insert_with(|| resource.kind.as_str().into());
    }
    object
}

enum Columns<'a> {
    Builtin(&'static [Column]),
    Custom(&'a [PrinterColumn]),
}

impl<'a> Columns<'a> {
    fn of(resource: &'a Resource, objects: &[&Value]) -> Self {
        if objects.first().is_some_and(|o| o["kind"] == "Scale") {
            Self::Builtin(columns::SCALE)
        } else if resource.is_custom() {
            Self::Custom(&resource.columns)
        } else {
            Self::Builtin(columns::find(&resource.group, &resource.plural))
        }
    }

    fn definitions(&self) -> Value {
        match self {
            Self::Builtin(columns) => columns
                .iter()
                .map(|c| definition(c.name, c.kind, c.format, description(c.name), c.priority.into()))
                .collect(),
            Self::Custom(columns) => std::iter::once(definition("Name", "string", "name", description("Name"), 0))
                .chain(columns.iter().map(custom_definition))
                .collect(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Builtin(columns) => columns.iter().map(|c| c.cell.value(object, now)).collect(),
            Self::Custom(columns) => std::iter::once(object["metadata"]["name"].clone())
                .chain(columns.iter().map(|c| custom_cell(c, object, now)))
                .collect(),
        }
    }
}

/// A column that says nothing of itself is told by where it looks.
fn custom_definition(column: &PrinterColumn) -> Value {
    let told = match column.description.as_str() {
        "" => format!("The value at {}.", column.json_path),
        text => text.to_owned(),
    };
    definition(&column.name, &column.kind, &column.format, &told, column.priority)
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

impl Cell {
    fn value(&self, object: &Value, now: Timestamp) -> Value {
        let find = |path: &str| cells::find(object, path);
        let field = |path: &'static str, member: &'static str| {
            cells::joined(cells::items(object, path).map(move |item| cells::text(item, member)), ",")
        };
        match *self {
            Self::Text(path) => cells::shown(find(path)).into(),
            Self::TextOr(path, default) => cells::or(cells::shown(find(path)), default).into(),
            Self::Int(path) => find(path).as_i64().unwrap_or(0).into(),
            Self::IntOr(path, default) => find(path).as_i64().map_or_else(|| default.into(), Value::from),
            Self::BoolOr(path, default) => find(path).as_bool().unwrap_or(default).into(),
            Self::Age(path) => age(find(path), now).into(),
            Self::Labels(path) => cells::labels(find(path)).into(),
            Self::Selector(path) => cells::selector(find(path)).into(),
            Self::Count(path) => match find(path) {
                Value::Array(items) => items.len().into(),
                Value::Object(members) => members.len().into(),
                _ => 0.into(),
            },
            Self::Names(path) => field(path, "name").into(),
            Self::Images(path) => field(path, "image").into(),
            Self::Joined(path, default) => {
                cells::or(cells::joined(cells::items(object, path).map(cells::shown), ","), default).into()
            }
            Self::Code(code) => code(object).into(),
            Self::Timed(code) => code(object, now).into(),
            Self::Json(code) => code(object),
        }
    }
}

fn custom_cell(column: &PrinterColumn, object: &Value, now: Timestamp) -> Value {
    let Some(found) = jsonpath::first(&column.json_path, object).filter(|v| !v.is_null()) else {
        return Value::Null;
    };
    match (column.kind.as_str(), found) {
        ("string", value) => cells::shown(value).into(),
        ("integer", Value::Number(number)) => {
            number.as_i64().map_or_else(|| number.as_f64().map_or(Value::Null, |f| (f as i64).into()), Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
        ("date", Value::String(_)) => {
            duration::parse(found).map_or_else(|| "<invalid>".into(), |_| age(found, now).into())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
