#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn rules(rule: Value) -> Result<Option<RuleSet>, Vec<FieldError>> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [rule],
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"}}}}});
    RuleSet::compile(&schema, &FieldPath::new("schema"))
}

fn shown(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_refuse_objects_and_transitions() {
    let set = rules(json!({"rule": "self.min <= self.max", "message": "min above max"})).unwrap().unwrap();
    let object = |min: i64| json!({"spec": {"min": min, "max": 5}});
    assert!(set.validate(&object(1), None).is_empty());
    let errors = set.validate(&object(9), None);
    assert_eq!(errors[0].to_string(), "spec: Invalid value: min above max");
    let [error] = &set.validate(&object(9), Some(&object(9)))[..] else { panic!("a rule that does not hold is told") };
    assert!(error.tolerated, "an unchanged part is tolerated");
    assert_eq!(set.validate(&object(9), Some(&object(8))).len(), 1);
    let fixed = rules(json!({"rule": "self.min == oldSelf.min"})).unwrap().unwrap();
    assert!(fixed.validate(&object(1), None).is_empty());
    assert_eq!(fixed.validate(&object(2), Some(&object(1))).len(), 1);
    let once = json!({"rule": "!oldSelf.hasValue() || oldSelf.value().min == self.min", "optionalOldSelf": true});
    let once = rules(once).unwrap().unwrap();
    assert!(once.validate(&object(1), None).is_empty());
    assert_eq!(once.validate(&object(2), Some(&object(1))).len(), 1);
}

#[test]
fn rules_of_the_whole_resource_see_its_parts() {
    let schema = |rule: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "m"}], "properties": {
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"min": {"type": "integer"}, "if": {"type": "string"},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "properties": {"spec": {"type": "object", "properties": {"node": {"type": "string"}}}},
                    "x-kubernetes-validations": [{"rule": "self.metadata.name == self.spec.node", "message": "p"}]}}}}})
    };
    let object = json!({"metadata": {"name": "a"}, "spec": {"min": 1, "if": "x", "pod": {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"node": "n"}}}});
    for (rule, expected) in [
        ("self.spec.min == 1 && self.metadata.name == 'a'", &["spec.pod: Invalid value: p"][..]),
        ("self.spec.min == 2", &["<nil>: Invalid value: m", "spec.pod: Invalid value: p"]),
        ("self.spec.if == self.spec.__if__", &["spec.pod: Invalid value: p"]),
    ] {
        let set = RuleSet::compile(&schema(rule), &FieldPath::new("schema")).unwrap().unwrap();
        assert_eq!(shown(&set.validate(&object, None)), expected, "{rule}");
    }
}

#[test]
fn errors_are_as_the_rule_asks() {
    let object = json!({"spec": {"min": 9, "max": 5, "name": "x"}});
    for (rule, expected) in [
        (json!({"rule": "self.min < self.max"}), "spec: Invalid value: failed rule: self.min < self.max"),
        (
            json!({"rule": "self.min < self.max", "message": "m", "messageExpression": "'named ' + self.name"}),
            "spec: Invalid value: named x",
        ),
        (
            json!({"rule": "self.min < self.max", "message": "m", "messageExpression": "self.name.substring(9)"}),
            "spec: Invalid value: m",
        ),
        (
            json!({"rule": "self.min < self.max", "message": "m", "messageExpression": "'a\\nb'"}),
            "spec: Invalid value: m",
        ),
        (
            json!({"rule": "self.min < self.max", "message": "m", "reason": "FieldValueForbidden", "fieldPath": ".min"}),
            "spec.min: Forbidden: m",
        ),
        (
            json!({"rule": "self.name.substring(5) == ''"}),
            "spec: Invalid value: \"object\": index out of range: 5 evaluating rule: self.name.substring(5) == ''",
        ),
        (
            json!({"rule": "self.min / (self.max - 5) == 1", "message": "m"}),
            "spec: Invalid value: \"object\": division by zero evaluating rule: m",
        ),
    ] {
        let set = rules(rule.clone()).unwrap().unwrap();
        assert_eq!(shown(&set.validate(&object, None)), [expected], "{rule}");
    }
}

