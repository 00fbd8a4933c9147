//! Roles whose rules are the union of other roles' rules.

use kube1_api::selector::LabelSelector;
use serde_json::Value;

/// The rules that `role`'s aggregationRule selects from `roles`, in the order of the roles' names and without repeats.
/// `None` when the role has no aggregationRule.
pub fn aggregated_rules<'a>(role: &Value, roles: impl Iterator<Item = &'a Value>) -> Option<Value> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array()?;
    // A selector that does not parse selects nothing; validation refuses it anyway.
    let selectors: Vec<LabelSelector> = selectors.iter().filter_map(|s| LabelSelector::from_value(s).ok()).collect();
    let name = |role: &Value| role["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let own = name(role);
    let mut chosen: Vec<&Value> = roles
        .filter(|r| name(r) != own && selectors.iter().any(|s| s.matches_value(&r["metadata"]["labels"])))
        .collect();
    chosen.sort_by_key(|r| name(r));
    let mut rules: Vec<Value> = Vec::new();
    for rule in chosen.into_iter().flat_map(|r| r["rules"].as_array().into_iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules.into())
}
