//! PodSecurity: the Pod Security Standards, as the labels of a namespace ask for them.

mod checks;
mod policy;
mod restricted;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::name::GroupKind;
use kube1_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, together};
use crate::reader::StorageReader;
use crate::storage::Object;
use policy::{Defaults, Level, PREFIX, Policies, Policy};

/// So many pods are looked at when a namespace's level changes.
const MOST_PODS: usize = 3000;

pub struct PodSecurity {
    reader: Arc<StorageReader>,
    defaults: Defaults,
    exemptions: Exemptions,
}

/// `PodSecurityConfiguration` of `pod-security.admission.config.k8s.io/v1`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodSecurityConfiguration {
    defaults: ConfiguredDefaults,
    exemptions: Exemptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct ConfiguredDefaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

/// Whose pods are not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Exemptions {
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
    namespaces: Vec<String>,
}

impl PodSecurityConfiguration {
    fn policies(&self) -> Result<Defaults, String> {
        let ConfiguredDefaults { enforce, enforce_version, audit, audit_version, warn, warn_version } = &self.defaults;
        Ok(Defaults {
            enforce: policy::policy("enforce", enforce, enforce_version)?,
            audit: policy::policy("audit", audit, audit_version)?,
            warn: policy::policy("warn", warn, warn_version)?,
        })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.policies().map(|_| ())
    }
}