#[test]
fn malformed_rules_are_refused() {
    let prefix = "schema.properties[spec].x-kubernetes-validations[0]";
    let shown_rule = |rule: &str, message: &str| {
        format!(
            "{{\"Rule\":\"{rule}\",\"Message\":\"\",\"MessageExpression\":\"{message}\",\"Reason\":null,\"FieldPath\":\"\",\
             \"OptionalOldSelf\":null}}"
        )
    };
    for (rule, expected) in [
        (
            json!({"rule": "self.min <="}),
            format!(
                "{prefix}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:12: Syntax error:",
                shown_rule("self.min \\u003c=", "")
            ),
        ),
        (
            json!({"rule": "self.mean == 1"}),
            format!(
                "{prefix}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'mean'",
                shown_rule("self.mean == 1", "")
            ),
        ),
        (
            json!({"rule": "self.min"}),
            format!(
                "{prefix}.rule: Invalid value: {}: cel expression must evaluate to a bool",
                shown_rule("self.min", "")
            ),
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            format!(
                "{prefix}.messageExpression: Invalid value: {}: messageExpression must evaluate to a string",
                shown_rule("true", "1")
            ),
        ),
        (json!({"rule": " "}), format!("{prefix}.rule: Required value: rule is not specified")),
        (
            json!({"rule": "true &&\ntrue"}),
            format!("{prefix}.message: Required value: message must be specified if rule contains line breaks"),
        ),
        (
            json!({"rule": "true", "message": "a\nb"}),
            format!("{prefix}.message: Invalid value: \"a\\nb\": must not contain line breaks"),
        ),
        (json!({"rule": "true", "reason": "X"}), format!("{prefix}.reason: Unsupported value: \"X\"")),
        (
            json!({"rule": "true", "fieldPath": ".none"}),
            format!("{prefix}.fieldPath: Invalid value: \".none\": must be a valid path"),
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            format!("{prefix}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"),
        ),
    ] {
        let errors = shown(&rules(rule.clone()).unwrap_err());
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{rule}: {errors:?}");
    }
}

#[test]
fn transition_rules_need_items_that_are_found_again() {
    let list = |keys: Value| {
        let mut list = json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}]}});
        list.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        RuleSet::compile(&json!({"type": "object", "properties": {"l": list}}), &FieldPath::new("schema"))
    };
    let loose = shown(&list(json!({})).unwrap_err());
    assert!(
        loose[0]
            .contains("oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[l]"),
        "{loose:?}"
    );
    let keyed = list(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]})).unwrap().unwrap();
    let old = json!({"l": [{"k": "a", "v": 1}, {"k": "b", "v": 5}]});
    let new = json!({"l": [{"k": "b", "v": 4}, {"k": "c", "v": 0}, {"k": "a", "v": 1}]});
    assert_eq!(shown(&keyed.validate(&new, Some(&old))), ["l[0]: Invalid value: failed rule: self.v >= oldSelf.v"]);
}

#[test]
fn unchanged_parts_stay_as_wrong_as_they_were() {
    let item = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.n > 0"}]});
    let schema = json!({"type": "object", "properties": {"a": item, "other": {"type": "string"},
        "list": {"type": "array", "items": item}, "map": {"type": "object", "additionalProperties": item}}});
    let set = RuleSet::compile(&schema, &FieldPath::new("schema")).unwrap().unwrap();
    let bad = json!({"n": 0});
    let old = json!({"a": bad, "list": [bad], "map": {"x": bad}, "other": "1"});
    for (new, expected, told) in [
        (json!({"a": bad, "list": [bad], "map": {"x": bad}, "other": "2"}), vec![], vec!["a", "list[0]", "map[x]"]),
        (json!({"a": {"n": -1}}), vec!["a"], vec![]),
        (json!({"list": [bad, {"n": 1}]}), vec!["list[0]"], vec![]),
        (json!({"map": {"x": bad, "y": {"n": 1}}}), vec![], vec!["map[x]"]),
        (json!({"map": {"y": bad}}), vec!["map[y]"], vec![]),
    ] {
        let errors = set.validate(&new, Some(&old));
        let (tolerated, wrong): (Vec<_>, Vec<_>) = errors.iter().partition(|e| e.tolerated);
        let fields = |errors: Vec<&FieldError>| -> Vec<String> { errors.iter().map(|e| e.field.clone()).collect() };
        assert_eq!(fields(wrong), expected, "{new}");
        assert_eq!(fields(tolerated), told, "{new}");
    }
}

