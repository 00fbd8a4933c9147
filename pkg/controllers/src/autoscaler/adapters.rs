//! Metrics that adapters serve: of pods, of other objects (`custom.metrics.k8s.io`) and from elsewhere
//! (`external.metrics.k8s.io`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::Request;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, LabelSelector};
use kube::Client;
use kube::core::Selector;
use kube1_api::quantity::Quantity;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::metrics::Subject;
use crate::controller::is_code;
use crate::discovery::Kinds;
use crate::pod_control::reason;

/// What a part of a path, or a value of a query, may not hold as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[derive(Deserialize)]
struct Values {
    /// Servers in Go write an empty list as null.
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    #[serde(default)]
    described_object: Described,
    value: QuantityText,
}

#[derive(Default, Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

impl Value {
    fn millis(&self) -> Result<i64, String> {
        let amount = Quantity::parse(&self.value.0).map(Quantity::millis);
        amount.map_err(|error| format!("the value {:?} is no quantity: {error}", self.value.0))
    }
}

/// Thousandths that the pods of a target have of a metric.
pub async fn of_pods(subject: &Subject<'_>, metric: &MetricIdentifier) -> Result<BTreeMap<String, i64>, String> {
    let found = custom(subject, "pods/*", metric, Some(subject.selector)).await?;
    if found.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    found.into_iter().map(|value| Ok((value.described_object.name.clone(), value.millis()?))).collect()
}

/// Thousandths that one object has of a metric.
pub async fn of_object(
    subject: &Subject<'_>,
    object: &CrossVersionObjectReference,
    metric: &MetricIdentifier,
) -> Result<i64, String> {
    let api_version = object.api_version.as_deref().unwrap_or("v1");
    let place = if (api_version, object.kind.as_str()) == ("v1", "Namespace") {
        // The autoscaler's own, whatever name is given: it cannot look into others.
        "metrics".to_owned()
    } else {
        let kinds = Kinds::discover(subject.client).await.map_err(|error| reason(&error))?;
        let kind = kinds.find(api_version, &object.kind);
        let kind = kind.ok_or_else(|| format!("no matches for kind {:?} in version {api_version:?}", object.kind))?;
        format!("{}/{}", kind.name(), escaped(&object.name))
    };
    match custom(subject, &place, metric, None).await?.as_slice() {
        [value] => value.millis(),
        others => Err(format!("the custom metrics API returned {} results where one was asked for", others.len())),
    }
}

async fn custom(
    subject: &Subject<'_>,
    place: &str,
    metric: &MetricIdentifier,
    pods: Option<&str>,
) -> Result<Vec<Value>, String> {
    let unavailable = |why: String| format!("unable to fetch metrics from custom metrics API: {why}");
    let group = "custom.metrics.k8s.io";
    let Some(version) = version(subject.client, group).await.map_err(unavailable)? else {
        return Err(unavailable(format!("no custom metrics API ({group}) registered")));
    };
    let name = escaped(&metric.name);
    let mut query = pods.map(|selector| format!("labelSelector={}", escaped(selector))).unwrap_or_default();
    let own = selector(metric.selector.as_ref()).map_err(unavailable)?;
    if !own.is_empty() {
        let and = if query.is_empty() { "" } else { "&" };
        query = format!("{query}{and}metricLabelSelector={}", escaped(&own));
    }
    let query = if query.is_empty() { query } else { format!("?{query}") };
    let path = format!("/apis/{version}/namespaces/{}/{place}/{name}{query}", subject.namespace);
    ask(subject.client, &path).await.map_err(unavailable)
}

/// Thousandths that all series of a metric from elsewhere have together.
pub async fn external(subject: &Subject<'_>, metric: &MetricIdentifier) -> Result<i64, String> {
    let unavailable = |why: String| format!("unable to fetch metrics from external metrics API: {why}");
    let group = "external.metrics.k8s.io";
    let Some(version) = version(subject.client, group).await.map_err(unavailable)? else {
        return Err(unavailable(format!("no external metrics API ({group}) registered")));
    };
    let own = selector(metric.selector.as_ref()).map_err(unavailable)?;
    let query = if own.is_empty() { own } else { format!("?labelSelector={}", escaped(&own)) };
    let path = format!("/apis/{version}/namespaces/{}/{}{query}", subject.namespace, escaped(&metric.name));
    let found = ask(subject.client, &path).await.map_err(unavailable)?;
    if found.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    found.iter().try_fold(0_i64, |sum, value| Ok(sum.saturating_add(value.millis()?)))
}

async fn ask(client: &Client, path: &str) -> Result<Vec<Value>, String> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let values: Values = client.request(request).await.map_err(|error| reason(&error))?;
    Ok(values.items.unwrap_or_default())
}

