//! Which service-account tokens a kubelet may ask for.

use serde_json::Value;

use super::Attributes;
use crate::authz::{Authorizer, Decision};
use crate::reader::Reader;
use crate::request_info::RequestInfo;

/// A token must be bound to a pod of the node, and be for audiences that the pod's volumes ask for, or that the
/// administrator permits with verb `request-serviceaccounts-token-audience`.
pub async fn check(
    reader: &dyn Reader,
    authorizer: &dyn Authorizer,
    attributes: &Attributes,
    node: &str,
) -> Result<(), String> {
    let spec = attributes.object.as_ref().map_or(&Value::Null, |o| &o["spec"]);
    let bound = &spec["boundObjectRef"];
    let text = |key: &str| bound[key].as_str().unwrap_or_default();
    if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return Err("node requested token not bound to a pod".into());
    }
    if text("uid").is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let pod = reader.get("", "pods", &attributes.namespace, text("name"));
    let pod =
        pod.ok_or_else(|| format!("node requested token bound to the pod {:?}, which does not exist", text("name")))?;
    if pod["metadata"]["uid"] != text("uid") {
        let record = pod["metadata"]["uid"].as_str().unwrap_or_default();
        return Err(format!(
            "the UID in the bound object reference ({}) does not match the UID in record ({record}). The object might have \
             been deleted and then recreated",
            text("uid")
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for audience in audiences.filter(|a| !a.is_empty()) {
        if !pod_wants(reader, &pod, audience) && !is_permitted(authorizer, attributes, audience).await {
            return Err(format!(
                "audience {audience:?} not found in pod spec volume, and {:?} is not authorized to request tokens for this \
                 audience",
                attributes.user.name
            ));
        }
    }
    Ok(())
}

/// Whether a volume of the pod asks for a token for the audience, itself or through its CSI driver.
fn pod_wants(reader: &dyn Reader, pod: &Value, audience: &str) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let volumes = pod["spec"]["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    volumes.iter().any(|volume| {
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        let mut asked = sources.map(|source| &source["serviceAccountToken"]["audience"]);
        asked.any(|found| found == audience)
            || driver_of(reader, namespace, pod, volume).is_some_and(|driver| driver_wants(reader, &driver, audience))
    })
}

fn driver_of(reader: &dyn Reader, namespace: &str, pod: &Value, volume: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(driver) = text(&volume["csi"]["driver"]) {
        return Some(driver);
    }
    let claim = if volume["ephemeral"].is_null() {
        text(&volume["persistentVolumeClaim"]["claimName"])?
    } else {
        format!("{}-{}", pod["metadata"]["name"].as_str()?, volume["name"].as_str()?)
    };
    let claim = reader.get("", "persistentvolumeclaims", namespace, &claim)?;
    let volume = reader.get("", "persistentvolumes", "", claim["spec"]["volumeName"].as_str()?)?;
    text(&volume["spec"]["csi"]["driver"])
}

fn driver_wants(reader: &dyn Reader, driver: &str, audience: &str) -> bool {
    let found = reader.get("storage.k8s.io", "csidrivers", "", driver).unwrap_or_default();
    found["spec"]["tokenRequests"].as_array().into_iter().flatten().any(|request| request["audience"] == audience)
}

async fn is_permitted(authorizer: &dyn Authorizer, attributes: &Attributes, audience: &str) -> bool {
    let request = RequestInfo {
        is_resource: true,
        verb: "request-serviceaccounts-token-audience".into(),
        version: "v1".into(),
        resource: audience.into(),
        namespace: attributes.namespace.clone(),
        name: attributes.name.clone(),
        ..RequestInfo::default()
    };
    authorizer.authorize(&attributes.user, &request).await == Decision::Allow
}
