//! Webhook configurations as they are used.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_api::cel::{Env, Type};
use kube1_api::expression::Expression;
use kube1_api::selector::LabelSelector;
use serde_json::Value;

use super::matching::Rules;

/// What happens when a webhook gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    Ignore,
    Fail,
}

/// Where a webhook is.
#[derive(Clone, Debug)]
pub enum ClientConfig {
    Url(String),
    Service { namespace: String, name: String, path: String, port: u16 },
}

/// One webhook of a configuration.
#[derive(Debug)]
pub struct Hook {
    pub configuration: String,
    pub name: String,
    pub client: ClientConfig,
    pub ca_bundle: Vec<u8>,
    pub rules: Rules,
    pub failure_policy: FailurePolicy,
    pub namespace_selector: LabelSelector,
    pub object_selector: LabelSelector,
    pub has_side_effects: bool,
    pub timeout: Duration,
    pub version: &'static str,
    pub reinvoke: bool,
    /// A condition that does not compile fails at every request.
    pub conditions: Vec<(String, Result<Expression, String>)>,
}

/// The webhooks of a ValidatingWebhookConfiguration or MutatingWebhookConfiguration, in order.
pub fn hooks(configuration: &Value) -> Vec<Hook> {
    let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
    let hooks = configuration["webhooks"].as_array().into_iter().flatten();
    hooks.map(|hook| read(name, hook)).collect()
}

fn read(configuration: &str, hook: &Value) -> Hook {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let selector = |value: &Value| match value {
        Value::Null => LabelSelector::default(),
        // Validation lets no malformed selector in; one that is would match nothing it should not.
        value => LabelSelector::from_value(value).unwrap_or_default(),
    };
    let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let version = versions.into_iter().find_map(|v| ["v1", "v1beta1"].into_iter().find(|known| *known == v));
    let conditions = hook["matchConditions"].as_array().into_iter().flatten();
    let env = Env::admission(Type::Dyn).with_authorizer();
    let client = &hook["clientConfig"];
    Hook {
        configuration: configuration.to_owned(),
        name: text(&hook["name"]),
        client: match client["url"].as_str() {
            Some(url) => ClientConfig::Url(url.to_owned()),
            None => ClientConfig::Service {
                namespace: text(&client["service"]["namespace"]),
                name: text(&client["service"]["name"]),
                path: text(&client["service"]["path"]),
                port: client["service"]["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            },
        },
        ca_bundle: STANDARD.decode(client["caBundle"].as_str().unwrap_or_default()).unwrap_or_default(),
        rules: Rules::new(&hook["rules"], hook["matchPolicy"] != "Exact"),
        failure_policy: if hook["failurePolicy"] == "Ignore" { FailurePolicy::Ignore } else { FailurePolicy::Fail },
        namespace_selector: selector(&hook["namespaceSelector"]),
        object_selector: selector(&hook["objectSelector"]),
        has_side_effects: !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
        timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30)),
        version: version.unwrap_or("v1"),
        reinvoke: hook["reinvocationPolicy"] == "IfNeeded",
        conditions: conditions
            .map(|c| (text(&c["name"]), Expression::condition(c["expression"].as_str().unwrap_or_default(), &env)))
            .collect(),
    }
}