#[test]
fn rules_that_may_cost_too_much_are_refused() {
    let all = json!([{"rule": "self.x.all(a, a > 0)"}]);
    let twice = json!([{"rule": "self.x.all(a, self.x.exists(b, a != b))"}]);
    for (rules, limit, inside_list, factor) in [
        (&all, None, false, None),
        (&twice, Some(100), false, None),
        (&twice, None, false, Some("more than 100x")),
        (&all, Some(100), true, Some("52.")),
        (&all, Some(2), true, Some("1.")),
        (&all, Some(1), true, None),
    ] {
        let mut list = json!({"type": "array", "items": {"type": "integer"}});
        if let Some(limit) = limit {
            list["maxItems"] = limit.into();
        }
        let mut part = json!({"type": "object", "x-kubernetes-validations": rules, "properties": {"x": list}});
        if inside_list {
            part = json!({"type": "array", "items": part});
        }
        let schema = json!({"type": "object", "properties": {"part": part}});
        let errors = RuleSet::compile(&schema, &FieldPath::new("schema")).err().unwrap_or_default();
        let shown = shown(&errors);
        match factor {
            None => assert!(shown.is_empty(), "{rules} {limit:?} {inside_list} {shown:?}"),
            Some(factor) => {
                let expected = format!("Forbidden: estimated rule cost exceeds budget by factor of {factor}");
                assert!(shown[0].contains(&expected), "{rules} {limit:?} {inside_list} {shown:?}");
            }
        }
    }
    let text = json!({"type": "string", "x-kubernetes-validations":
        [{"rule": "self.contains('x') && self.contains('y') && self.contains('z') && self.contains('a')"}]});
    let many: Value = (0..100).map(|n| (format!("p{n}"), text.clone())).collect::<serde_json::Map<_, _>>().into();
    let errors =
        RuleSet::compile(&json!({"type": "object", "properties": many}), &FieldPath::new("schema")).unwrap_err();
    let shown = shown(&errors);
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert!(shown[0].ends_with(
        ".rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    ));
    assert!(shown[4].starts_with("schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of 1.2"), "{}", shown[4]);
}

#[test]
fn rules_end_when_their_budget_is_spent() {
    let text = json!({"type": "string", "maxLength": 1000});
    let rule = json!({"rule": "!self.s.contains(self.t)"});
    let part =
        json!({"type": "object", "properties": {"s": text, "t": text}, "x-kubernetes-validations": [rule, rule, rule]});
    let schema = json!({"type": "object", "properties": {"parts": {"type": "array", "maxItems": 10, "items": part}}});
    let set = RuleSet::compile(&schema, &FieldPath::new("schema")).unwrap().unwrap();
    let parts =
        |count: usize, len: usize| json!({"parts": vec![json!({"s": "a".repeat(len), "t": "b".repeat(len)}); count]});
    assert!(set.validate(&parts(4, 9000), None).is_empty());
    let shown = |object: &Value| shown(&set.validate(object, None));
    let spent = "parts[4]: Invalid value: \"object\": validation failed due to running out of cost budget, no further \
                 validation rules will be run";
    assert_eq!(shown(&parts(9, 9000)), [spent]);
    let costly = "parts[0]: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further \
                  validation rules will be run due to call cost exceeds limit for rule: !self.s.contains(self.t)";
    assert_eq!(shown(&parts(2, 11_000)), [costly]);
}