impl Policy {
    /// What kinds of things of a pod the policy forbids.
    fn reasons(self, metadata: &Value, spec: &Value) -> Option<String> {
        let found = checks::violations(self, metadata, spec);
        let texts: Vec<String> = found.into_iter().map(|(reason, _)| reason).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// What of a pod the policy forbids, as text.
    fn violations(self, metadata: &Value, spec: &Value) -> Option<String> {
        let found = checks::violations(self, metadata, spec);
        let texts: Vec<String> = found.iter().map(|(reason, detail)| format!("{reason} ({detail})")).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

impl PodSecurity {
    pub fn new(reader: Arc<StorageReader>, config: &PodSecurityConfiguration) -> Self {
        Self { reader, defaults: config.policies().unwrap_or_default(), exemptions: config.exemptions.clone() }
    }

    /// Why pods of this request are let in whatever they are.
    fn exemption(&self, attributes: &Attributes, spec: &Value) -> Option<&'static str> {
        let of = |list: &[String], name: &str| !name.is_empty() && list.iter().any(|item| item == name);
        let class = spec["runtimeClassName"].as_str().unwrap_or_default();
        match () {
            () if of(&self.exemptions.namespaces, &attributes.namespace) => Some("namespace"),
            () if of(&self.exemptions.usernames, &attributes.user.name) => Some("user"),
            () if of(&self.exemptions.runtime_classes, class) => Some("runtimeClass"),
            () => None,
        }
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
        if let Some(why) = self.exemption(attributes, spec) {
            attributes.annotate(format!("{PREFIX}exempt"), why);
            return Ok(());
        }
        let Some(namespace) = self.namespace(&attributes.namespace) else { return Ok(()) };
        let policies = Policies::of(self.defaults, |label| namespace.label(label));
        let Policies { enforce: enforced, audit, warn, .. } = policies;
        if let Some(complaint) = policies.complaint() {
            attributes.annotate(format!("{PREFIX}error"), format!("Failed to parse policy: {complaint}"));
        }
        let mut denied = None;
        if enforce {
            attributes.annotate(format!("{PREFIX}enforce-policy"), enforced.to_string());
            denied = enforced.violations(metadata, spec);
        }
        if let Some(found) = audit.violations(metadata, spec) {
            let text = format!("would violate PodSecurity \"{audit}\": {found}");
            attributes.annotate(format!("{PREFIX}audit-violations"), text);
        }
        if let Some(found) = denied {
            return Err(attributes.forbidden(format!("violates PodSecurity \"{enforced}\": {found}")));
        }
        if let Some(found) = warn.violations(metadata, spec) {
            attributes.warnings.push(format!("would violate PodSecurity \"{warn}\": {found}"));
        }
        Ok(())
    }

    /// Labels must be valid; pods that break a newly enforced level are only warned about.
    fn check_namespace(&self, attributes: &mut Attributes, namespace: &Value) -> Result<(), Status> {
        let of = |object: &Value| Policies::of(self.defaults, |label| object["metadata"]["labels"][label].as_str());
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        let new = of(namespace);
        let old = attributes.old.as_ref().filter(|_| attributes.operation == Operation::Update).map(of);
        // What was wrong before may stay so.
        if !new.errors.is_empty() && old.as_ref().is_none_or(|old| old.complaint() != new.complaint()) {
            return Err(Status::invalid(&GroupKind::new("", "Namespace"), name, new.errors));
        }
        let labelled = |mode: &&str| !namespace["metadata"]["labels"][format!("{PREFIX}{mode}")].is_null();
        if self.exemptions.namespaces.iter().any(|exempt| exempt == name) {
            let asked = [("enforce", new.enforce), ("audit", new.audit), ("warn", new.warn)];
            let asked =
                asked.iter().filter(|(mode, _)| labelled(mode)).map(|(mode, policy)| format!("{mode}={policy}"));
            let asked = asked.collect::<Vec<_>>().join(", ");
            if !asked.is_empty() {
                let text = format!(
                    "namespace \"{name}\" is exempt from Pod Security, and the policy ({asked}) will be ignored"
                );
                attributes.warnings.push(text);
            }
            return Ok(());
        }
        let Some(old) = old.map(|old| old.enforce) else { return Ok(()) };
        let new = new.enforce;
        let relaxed = new.version == old.version && new.level <= old.level;
        if new != old && new.level > Level::Privileged && !relaxed {
            attributes.warnings.extend(self.existing(name, new));
        }
        Ok(())
    }

    /// Warnings of pods that a namespace's new policy would not let in.
    fn existing(&self, namespace: &str, policy: Policy) -> Vec<String> {
        let pods = self.reader.collection("", "pods").map(|c| c.all(Some(namespace))).unwrap_or_default();
        // By what is wrong, the first pod and how many others.
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.iter().take(MOST_PODS) {
            let value = pod.value();
            if let Some(reasons) = policy.reasons(&value["metadata"], &value["spec"]) {
                found.entry(reasons).and_modify(|(_, others)| *others += 1).or_insert((pod.name().to_owned(), 0));
            }
        }
        let mut warnings = Vec::new();
        if pods.len() > MOST_PODS {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {MOST_PODS} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{policy}\""
            ));
        }
        let texts = found.into_iter().map(|(reasons, (pod, others))| match others {
            0 => format!("{pod}: {reasons}"),
            1 => format!("{pod} (and 1 other pod): {reasons}"),
            others => format!("{pod} (and {others} other pods): {reasons}"),
        });
        let mut texts: Vec<String> = texts.collect();
        texts.sort_unstable();
        warnings.extend(texts);
        warnings
    }
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

/// Whether an update may change what the standards look at: of what can be changed in a pod, that is which images run.
fn is_significant(new: &Value, old: &Value) -> bool {
    let image = |container: &Value| container["image"].clone();
    let all = |pod: &Value, list: &str| -> Vec<Value> { checks::items(&pod["spec"][list]).map(image).collect() };
    if ["containers", "initContainers"].iter().any(|list| all(new, list) != all(old, list)) {
        return true;
    }
    let ephemeral = |pod: &Value| -> BTreeMap<String, Value> {
        let containers = checks::items(&pod["spec"]["ephemeralContainers"]);
        containers.map(|c| (checks::text(&c["name"]).to_owned(), image(c))).collect()
    };
    let old = ephemeral(old);
    ephemeral(new).iter().any(|(name, image)| old.get(name) != Some(image))
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
            let old = attributes.old.as_ref().filter(|_| attributes.operation == Operation::Update);
            if old.is_some_and(|old| !is_significant(&object, old)) {
                Ok(())
            } else {
                self.check_pod(attributes, &object["metadata"], &object["spec"], true)
            }
        } else if let Some(template) = template(attributes, &object) {
            self.check_pod(attributes, &template["metadata"], &template["spec"], false)
        } else {
            Ok(())
        };
        attributes.object = Some(object);
        result
    }
}
