//! What is made of objects that clients wrote, and of answers from elsewhere.

use std::sync::LazyLock;

use kube1_api::resource::{CustomResource, Resource, ResourceTable};
use serde_json::{Value, json};

use crate::aggregate::{RemoteService, discovery};
use crate::{authz, convert, custom, flow, resource_metrics, subresource, webhook};

static TABLE: LazyLock<ResourceTable> = LazyLock::new(ResourceTable::builtin);

/// An object of any kind as each of its users reads it.
pub(super) fn used(data: &[u8]) {
    let Ok(object) = serde_json::from_slice::<Value>(data) else { return };
    for hook in webhook::hooks(&object) {
        let _ = (hook.rules.is_empty(), hook.conditions.len());
    }
    let _ = (authz::rules_of(&object).len(), authz::role_ref(&object), authz::references(&object).len());
    let _ = RemoteService::read(&object);
    let _ = (custom::rows(&object).len(), custom::stored_row(&object));
    flow::hostile(&object);
    for (group, plural) in [("autoscaling", "horizontalpodautoscalers"), ("events.k8s.io", "events")] {
        let rows = TABLE.iter().filter(|row| row.group == group && row.plural == plural);
        for row in rows.filter(|_| object.is_object()) {
            let (mut stored, mut shown) = (object.clone(), object.clone());
            convert::to_storage(row, &mut stored);
            convert::shown(row, &mut stored);
            convert::shown(row, &mut shown);
        }
    }
}

/// An answer of a webhook, of an extension server, of a kubelet, and of what a proxied service serves.
pub(super) fn answers(data: &[u8]) {
    webhook::hostile(data);
    let _ = subresource::rewrite_links(data, "h:1", "/p").len();
    let Ok(answer) = serde_json::from_slice::<Value>(data) else { return };
    discovery::hostile(&answer);
    resource_metrics::hostile(&answer);
    let old = json!({"kind": "Foo", "metadata": {"name": "n"}});
    let row = Resource::from(CustomResource::default());
    let _ = convert::webhook::checked(&row, &old, answer, "g/v1");
}
