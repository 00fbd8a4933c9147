//! Events: `v1` is stored, `events.k8s.io/v1` is the other view.

use serde_json::Value;

/// Members of `v1` and of `events.k8s.io/v1`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("source", "deprecatedSource"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn to_new(event: &mut Value) {
    rename(event, RENAMED.iter().copied());
}

pub(super) fn to_core(event: &mut Value) {
    rename(event, RENAMED.iter().map(|(old, new)| (*new, *old)));
    // The stored form always has these members, as upstream's encoder writes them.
    if event.get("involvedObject").is_none() {
        event["involvedObject"] = serde_json::json!({});
    }
}

fn rename<'a>(event: &mut Value, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(members) = event.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = members.remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_views_hold_the_same() {
        let core = json!({"involvedObject": {"name": "p"}, "message": "m", "reason": "r", "count": 2, "source": {"component": "c"}});
        let mut event = core.clone();
        to_new(&mut event);
        assert_eq!(
            event,
            json!({"regarding": {"name": "p"}, "note": "m", "reason": "r", "deprecatedCount": 2, "deprecatedSource": {"component": "c"}})
        );
        to_core(&mut event);
        assert_eq!(event, core);
    }
}
