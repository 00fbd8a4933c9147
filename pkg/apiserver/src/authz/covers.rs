//! Whether rules grant what other rules grant, for the check against escalation.

use std::collections::BTreeMap;

use super::rule::Rule;

/// The parts of `wanted` that `held` does not grant; empty when everything is granted.
///
/// Every part has one verb and one resource or path. Exact for what rules can express except that a `*` is only
/// covered by a `*`.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(split).filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// One rule per combination of verb, group, resource and name, or of verb and path.
fn split(rule: &Rule) -> Vec<Rule> {
    let one = |s: &String| vec![s.clone()];
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let base =
                    Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.resource_names.is_empty() {
                    parts.push(base);
                } else {
                    parts.extend(rule.resource_names.iter().map(|n| Rule { resource_names: one(n), ..base.clone() }));
                }
            }
        }
        for url in &rule.non_resource_urls {
            parts.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
        }
    }
    parts
}

fn covers(owner: &Rule, part: &Rule) -> bool {
    let within = |owner: &[String], part: &[String]| part.iter().all(|p| owner.iter().any(|o| o == "*" || o == p));
    within(&owner.verbs, &part.verbs)
        && within(&owner.api_groups, &part.api_groups)
        && part.resources.iter().all(|p| owner.resources.iter().any(|o| resource_covers(o, p)))
        && part.non_resource_urls.iter().all(|p| owner.non_resource_urls.iter().any(|o| super::rule::url_matches(o, p)))
        && (owner.resource_names.is_empty()
            || !part.resource_names.is_empty() && part.resource_names.iter().all(|n| owner.resource_names.contains(n)))
}

fn resource_covers(owner: &str, part: &str) -> bool {
    owner == "*"
        || owner == part
        || owner.strip_prefix('*').is_some_and(|sub| sub.starts_with('/') && part.ends_with(sub))
}

/// Folds single parts back together for messages: one rule per group, resource and names with all its verbs.
pub fn compact(parts: &[Rule]) -> Vec<Rule> {
    let mut folded: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for part in parts {
        let key = Rule { verbs: Vec::new(), ..part.clone() };
        folded.entry(key).or_default().extend(part.verbs.iter().cloned());
    }
    folded.into_iter().map(|(rule, verbs)| Rule { verbs, ..rule }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_held_is_found() {
        let rule = Rule::resources;
        let all = rule(&["*"], &["*"], &["*"], &[]);
        let pods = rule(&["get", "list"], &[""], &["pods", "pods/log"], &[]);
        for (held, wanted, expected) in [
            (vec![all.clone()], vec![pods.clone()], 0),
            (vec![pods.clone()], vec![all], 1),
            (vec![pods.clone()], vec![rule(&["get", "delete"], &[""], &["pods"], &[])], 1),
            (vec![rule(&["get"], &[""], &["pods"], &["a"])], vec![rule(&["get"], &[""], &["pods"], &["a", "b"])], 1),
            (vec![rule(&["get"], &[""], &["pods"], &["a"])], vec![rule(&["get"], &[""], &["pods"], &[])], 1),
            (vec![rule(&["get"], &[""], &["*/log"], &[])], vec![rule(&["get"], &[""], &["pods/log"], &[])], 0),
            // Different rules may cover different parts.
            (
                vec![rule(&["get"], &[""], &["pods"], &[]), rule(&["list"], &[""], &["pods"], &[])],
                vec![rule(&["get", "list"], &[""], &["pods"], &[])],
                0,
            ),
        ] {
            assert_eq!(missing(&held, &wanted).len(), expected, "{held:?} {wanted:?}");
        }
    }

    #[test]
    fn missing_parts_are_folded_by_resource() {
        let parts = missing(&[], &[Rule::resources(&["get", "list"], &[""], &["pods", "secrets"], &[])]);
        assert_eq!(parts.len(), 4);
        let texts: Vec<String> = compact(&parts).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}"#
            ]
        );
    }
}
