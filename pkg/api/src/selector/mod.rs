//! Label and field selectors.

mod parse;

use std::fmt;

use serde_json::Value;

/// One requirement on a label or field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A selector that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// Selects objects by their labels; all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Parses the one-line form of query parameters.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::requirements(text).map(|requirements| Self { requirements })
    }

    /// The LabelSelector object of the API; an empty one selects everything.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in value["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().ok_or_else(|| SelectorError("matchLabels values are strings".into()))?;
            requirements.push(Requirement::In(key.clone(), vec![value.to_owned()]));
        }
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values: Vec<String> = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            requirements.push(match expression["operator"].as_str().unwrap_or_default() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::NotExists(key),
                other => return Err(SelectorError(format!("\"{other}\" is not a valid label selector operator"))),
            });
        }
        Ok(Self { requirements })
    }

    /// Requires equality with every pair.
    pub fn equal<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = pairs.into_iter().map(|(k, v)| Requirement::In(k.to_owned(), vec![v.to_owned()])).collect();
        Self { requirements }
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels, looked up by `get`, satisfy all requirements.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.holds(&get))
    }

    /// Whether a JSON object of labels satisfies all requirements.
    pub fn matches_value(&self, labels: &Value) -> bool {
        self.matches(|key| labels[key].as_str())
    }
}

impl Requirement {
    fn holds<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => get(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Self::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|x| x != v)),
            Self::Exists(key) => get(key).is_some(),
            Self::NotExists(key) => get(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|v| v > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|v| v < *bound),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<(&str, String)> = self.requirements.iter().map(Requirement::text).collect();
        texts.sort();
        f.write_str(&texts.into_iter().map(|(_, t)| t).collect::<Vec<_>>().join(","))
    }
}

impl Requirement {
    fn text(&self) -> (&str, String) {
        let sorted = |values: &[String]| {
            let mut values = values.to_vec();
            values.sort();
            values.join(",")
        };
        match self {
            Self::In(key, values) if values.len() == 1 => (key, format!("{key}={}", values[0])),
            Self::In(key, values) => (key, format!("{key} in ({})", sorted(values))),
            Self::NotIn(key, values) if values.len() == 1 => (key, format!("{key}!={}", values[0])),
            Self::NotIn(key, values) => (key, format!("{key} notin ({})", sorted(values))),
            Self::Exists(key) => (key, key.clone()),
            Self::NotExists(key) => (key, format!("!{key}")),
            Self::Greater(key, bound) => (key, format!("{key}>{bound}")),
            Self::Less(key, bound) => (key, format!("{key}<{bound}")),
        }
    }
}

/// Selects objects by the few fields that a resource offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    /// Field, whether it must be equal, value.
    terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (field, true, value)
            } else {
                return Err(SelectorError(format!("invalid selector: '{term}'; can't understand '{term}'")));
            };
            terms.push((field.trim().to_owned(), equal, value.trim().replace("\\,", ",").replace("\\=", "=")));
        }
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The part that needs no look into the object.
    #[must_use]
    pub fn by_name(&self) -> Self {
        let terms =
            self.terms.iter().filter(|(field, ..)| matches!(field.as_str(), "metadata.name" | "metadata.namespace"));
        Self { terms: terms.cloned().collect() }
    }

    /// The fields that are named.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|(field, _, _)| field.as_str())
    }

    /// The value a field must be equal to.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, equal, _)| f == field && *equal).map(|(_, _, value)| value.as_str())
    }

    /// Whether fields, looked up by `get` as text, satisfy all terms; an absent field is the empty text.
    pub fn matches(&self, get: impl Fn(&str) -> String) -> bool {
        self.terms.iter().all(|(field, equal, value)| (get(field) == *value) == *equal)
    }

    /// Whether only names and namespaces are asked for, which needs no look into the object.
    pub fn is_by_name(&self) -> bool {
        self.fields().all(|f| matches!(f, "metadata.name" | "metadata.namespace" | "name"))
    }
}

/// A field of a custom resource as the text that field selectors compare.
pub fn field_text(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, key| &value[key]) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_match() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web),tier notin (back)", true),
            ("app,!gone", true),
            ("gone", false),
            ("!app", false),
            ("gone!=x", true),
            ("n>4,n<6", true),
            ("n>5", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches_value(&labels), expected, "{text}");
        }
        for text in ["a=b,,c", "in (x)", "a in (x", "=x", "a b"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn selector_objects_match_and_print() {
        let selector = LabelSelector::from_value(&json!({"matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]}))
        .unwrap();
        assert_eq!(selector.to_string(), "a in (x,y),b=1,!c");
        assert!(selector.matches_value(&json!({"a": "x", "b": "1"})));
        assert!(LabelSelector::from_value(&json!({})).unwrap().matches_value(&json!(null)));
    }

    #[test]
    fn field_selectors_compare_text() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}});
        let matches = |text: &str| FieldSelector::parse(text).unwrap().matches(|f| field_text(&pod, f));
        assert!(matches("spec.nodeName=n,metadata.name!=q"));
        assert!(matches("spec.hostNetwork=,status.phase="));
        assert!(!matches("spec.nodeName=other"));
        assert!(FieldSelector::parse("x").is_err());
    }
}
