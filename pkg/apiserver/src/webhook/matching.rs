//! Whether rules concern a request.

use serde_json::Value;

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub operation: &'a str,
    pub namespaced: bool,
    /// Empty for a request that concerns no single object.
    pub name: &'a str,
    /// Other versions in which the same resource is served, by group and version.
    pub equivalents: &'a [(String, String)],
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    operations: Vec<String>,
    names: Vec<String>,
    scope: String,
}

/// The rules of a webhook or a policy.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// A rule for one version of a resource concerns requests through its other versions too.
    equivalent: bool,
}

impl Rules {
    pub fn new(rules: &Value, equivalent: bool) -> Self {
        let rules = rules.as_array().into_iter().flatten().map(Rule::new).collect();
        Self { rules, equivalent }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The group and version in which the request concerns a rule: its own if possible.
    pub fn find<'a>(&self, subject: &Subject<'a>) -> Option<(&'a str, &'a str)> {
        let matches = |group: &str, version: &str| self.rules.iter().any(|rule| rule.matches(subject, group, version));
        if matches(subject.group, subject.version) {
            return Some((subject.group, subject.version));
        }
        let equivalents = if self.equivalent { subject.equivalents } else { &[] };
        let others = |rule| equivalents.iter().map(move |(group, version)| (rule, group.as_str(), version.as_str()));
        let mut each = self.rules.iter().flat_map(others);
        each.find(|(rule, group, version): &(&Rule, _, _)| rule.matches(subject, group, version))
            .map(|(_, g, v)| (g, v))
    }
}

impl Rule {
    fn new(rule: &Value) -> Self {
        let texts = |key: &str| {
            rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            operations: texts("operations"),
            names: texts("resourceNames"),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, subject: &Subject<'_>, group: &str, version: &str) -> bool {
        let any = |list: &[String], text: &str| list.iter().any(|item| item == "*" || item == text);
        let scope = match self.scope.as_str() {
            // A Namespace is cluster-scoped although requests for it carry its name as theirs.
            "Namespaced" => subject.namespaced,
            "Cluster" => !subject.namespaced,
            _ => true,
        };
        scope
            && any(&self.groups, group)
            && any(&self.versions, version)
            && any(&self.operations, subject.operation)
            && (self.names.is_empty() || self.names.iter().any(|name| name == subject.name))
            && self.resources.iter().any(|pattern| resource_matches(pattern, subject))
    }
}

fn resource_matches(pattern: &str, subject: &Subject<'_>) -> bool {
    let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
    let resource_fits = resource == "*" || resource == subject.resource;
    resource_fits && (subresource == subject.subresource || (subresource == "*" && pattern.contains('/')))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(resources: &[&str], subresource: &str, equivalent: bool) -> bool {
        let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": resources, "operations": ["CREATE"],
            "scope": "Namespaced"}]);
        let equivalents = [("apps".to_owned(), "v1".to_owned())];
        let subject = Subject {
            group: "apps",
            version: if equivalent { "v2" } else { "v1" },
            resource: "deployments",
            subresource,
            operation: "CREATE",
            namespaced: true,
            name: "",
            equivalents: &equivalents,
        };
        Rules::new(&rules, equivalent).find(&subject).is_some()
    }

    #[test]
    fn rules_tell_resources_from_subresources_and_follow_versions() {
        assert!(find(&["deployments"], "", false) && find(&["*"], "", false) && find(&["*/*"], "", false));
        assert!(!find(&["deployments"], "scale", false) && !find(&["*"], "scale", false));
        assert!(find(&["*/scale"], "scale", false) && find(&["deployments/*"], "scale", false));
        assert!(!find(&["pods"], "", false));
        assert!(find(&["deployments"], "", true), "through another version of the same resource");
    }
}