/// The preferred `GROUP/VERSION` of an adapter's group; None if there is no such group.
async fn version(client: &Client, group: &str) -> Result<Option<String>, String> {
    let request = Request::get(format!("/apis/{group}")).body(Vec::new()).map_err(|error| error.to_string())?;
    match client.request::<APIGroup>(request).await {
        Ok(found) => Ok(found.preferred_version.map(|v| v.group_version)),
        Err(error) if is_code(&error, 404) => Ok(None),
        Err(error) => Err(reason(&error)),
    }
}

fn selector(labels: Option<&LabelSelector>) -> Result<String, String> {
    let parsed = Selector::try_from(labels.cloned().unwrap_or_default()).map_err(|error| error.to_string())?;
    Ok(parsed.to_string())
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A selector as upstream's messages show it.
pub fn shown(labels: Option<&LabelSelector>) -> String {
    let Some(labels) = labels else { return "nil".to_owned() };
    let mut text = "&LabelSelector{MatchLabels:map[string]string{".to_owned();
    for (name, value) in labels.match_labels.iter().flatten() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}: {value},");
    }
    text.push_str("},MatchExpressions:[]LabelSelectorRequirement{");
    for term in labels.match_expressions.iter().flatten() {
        let values = term.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&term.key, &term.operator);
        let _ = write!(text, "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},");
    }
    text.push_str("},}");
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::autoscaler::ratio::{Size, Tolerance};

    /// An adapter that has one answer, and notes what it was asked.
    fn adapter(answer: Json) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let serve = move |request: http::Request<Body>| {
            let path = request.uri().to_string();
            let of_group = path.strip_prefix("/apis/").filter(|group| !group.contains('/'));
            let (code, body) = match of_group {
                Some(_) if answer.is_null() => (404, json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
                Some(group) => {
                    let version = json!({"groupVersion": format!("{group}/v1beta2"), "version": "v1beta2"});
                    (200, json!({"name": group, "versions": [version], "preferredVersion": version}))
                }
                None => (200, answer.clone()),
            };
            noted.lock().push(path);
            async move {
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, std::io::Error>(http::Response::builder().status(code).body(body).unwrap())
            }
        };
        (Client::new(tower::service_fn(serve), "default"), asked)
    }

    fn metric(value: Json) -> MetricIdentifier {
        serde_json::from_value(value).unwrap()
    }

    #[tokio::test]
    async fn adapters_are_asked_as_upstream_asks_them() {
        let one = json!({"items": [{"describedObject": {"name": "a"}, "value": "1500m"}]});
        let (client, asked) = adapter(one);
        let size = Size { wanted: 1, present: 1, tolerance: Tolerance::default() };
        let subject =
            Subject { client: &client, namespace: "shop", selector: "app=web,tier in (a,b)", pods: &[], size };
        let hits = metric(json!({"name": "hits", "selector": {"matchLabels": {"verb": "GET"}}}));
        assert_eq!(of_pods(&subject, &hits).await, Ok([("a".to_owned(), 1500)].into()));
        let namespace: CrossVersionObjectReference =
            serde_json::from_value(json!({"kind": "Namespace", "name": "other"})).unwrap();
        assert_eq!(of_object(&subject, &namespace, &metric(json!({"name": "hits"}))).await, Ok(1500));
        assert_eq!(external(&subject, &hits).await, Ok(1500));
        let asked: Vec<String> = asked.lock().iter().filter(|path| path.contains("/namespaces/")).cloned().collect();
        let base = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop";
        assert_eq!(
            asked,
            [
                format!(
                    "{base}/pods/*/hits?labelSelector=app%3Dweb%2Ctier%20in%20%28a%2Cb%29&metricLabelSelector=verb%3DGET"
                ),
                format!("{base}/metrics/hits"),
                "/apis/external.metrics.k8s.io/v1beta2/namespaces/shop/hits?labelSelector=verb%3DGET".to_owned(),
            ]
        );
    }

    #[tokio::test]
    async fn what_an_adapter_lacks_is_told() {
        let size = Size { wanted: 1, present: 1, tolerance: Tolerance::default() };
        let hits = metric(json!({"name": "hits"}));
        for (answer, pods, elsewhere) in [
            (
                Json::Null,
                "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered",
                "unable to fetch metrics from external metrics API: no external metrics API (external.metrics.k8s.io) registered",
            ),
            (
                json!({"items": null}),
                "no metrics returned from custom metrics API",
                "no metrics returned from external metrics API",
            ),
        ] {
            let (client, _) = adapter(answer);
            let subject = Subject { client: &client, namespace: "shop", selector: "a=b", pods: &[], size };
            assert_eq!(of_pods(&subject, &hits).await.unwrap_err(), pods);
            assert_eq!(external(&subject, &hits).await.unwrap_err(), elsewhere);
        }
    }

    #[test]
    fn selectors_are_shown_as_upstream_shows_them() {
        assert_eq!(shown(None), "nil");
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]});
        assert_eq!(
            shown(Some(&serde_json::from_value(selector).unwrap())),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}"
        );
    }
}
