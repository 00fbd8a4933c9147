//! AdmissionConfiguration (`apiserver.config.k8s.io`): how plugins are set up, and which of them work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::event_rate_limit::{EventRateLimit, EventRateLimits};
use super::image_policy::{ImagePolicyFile, ImagePolicyWebhook};
use super::pod_placement::{NodeSelectors, Tolerations};
use super::pod_security::PodSecurityConfiguration;
use super::quota::LimitedResource;
use crate::dial::Remote;
use crate::webhook::Credentials;

const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1"];
const POD_SECURITY: [&str; 2] =
    ["pod-security.admission.config.k8s.io/v1", "pod-security.admission.config.k8s.io/v1beta1"];

/// Plugins that are on by default.
const ON: [&str; 25] = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceLifecycle",
    "NodeDeclaredFeatureValidator",
    "NodeRestriction",
    "PersistentVolumeClaimResize",
    "PodResizeValidator",
    "PodSecurity",
    "PodTopologyLabels",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];
/// Plugins that work where `--enable-admission-plugins` names them.
const OFF: [&str; 13] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "OwnerReferencesPermissionEnforcement",
    "PodNodeSelector",
    "PodTolerationRestriction",
];
/// Plugins of features that are off in 1.36: their names are taken, and they have nothing to do.
const IDLE: [&str; 3] = ["JobValidation", "PodGroupProtection", "PodGroupWorkloadExists"];
/// Without these users could become administrators, or the cluster would not keep itself whole: the log says so.
const NEEDED: [&str; 3] = ["NamespaceLifecycle", "NodeRestriction", "ServiceAccount"];

/// The flags of admission.
#[derive(Clone, Debug, Default)]
pub struct AdmissionOptions {
    /// `--admission-control-config-file`; read at the start.
    pub config_file: Option<PathBuf>,
    /// `--enable-admission-plugins`, beside those that are on by default.
    pub enabled: Vec<String>,
    /// `--disable-admission-plugins`
    pub disabled: Vec<String>,
}

/// What cannot be used of them.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionConfigError {
    #[error("cannot read the admission configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the admission configuration {} is invalid: {}", path.display(), problems.join("; "))]
    Invalid { path: PathBuf, problems: Vec<String> },
    #[error("{0}")]
    Flags(String),
}

