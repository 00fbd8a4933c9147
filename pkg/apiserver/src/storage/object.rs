//! Objects as the server keeps them: canonical JSON and where in it the few things are that are looked at often.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use kube1_api::codec::encode_canonical;
use kube1_api::selector::{FieldSelector, LabelSelector};
use serde_json::Value;

use super::scan::{self, Members, Span, Wanted};

const NAMESPACE: usize = 0;
const NAME: usize = 1;
const UID: usize = 2;
const VERSION: usize = 3;
const LABELS: usize = 4;
const DELETION: usize = 5;
const FIRST_FIELD: usize = 6;

/// Which members of a resource's objects are looked at.
#[derive(Debug)]
pub(super) struct Layout {
    /// Bytes of the canonical form of built-in kinds before the first member that is not its kind or version.
    head: usize,
    paths: Vec<Vec<String>>,
    /// Names of the paths from `FIRST_FIELD` on.
    fields: Vec<String>,
    /// Selectors know some fields of these objects by other names.
    aliases: bool,
}

impl Layout {
    pub fn new(api_version: &str, kind: &str, selectable: &[&str]) -> Self {
        let aliases = api_version == "v1";
        let stored = |field: &str| if aliases { stored_field(field).to_owned() } else { field.to_owned() };
        let mut fields: Vec<String> = selectable.iter().map(|field| stored(field)).collect();
        if fields.iter().any(|f| f == "source.component") {
            fields.push("reportingComponent".into());
        }
        fields.retain(|f| !f.starts_with("metadata."));
        fields.sort();
        fields.dedup();
        let metadata = ["namespace", "name", "uid", "resourceVersion", "labels", "deletionTimestamp"];
        let split = |path: &str| path.split('.').map(str::to_owned).collect();
        let paths = metadata.iter().map(|m| split(&format!("metadata.{m}"))).chain(fields.iter().map(|f| split(f)));
        let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",").len();
        Self { head, paths: paths.collect(), fields, aliases }
    }

    /// Position of a field among the spans.
    fn position(&self, stored: &str) -> Option<usize> {
        self.fields.iter().position(|f| f == stored).map(|i| i + FIRST_FIELD)
    }
}

/// Where a selectable field of the core group is in the stored form.
fn stored_field(field: &str) -> &str {
    match field {
        "spec.host" => "spec.nodeName",
        "status.podIPs" => "status.podIP",
        "name" => "metadata.name",
        "source" => "source.component",
        "reportingController" => "reportingComponent",
        "regarding.kind" => "involvedObject.kind",
        "regarding.namespace" => "involvedObject.namespace",
        "regarding.name" => "involvedObject.name",
        "regarding.uid" => "involvedObject.uid",
        "regarding.apiVersion" => "involvedObject.apiVersion",
        "regarding.resourceVersion" => "involvedObject.resourceVersion",
        "regarding.fieldPath" => "involvedObject.fieldPath",
        other => other,
    }
}

/// An object with its resourceVersion still missing.
#[derive(Debug)]
pub(super) struct Draft {
    layout: Arc<Layout>,
    /// Canonical JSON with an empty resourceVersion.
    pub json: Bytes,
    spans: Box<[Span]>,
}

impl Draft {
    /// `None` when the value is no object with metadata.
    pub fn new(layout: &Arc<Layout>, mut value: Value) -> Option<Self> {
        value.get_mut("metadata")?.as_object_mut()?.insert("resourceVersion".into(), "".into());
        Self::read(layout, encode_canonical(&value).into())
    }

