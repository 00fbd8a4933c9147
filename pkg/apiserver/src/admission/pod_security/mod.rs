//! PodSecurity: the Pod Security Standards, as the labels of a namespace ask for them.

mod checks;
mod restricted;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;
use crate::storage::Object;

const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];
/// So many pods are looked at when a namespace's level changes, and so many are named.
const MOST_PODS: usize = 3000;
const MOST_NAMED: usize = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// A level at a version of the standards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    version: String,
}

impl Policy {
    /// What a namespace asks for in one mode. Anything unreadable is the strictest level.
    fn of(label: impl Fn(&str) -> Option<String>, mode: &str) -> Self {
        let level = match label(&format!("{PREFIX}{mode}")).as_deref() {
            None | Some("privileged") => Level::Privileged,
            Some("baseline") => Level::Baseline,
            Some(_) => Level::Restricted,
        };
        let version = label(&format!("{PREFIX}{mode}-version")).unwrap_or_else(|| "latest".into());
        Self { level, version }
    }

    /// What kinds of things of a pod the policy forbids.
    fn reasons(&self, metadata: &Value, spec: &Value) -> Option<String> {
        let found = checks::violations(self.level, metadata, spec);
        let texts: Vec<String> = found.into_iter().map(|(reason, _)| reason).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// What of a pod the policy forbids, as text.
    fn violations(&self, metadata: &Value, spec: &Value) -> Option<String> {
        let found = checks::violations(self.level, metadata, spec);
        let texts: Vec<String> = found.iter().map(|(reason, detail)| format!("{reason} ({detail})")).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        write!(f, "{level}:{}", self.version)
    }
}

pub struct PodSecurity {
    reader: Arc<StorageReader>,
}

impl PodSecurity {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    fn namespace(&self, name: &str) -> Option<Arc<Object>> {
        self.reader.collection("", "namespaces")?.get("", name)
    }

    fn check_pod(
        &self,
        attributes: &mut Attributes,
        metadata: &Value,
        spec: &Value,
        enforce: bool,
    ) -> Result<(), Status> {
        let Some(namespace) = self.namespace(&attributes.namespace) else { return Ok(()) };
        let policy = |mode: &str| Policy::of(|label| namespace.label(label).map(str::to_owned), mode);
        if enforce {
            let enforced = policy("enforce");
            attributes.audit_annotations.insert(format!("{PREFIX}enforce-policy"), enforced.to_string());
            if let Some(found) = enforced.violations(metadata, spec) {
                return Err(attributes.forbidden(format!("violates PodSecurity \"{enforced}\": {found}")));
            }
        }
        let audited = policy("audit");
        if let Some(found) = audited.violations(metadata, spec) {
            let text = format!("would violate PodSecurity \"{audited}\": {found}");
            attributes.audit_annotations.insert(format!("{PREFIX}audit-violations"), text);
        }
        let warned = policy("warn");
        if let Some(found) = warned.violations(metadata, spec) {
            attributes.warnings.push(format!("would violate PodSecurity \"{warned}\": {found}"));
        }
        Ok(())
    }

    /// Labels must be valid; pods that break a newly enforced level are only warned about.
    fn check_namespace(&self, attributes: &mut Attributes, namespace: &Value) -> Result<(), Status> {
        let labels = &namespace["metadata"]["labels"];
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        let errors = label_errors(labels);
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new("", "Namespace"), name, errors));
        }
        let policy = |labels: &Value| Policy::of(|label| labels[label].as_str().map(str::to_owned), "enforce");
        let new = policy(labels);
        let old = attributes.old.as_ref().map(|old| policy(&old["metadata"]["labels"]));
        let stricter = old.is_some_and(|old| old != new && new.level > Level::Privileged);
        if !stricter {
            return Ok(());
        }
        let Some(pods) = self.reader.collection("", "pods") else { return Ok(()) };
        // By what is wrong, the first pod and how many others.
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.all(Some(name)).iter().take(MOST_PODS) {
            let value = pod.value();
            if let Some(reasons) = new.reasons(&value["metadata"], &value["spec"]) {
                found.entry(reasons).and_modify(|(_, others)| *others += 1).or_insert((pod.name().to_owned(), 0));
            }
        }
        if !found.is_empty() {
            attributes.warnings.push(format!(
                "existing pods in namespace \"{name}\" violate the new PodSecurity enforce level \"{new}\""
            ));
        }
        let texts = found.into_iter().map(|(reasons, (pod, others))| match others {
            0 => format!("{pod}: {reasons}"),
            1 => format!("{pod} (and 1 other pod): {reasons}"),
            others => format!("{pod} (and {others} other pods): {reasons}"),
        });
        attributes.warnings.extend(texts.take(MOST_NAMED));
        Ok(())
    }
}

fn label_errors(labels: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("metadata").child("labels");
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let label = format!("{PREFIX}{mode}");
        if let Some(level) = labels[&label].as_str().filter(|l| !LEVELS.contains(l)) {
            errors.push(FieldError::invalid(&path.key(&label), level, format!("must be one of {}", LEVELS.join(", "))));
        }
        let label = format!("{label}-version");
        if let Some(version) = labels[&label].as_str().filter(|v| !is_version(v)) {
            errors.push(FieldError::invalid(&path.key(&label), version, "must be \"latest\" or \"v1.x\""));
        }
    }
    errors
}

fn is_version(text: &str) -> bool {
    let minor = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text == "latest" || text.strip_prefix("v1.").is_some_and(minor)
}

/// The pod template of a workload.
fn template<'a>(attributes: &Attributes, object: &'a Value) -> Option<&'a Value> {
    let template = match (attributes.resource.group.as_str(), attributes.resource.plural.as_str()) {
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    (!template.is_null()).then_some(template)
}

/// Whether an update touches nothing that the standards look at.
fn is_insignificant(new: &Value, old: &Value) -> bool {
    let reduced = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for member in ["tolerations", "activeDeadlineSeconds", "schedulingGates", "terminationGracePeriodSeconds"] {
            if let Some(spec) = spec.as_object_mut() {
                spec.remove(member);
            }
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                    container.remove("resources");
                }
            }
        }
        let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let apparmor = annotations.filter(|(k, _)| k.starts_with(checks::APPARMOR_ANNOTATION));
        (spec, apparmor.map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>())
    };
    reduced(new) == reduced(old)
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        let of_pod = attributes.is("", "pods") && matches!(attributes.subresource.as_str(), "" | "ephemeralcontainers");
        let workload = attributes.subresource.is_empty()
            && matches!(attributes.resource.group.as_str(), "" | "apps" | "batch")
            && !attributes.is("", "pods");
        writes && (of_pod || workload)
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(object) = attributes.object.take() else { return Ok(()) };
        let result = if attributes.is("", "namespaces") {
            self.check_namespace(attributes, &object)
        } else if attributes.is("", "pods") {
            let unchanged = attributes.old.as_ref().is_some_and(|old| is_insignificant(&object, old));
            if unchanged { Ok(()) } else { self.check_pod(attributes, &object["metadata"], &object["spec"], true) }
        } else if let Some(template) = template(attributes, &object) {
            self.check_pod(attributes, &template["metadata"], &template["spec"], false)
        } else {
            Ok(())
        };
        attributes.object = Some(object);
        result
    }
}