/// What plugins are told.
#[derive(Clone, Default)]
pub struct PluginConfig {
    pub pod_security: PodSecurityConfiguration,
    pub limited_resources: Vec<LimitedResource>,
    pub event_rates: Vec<EventRateLimit>,
    pub(super) image_policy: Option<Arc<ImagePolicyWebhook>>,
    pub(super) node_selectors: NodeSelectors,
    pub(super) tolerations: Tolerations,
    /// What mutating webhooks are shown.
    pub(super) mutating: Credentials,
    /// What validating webhooks are shown.
    pub(super) validating: Credentials,
    enabled: Vec<String>,
    disabled: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    path: String,
    configuration: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct QuotaConfiguration {
    limited_resources: Vec<LimitedResource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WebhookConfiguration {
    kube_config_file: String,
    static_manifests_dir: String,
}

impl PluginConfig {
    /// What the flags and their file say.
    pub fn read(options: &AdmissionOptions) -> Result<Self, AdmissionConfigError> {
        check_names(options)?;
        let (enabled, disabled) = (options.enabled.clone(), options.disabled.clone());
        let mut config = Self { enabled, disabled, ..Self::default() };
        if let Some(path) = &options.config_file {
            config.read_file(path)?;
        }
        for (name, configured) in
            [("EventRateLimit", !config.event_rates.is_empty()), ("ImagePolicyWebhook", config.image_policy.is_some())]
        {
            if !configured && config.admits(name) {
                let why = format!(
                    "--enable-admission-plugins {name} needs a configuration of it in --admission-control-config-file"
                );
                return Err(AdmissionConfigError::Flags(why));
            }
        }
        Ok(config)
    }

    /// Whether the plugin of this name works.
    pub fn admits(&self, name: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|other| other == name);
        if OFF.contains(&name) { named(&self.enabled) } else { !named(&self.disabled) }
    }

    fn read_file(&mut self, path: &Path) -> Result<(), AdmissionConfigError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| AdmissionConfigError::Read { path: path.to_owned(), source })
        };
        let invalid = |problems| AdmissionConfigError::Invalid { path: path.to_owned(), problems };
        let file: File = serde_saphyr::from_str(&read(path)?).map_err(|error| invalid(vec![error.to_string()]))?;
        if !API_VERSIONS.contains(&file.api_version.as_str()) || file.kind != "AdmissionConfiguration" {
            let why = "apiVersion and kind must be apiserver.config.k8s.io/v1 and AdmissionConfiguration";
            return Err(invalid(vec![why.to_owned()]));
        }
        let mut problems = Vec::new();
        for (at, entry) in file.plugins.iter().enumerate() {
            let configuration = match (&entry.configuration, entry.path.as_str()) {
                (Some(configuration), "") => configuration.clone(),
                (None, "") => serde_json::Value::Null,
                (Some(_), _) => {
                    problems.push(format!("plugins[{at}]: has both path and configuration"));
                    continue;
                }
                (None, other) => {
                    let beside = path.parent().unwrap_or(Path::new(".")).join(other);
                    serde_saphyr::from_str(&read(&beside)?)
                        .map_err(|error| invalid(vec![format!("plugins[{at}].path: {other}: {error}")]))?
                }
            };
            if let Err(why) = self.set(&entry.name, configuration) {
                problems.push(format!("plugins[{at}] {}: {why}", entry.name));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(invalid(problems)) }
    }

    fn set(&mut self, plugin: &str, configuration: serde_json::Value) -> Result<(), String> {
        if configuration.is_null() {
            return check_name(plugin);
        }
        match plugin {
            "PodSecurity" => {
                self.pod_security = parse(configuration, &POD_SECURITY, "PodSecurityConfiguration")?;
                self.pod_security.check()
            }
            "ResourceQuota" => {
                let config: QuotaConfiguration = match configuration["kind"].as_str() {
                    Some("Configuration") => {
                        parse(configuration, &["resourcequota.admission.k8s.io/v1beta1"], "Configuration")?
                    }
                    _ => parse(configuration, &API_VERSIONS[..1], "ResourceQuotaConfiguration")?,
                };
                self.limited_resources = config.limited_resources;
                Ok(())
            }
            "EventRateLimit" => {
                let limits: EventRateLimits =
                    parse(configuration, &["eventratelimit.admission.k8s.io/v1alpha1"], "Configuration")?;
                self.event_rates = limits.limits;
                self.event_rates.iter().try_for_each(EventRateLimit::check)
            }
            "MutatingAdmissionWebhook" | "ValidatingAdmissionWebhook" => {
                let webhooks: WebhookConfiguration = match configuration["kind"].as_str() {
                    Some("WebhookAdmission") => {
                        parse(configuration, &["apiserver.config.k8s.io/v1alpha1"], "WebhookAdmission")?
                    }
                    _ => parse(configuration, &API_VERSIONS[..1], "WebhookAdmissionConfiguration")?,
                };
                if !webhooks.static_manifests_dir.is_empty() {
                    return Err(
                        "staticManifestsDir needs the feature ManifestBasedAdmissionControlConfig, which is off".into(),
                    );
                }
                let path = Path::new(&webhooks.kube_config_file);
                if webhooks.kube_config_file.is_empty() {
                    return Ok(());
                }
                if !path.is_absolute() {
                    let given = &webhooks.kube_config_file;
                    return Err(format!("kubeConfigFile: Invalid value: {given:?}: must be an absolute file path"));
                }
                let credentials = Credentials::read(path).map_err(|error| told(&error))?;
                match plugin {
                    "MutatingAdmissionWebhook" => self.mutating = credentials,
                    _ => self.validating = credentials,
                }
                Ok(())
            }
            "ImagePolicyWebhook" => {
                let file: ImagePolicyFile = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
                file.policy.check()?;
                let remote = Remote::from_kubeconfig(&file.policy.kube_config_file).map_err(|error| told(&error))?;
                self.image_policy = Some(Arc::new(ImagePolicyWebhook::new(&file.policy, remote)));
                Ok(())
            }
            "PodNodeSelector" => {
                self.node_selectors = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
                self.node_selectors.check()
            }
            "PodTolerationRestriction" => {
                let versions = ["podtolerationrestriction.admission.k8s.io/v1alpha1"];
                self.tolerations = parse(configuration, &versions, "Configuration")?;
                Ok(())
            }
            name => {
                check_name(name)?;
                Err("this plugin takes no configuration".into())
            }
        }
    }
}