    /// Takes bytes that were made by `new` before.
    pub fn read(layout: &Arc<Layout>, json: Bytes) -> Option<Self> {
        let mut spans = vec![Span::default(); layout.paths.len()].into_boxed_slice();
        let wanted: smallvec::SmallVec<[Wanted<'_>; 24]> =
            layout.paths.iter().enumerate().map(|(index, path)| Wanted { path, index }).collect();
        scan::find(&json, 0, &wanted, &mut spans)?;
        (!spans[VERSION].is_empty() && !spans[NAME].is_empty()).then_some(Self { layout: layout.clone(), json, spans })
    }

    /// Namespace and name.
    pub fn key(&self) -> (&str, &str) {
        (plain(&self.json, self.spans[NAMESPACE]), plain(&self.json, self.spans[NAME]))
    }

    pub fn commit(&self, revision: u64) -> Object {
        Object::splice(&self.layout, &self.json, &self.spans, revision)
    }
}

/// A stored object at one revision. Never changes.
#[derive(Debug)]
pub struct Object {
    /// Canonical JSON and the end of its line.
    line: Bytes,
    revision: u64,
    layout: Arc<Layout>,
    spans: Box<[Span]>,
    /// Length of the protobuf form once it was asked for; 0 before.
    protobuf_size: AtomicU32,
}

impl Object {
    fn splice(layout: &Arc<Layout>, json: &[u8], spans: &[Span], revision: u64) -> Self {
        let digits = format!("\"{revision}\"");
        let hole = spans[VERSION];
        let delta = digits.len() as i64 - i64::from(hole.end - hole.start);
        let (start, end) = (hole.start as usize, hole.end as usize);
        let mut spliced = Vec::with_capacity(json.len() + digits.len() + 1);
        spliced.extend_from_slice(&json[..start]);
        spliced.extend_from_slice(digits.as_bytes());
        spliced.extend_from_slice(&json[end..]);
        spliced.push(b'\n');
        spliced.shrink_to_fit();
        let spans = spans.iter().map(|s| s.shifted(hole.start, delta)).collect();
        Self { line: spliced.into(), revision, layout: layout.clone(), spans, protobuf_size: AtomicU32::new(0) }
    }

    /// The same object with another resourceVersion.
    pub(super) fn at(&self, revision: u64) -> Self {
        Self::splice(&self.layout, self.json(), &self.spans, revision)
    }

    /// Something that is not stored, such as what a bookmark carries.
    pub(super) fn free(layout: &Arc<Layout>, json: &[u8], revision: u64) -> Self {
        Self {
            line: [json, b"\n"].concat().into(),
            revision,
            layout: layout.clone(),
            spans: vec![Span::default(); FIRST_FIELD].into(),
            protobuf_size: AtomicU32::new(0),
        }
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.text(NAMESPACE)
    }

    pub fn name(&self) -> &str {
        self.text(NAME)
    }

    pub fn uid(&self) -> &str {
        self.text(UID)
    }

    /// The revision of its last change; its resourceVersion.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Canonical JSON of the storage version, with resourceVersion.
    pub fn json(&self) -> &[u8] {
        &self.line[..self.line.len() - 1]
    }

    /// [`Self::json`] and the end of its line: what is answered to a GET.
    pub fn line(&self) -> &Bytes {
        &self.line
    }

    /// The canonical JSON behind apiVersion and kind: `"metadata":...}`. With `{` before it, this is the form of items
    /// in lists of built-in kinds.
    pub fn json_without_kind(&self) -> &[u8] {
        let json = self.json();
        &json[self.layout.head.min(json.len())..]
    }

    /// The length of the protobuf form, which `measure` gives when it is not known yet.
    pub fn protobuf_size(&self, measure: impl FnOnce() -> usize) -> usize {
        let known = self.protobuf_size.load(Ordering::Relaxed);
        if known > 0 {
            return known as usize;
        }
        let size = measure();
        self.protobuf_size.store(u32::try_from(size).unwrap_or(0), Ordering::Relaxed);
        size
    }

    /// Parses the object.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.line).unwrap_or_default()
    }

    pub fn is_deleting(&self) -> bool {
        !self.spans[DELETION].is_empty()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Labels hold no character that JSON escapes.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let labels = self.spans[LABELS];
        let members = if labels.is_empty() { None } else { Members::new(&self.line, labels.start as usize) };
        members.into_iter().flatten().map(move |(k, v)| (text(k), text(v)))
    }

