//! Status of FlowSchemas: whether the level they name exists.

use serde_json::{Value, json};

/// The conditions that the schema should have; `None` when it has them.
pub fn dangling(schema: &Value, levels: &[Value], now: &str) -> Option<Value> {
    let name = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let found = levels.iter().any(|level| level["metadata"]["name"] == name);
    let (status, reason, end) = match found {
        true => ("False", "Found", "it exists"),
        false => ("True", "NotFound", "there is no such object"),
    };
    let text = format!("This FlowSchema references the PriorityLevelConfiguration object named {name:?} ");
    let message = match found {
        true => format!("{text}and {end}"),
        false => format!("{text}but {end}"),
    };
    let conditions = schema["status"]["conditions"].as_array();
    let present = conditions.into_iter().flatten().find(|c| c["type"] == "Dangling");
    if present.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message) {
        return None;
    }
    let since = present.filter(|c| c["status"] == status).and_then(|c| c["lastTransitionTime"].as_str());
    Some(json!([{"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or(now)}]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_without_its_level_dangles() {
        let schema = |conditions: Value| json!({"spec": {"priorityLevelConfiguration": {"name": "a"}}, "status": {"conditions": conditions}});
        let levels = [json!({"metadata": {"name": "a"}})];
        let fine = dangling(&schema(json!([])), &levels, "t1").unwrap();
        assert_eq!((&fine[0]["status"], &fine[0]["lastTransitionTime"]), (&json!("False"), &json!("t1")));
        assert!(dangling(&schema(fine.clone()), &levels, "t2").is_none());
        let bad = dangling(&schema(fine), &[], "t3").unwrap();
        let message =
            "This FlowSchema references the PriorityLevelConfiguration object named \"a\" but there is no such object";
        assert_eq!((&bad[0]["reason"], &bad[0]["message"]), (&json!("NotFound"), &json!(message)));
        assert_eq!(bad[0]["lastTransitionTime"], "t3");
    }
}