/// A plugin's configuration of one of the versions.
fn parse<T: DeserializeOwned>(mut value: serde_json::Value, versions: &[&str], kind: &str) -> Result<T, String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    if !versions.contains(&text("apiVersion")) || text("kind") != kind {
        return Err(format!("apiVersion and kind must be {} and {kind}", versions[0]));
    }
    if let Some(object) = value.as_object_mut() {
        object.remove("apiVersion");
        object.remove("kind");
        // What is named and left empty in YAML is not there.
        object.retain(|_, value| !value.is_null());
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn check_name(name: &str) -> Result<(), String> {
    let all = [&ON[..], &OFF, &IDLE].concat();
    match all.contains(&name) {
        true => Ok(()),
        false => Err(format!("there is no such plugin: {}", all.join(", "))),
    }
}

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn check_names(options: &AdmissionOptions) -> Result<(), AdmissionConfigError> {
    for (flag, names) in
        [("--enable-admission-plugins", &options.enabled), ("--disable-admission-plugins", &options.disabled)]
    {
        for name in names {
            check_name(name).map_err(|why| AdmissionConfigError::Flags(format!("{flag} {name}: {why}")))?;
        }
    }
    if let Some(name) = options.disabled.iter().find(|name| options.enabled.contains(name)) {
        let why = format!("{name} is in --enable-admission-plugins and in --disable-admission-plugins");
        return Err(AdmissionConfigError::Flags(why));
    }
    for name in options.disabled.iter().filter(|name| NEEDED.contains(&name.as_str())) {
        tracing::warn!("--disable-admission-plugins {name}: the cluster is not safe without it");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(plugins: Value, enabled: &[&str]) -> Result<PluginConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admission.yaml");
        let file =
            json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins});
        std::fs::write(&path, file.to_string()).unwrap();
        let rates = json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
            "limits": [{"type": "Server", "qps": 5, "burst": 10}]});
        std::fs::write(dir.path().join("rates.yaml"), rates.to_string()).unwrap();
        let enabled = enabled.iter().map(|name| (*name).to_owned()).collect();
        let options = AdmissionOptions { config_file: Some(path), enabled, disabled: vec![] };
        PluginConfig::read(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_sets_plugins_up_and_what_cannot_be_done_is_refused() {
        let rates = json!([{"name": "EventRateLimit", "path": "rates.yaml"}]);
        assert_eq!(read(rates.clone(), &["EventRateLimit"]).unwrap().event_rates.len(), 1);
        assert!(!read(rates, &[]).unwrap().admits("EventRateLimit"), "not switched on");
        let of = |name: &str, version: &str, kind: &str, more: Value| {
            let mut configuration = json!({"apiVersion": version, "kind": kind});
            more.as_object().unwrap().iter().for_each(|(k, v)| configuration[k] = v.clone());
            json!([{"name": name, "configuration": configuration}])
        };
        let v1 = "apiserver.config.k8s.io/v1";
        let security = "pod-security.admission.config.k8s.io/v1";
        for (plugins, expected) in [
            (of("PodSecurity", security, "PodSecurityConfiguration", json!({"defaults": {"enforce": "baseline"}})), ""),
            (
                of("PodSecurity", security, "PodSecurityConfiguration", json!({"defaults": {"enforce": "x"}})),
                "must be one of",
            ),
            (of("PodSecurity", security, "PodSecurityConfiguration", json!({"default": {}})), "unknown field"),
            (of("PodSecurity", v1, "PodSecurityConfiguration", json!({})), "apiVersion and kind must be"),
            (
                of(
                    "ResourceQuota",
                    v1,
                    "ResourceQuotaConfiguration",
                    json!({"limitedResources": [{"resource": "pods"}]}),
                ),
                "",
            ),
            (of("ResourceQuota", v1, "ResourceQuotaConfiguration", json!({"limitedResources": null})), ""),
            (of("ValidatingAdmissionWebhook", v1, "WebhookAdmissionConfiguration", json!({"kubeConfigFile": ""})), ""),
            (
                of("ValidatingAdmissionWebhook", v1, "WebhookAdmissionConfiguration", json!({"kubeConfigFile": "x"})),
                "must be an absolute file path",
            ),
            (
                of("MutatingAdmissionWebhook", v1, "WebhookAdmissionConfiguration", json!({"kubeConfigFile": "/none"})),
                "cannot read /none",
            ),
            (
                of(
                    "MutatingAdmissionWebhook",
                    v1,
                    "WebhookAdmissionConfiguration",
                    json!({"staticManifestsDir": "/x"}),
                ),
                "which is off",
            ),
            (
                json!([{"name": "ImagePolicyWebhook", "configuration": {"imagePolicy": {"kubeConfigFile": "/none"}}}]),
                "cannot read /none",
            ),
            (
                json!([{"name": "ImagePolicyWebhook",
                    "configuration": {"imagePolicy": {"kubeConfigFile": "/none", "denyTTL": 9999}}}]),
                "denyTTL",
            ),
            (json!([{"name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": {"ns": "a=b"}}}]), ""),
            (
                json!([{"name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": {"ns": "a"}}}]),
                "invalid selector",
            ),
            (
                of(
                    "PodTolerationRestriction",
                    "podtolerationrestriction.admission.k8s.io/v1alpha1",
                    "Configuration",
                    json!({"whitelist": [{"key": "a"}]}),
                ),
                "",
            ),
            (of("Nothing", v1, "X", json!({})), "there is no such plugin"),
            (of("LimitRanger", v1, "X", json!({})), "takes no configuration"),
            (json!([{"name": "EventRateLimit", "path": "none.yaml"}]), "cannot read"),
            (json!([{"name": "Priority"}]), ""),
        ] {
            match read(plugins.clone(), &[]) {
                Ok(_) => assert_eq!(expected, "", "{plugins}"),
                Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{plugins}: {why}"),
            }
        }
        for (enabled, disabled, fine) in [
            (&["PodSecurity"][..], &["Priority"][..], true),
            (&["Priority"], &["Priority"], false),
            (&["EventRateLimit"], &[], false),
            (&["AlwaysPullImages", "JobValidation"], &[], true),
            (&["ImagePolicyWebhook"], &[], false),
            (&["Nothing"], &[], false),
            (&[], &["NodeRestriction", "ServiceAccount"], true),
        ] {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let options = AdmissionOptions { config_file: None, enabled: names(enabled), disabled: names(disabled) };
            assert_eq!(PluginConfig::read(&options).is_ok(), fine, "{enabled:?} {disabled:?}");
        }
    }
}