    /// A field as the text that field selectors compare; empty when absent.
    pub fn field(&self, name: &str) -> Cow<'_, str> {
        let stored = if self.layout.aliases { stored_field(name) } else { name };
        match stored {
            "metadata.name" => return self.name().into(),
            "metadata.namespace" => return self.namespace().into(),
            _ => {}
        }
        let text = match self.layout.position(stored) {
            Some(position) => unquote(self.spans.get(position).copied().unwrap_or_default().of(&self.line)),
            None => self.search(stored),
        };
        match stored {
            "source.component" if text.is_empty() => self.field("reportingComponent"),
            "spec.unschedulable" | "spec.hostNetwork" if text.is_empty() => "false".into(),
            "status.replicas" | "status.successful" if text.is_empty() => "0".into(),
            _ => text,
        }
    }

    fn search(&self, path: &str) -> Cow<'_, str> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let mut found = [Span::default()];
        scan::find(&self.line, 0, &[Wanted { path: &path, index: 0 }], &mut found);
        unquote(found[0].of(&self.line))
    }

    /// Whether both selectors select the object.
    pub fn matches(&self, labels: &LabelSelector, fields: &FieldSelector) -> bool {
        (labels.is_empty() || labels.matches(|key| self.label(key)))
            && (fields.is_empty() || fields.matches(|field| self.field(field).into_owned()))
    }

    fn text(&self, span: usize) -> &str {
        plain(&self.line, self.spans[span])
    }
}

/// A string without its quotes. Names and uids hold no character that JSON escapes.
fn plain(json: &[u8], span: Span) -> &str {
    let quoted = span.of(json);
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    std::str::from_utf8(inner).unwrap_or_default()
}

/// A string without quotes and escapes; other values as they are written.
fn unquote(json: &[u8]) -> Cow<'_, str> {
    match json {
        b"null" => "".into(),
        [b'"', inner @ .., b'"'] if memchr::memchr(b'\\', inner).is_none() => String::from_utf8_lossy(inner),
        [b'"', ..] => serde_json::from_slice::<String>(json).unwrap_or_default().into(),
        other => String::from_utf8_lossy(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_off_its_bytes() {
        let layout =
            Arc::new(Layout::new("v1", "Pod", &["spec.nodeName", "spec.host", "spec.hostNetwork", "status.phase"]));
        let value = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n\"1"}, "status": {"phase": "Running"},
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web", "b/c": ""}}});
        let draft = Draft::new(&layout, value.clone()).unwrap();
        let object = Draft::read(&layout, draft.json.clone()).unwrap().commit(1234);
        assert_eq!((object.namespace(), object.name(), object.uid(), object.revision()), ("ns", "p", "u", 1234));
        assert_eq!((object.label("app"), object.label("b/c"), object.label("x")), (Some("web"), Some(""), None));
        for (field, text) in [
            ("spec.nodeName", "n\"1"),
            ("spec.host", "n\"1"),
            ("status.phase", "Running"),
            ("spec.hostNetwork", "false"),
            ("metadata.name", "p"),
            ("spec.other", ""),
            ("metadata.labels.app", "web"),
        ] {
            assert_eq!(object.field(field), text, "{field}");
        }
        let mut expected = value;
        expected["metadata"]["resourceVersion"] = "1234".into();
        assert_eq!(object.value(), expected);
        let later = object.at(7);
        assert_eq!((later.field("status.phase"), later.uid()), ("Running".into(), "u"));
        assert!(later.json_without_kind().starts_with(b"\"metadata\":{") && !later.is_deleting());
    }

    #[test]
    fn only_the_core_group_has_other_names_for_fields() {
        let layout = Arc::new(Layout::new("example.com/v1", "Site", &["spec.host", "source"]));
        let value = json!({"apiVersion": "example.com/v1", "kind": "Site", "metadata": {"name": "s"},
            "spec": {"host": "h", "nodeName": "n"}, "source": "x"});
        let site = Draft::new(&layout, value).unwrap().commit(1);
        assert_eq!((site.field("spec.host"), site.field("source")), ("h".into(), "x".into()));
    }
}
