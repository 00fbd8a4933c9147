//! Checking objects against their schema. Messages have the form that clients of upstream know.

use serde_json::{Map, Value};

use super::{Checks, JsonType, Schema, format};
use crate::field::{FieldError, FieldPath};

/// Errors of one object that are told: an object may have as many as it has values.
pub(super) const ERRORS_MAX: usize = 100;

impl Schema {
    /// What JSON Schema finds wrong with a custom object. Embedded resources, items of lists that come twice and CEL rules
    /// are looked at elsewhere.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.checks.check_branches(object, &FieldPath::new("<nil>"), &mut errors);
        for (name, schema) in &self.properties {
            if let Some(value) =
                object.get(name).filter(|_| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
            {
                schema.check(value, &FieldPath::new(name.clone()), &mut errors);
            }
        }
        if let Value::Object(map) = object {
            self.checks.check_required(map, &FieldPath::default(), &mut errors);
        }
        errors
    }

    /// What is wrong with a value of this node.
    pub(crate) fn errors_of(&self, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check(value, &FieldPath::default(), &mut errors);
        errors
    }

    /// The checks come in upstream's order.
    fn check(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if (value.is_null() && self.nullable) || errors.len() >= ERRORS_MAX {
            return;
        }
        self.check_type(value, path, errors);
        if !value.is_null() {
            self.checks.check_branches(value, path, errors);
        }
        match value {
            Value::String(text) => self.checks.check_text(text, value, path, errors),
            Value::Number(number) => {
                self.check_range(value, path, errors);
                self.checks.check_number(number.as_f64().unwrap_or(0.0), value, path, errors);
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check(item, &path.index(index), errors);
                    }
                }
                self.checks.check_length(items.len(), path, errors);
            }
            _ => {}
        }
        self.checks.check_values(value, path, errors);
        if let Value::Object(map) = value {
            self.checks.check_size(map.len(), path, errors);
            for (name, member) in map {
                let known = self.embedded_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if let Some(schema) = self.member(name).filter(|_| !known) {
                    schema.check(member, &path.child(name), errors);
                }
            }
            self.checks.check_required(map, path, errors);
        }
    }

    /// Whether a number fits its type and format.
    fn check_range(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let number = value.as_f64().unwrap_or(0.0);
        let of_type = self.json_type != Some(JsonType::Integer) || JsonType::Integer.holds(value);
        if !of_type || !format::number_fits(&self.checks.format, number) {
            errors.push(self.checks.unfit(self.json_type, path));
        }
    }

    /// Whether the value has the node's type. With a format upstream looks at that first, and takes any list for a text.
    fn check_type(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let (fits, expected) = if self.int_or_string {
            (JsonType::Integer.holds(value) || value.is_string(), "integer,string")
        } else {
            match self.json_type {
                Some(json_type) => (json_type.holds(value), json_type.name()),
                None => return,
            }
        };
        if fits {
            return;
        }
        let format = self.checks.format.as_str();
        let number = matches!(self.json_type, Some(JsonType::Integer | JsonType::Number));
        let (expected, found) = match value {
            _ if format.is_empty() || value.is_null() => (expected, type_name(value)),
            Value::String(_) | Value::Array(_) if number => (expected, type_name(value)),
            Value::String(_) | Value::Array(_) => return,
            Value::Number(number) => (format, if number.is_i64() { "int64" } else { "float64" }),
            _ => (format, ""),
        };
        let detail = format!("{path} in body must be of type {expected}: \"{found}\"");
        errors.push(FieldError::type_invalid(path, found, detail));
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Checks {
    fn check_required(&self, map: &Map<String, Value>, path: &FieldPath, errors: &mut Vec<FieldError>) {
        for name in self.required.iter().filter(|name| !map.contains_key(*name)) {
            errors.push(FieldError::required(&path.child(name), ""));
        }
    }

    fn check_size(&self, count: usize, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if let Some(min) = self.min_properties.filter(|min| (count as u64) < *min) {
            errors.push(in_body(path, &count.into(), &format!("should have at least {min} properties")));
        }
        if let Some(max) = self.max_properties.filter(|max| count as u64 > *max) {
            errors.push(FieldError::too_many(path, count, max as usize));
        }
    }

    fn check_length(&self, count: usize, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if let Some(min) = self.min_items.filter(|min| (count as u64) < *min) {
            errors.push(in_body(path, &count.into(), &format!("should have at least {min} items")));
        }
        if let Some(max) = self.max_items.filter(|max| count as u64 > *max) {
            errors.push(FieldError::too_many(path, count, max as usize));
        }
    }

    fn check_text(&self, text: &str, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let length = text.chars().count() as u64;
        // The first of these that does not hold is told.
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            errors.push(FieldError::too_long(path, max as usize));
        } else if let Some(min) = self.min_length.filter(|min| length < *min) {
            errors.push(in_body(path, value, &format!("should be at least {min} chars long")));
        } else if let Some(pattern) = self.pattern.as_ref().filter(|p| !p.is_match(text)) {
            errors.push(in_body(path, value, &format!("should match '{pattern}'")));
        }
        if !format::text_fits(&self.format, text) {
            let detail = format!("{path} in body must be of type {}: {value}", self.format);
            errors.push(FieldError::type_invalid(path, value.clone(), detail));
        }
    }

    fn check_number(&self, number: f64, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if let Some(factor) = self.multiple_of.filter(|factor| (number / factor).fract() != 0.0) {
            errors.push(in_body(path, value, &format!("should be a multiple of {factor}")));
        }
        if let Some(min) = self.minimum.filter(|min| number < *min || (self.exclusive_minimum && number <= *min)) {
            let or_equal = if self.exclusive_minimum { "" } else { " or equal to" };
            errors.push(in_body(path, value, &format!("should be greater than{or_equal} {min}")));
        }
        if let Some(max) = self.maximum.filter(|max| number > *max || (self.exclusive_maximum && number >= *max)) {
            let or_equal = if self.exclusive_maximum { "" } else { " or equal to" };
            errors.push(in_body(path, value, &format!("should be less than{or_equal} {max}")));
        }
    }

    /// A number that is none of its type's. Upstream does not say where.
    fn unfit(&self, json_type: Option<JsonType>, path: &FieldPath) -> FieldError {
        let json_type = json_type.map_or("number", JsonType::name);
        let format = match self.format.as_str() {
            "" => "(default format)".to_owned(),
            format => format!("with format {format}"),
        };
        nowhere(format!("Checked value must be of type {json_type} {format} in {path}"))
    }

    fn check_values(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if self.values.is_empty() || self.values.contains(value) {
            return;
        }
        let supported: Vec<String> =
            self.values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &supported));
    }

    fn check_branches(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let failures = |schema: &Schema| {
            let mut errors = Vec::new();
            schema.check(value, path, &mut errors);
            errors
        };
        let quoted = || format!("\"{path}\"");
        // Each branch is tried once: branches of branches would multiply.
        let mut first = None;
        let fits = |schema: &Schema| {
            let found = failures(schema);
            let none = found.is_empty();
            first.get_or_insert(found);
            none
        };
        if !self.any_of.is_empty() && !self.any_of.iter().any(fits) {
            errors.push(nowhere(format!("{} must validate at least one schema (anyOf)", quoted())));
            errors.extend(first.unwrap_or_default());
        }
        if !self.one_of.is_empty() {
            let mut first = None;
            let fits = |schema: &&Schema| {
                let found = failures(schema);
                let none = found.is_empty();
                first.get_or_insert(found);
                none
            };
            let valid = self.one_of.iter().filter(fits).count();
            if valid != 1 {
                let found = if valid == 0 { "none valid".to_owned() } else { format!("{valid} valid alternatives") };
                let detail = format!("{} must validate one and only one schema (oneOf). Found {found}", quoted());
                errors.push(nowhere(detail));
                errors.extend(first.filter(|_| valid == 0).unwrap_or_default());
            }
        }
        let mut valid = 0;
        for schema in &self.all_of {
            let found = failures(schema);
            valid += usize::from(found.is_empty());
            errors.extend(found);
        }
        if valid < self.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            errors.push(nowhere(format!("{} must validate all the schemas (allOf){none}", quoted())));
        }
        if self.not.as_ref().is_some_and(|schema| failures(schema).is_empty()) {
            errors.push(nowhere(format!("{} must not validate the schema (not)", quoted())));
        }
    }
}

/// An error whose place upstream names in the detail only.
fn nowhere(detail: String) -> FieldError {
    FieldError::invalid(&FieldPath::new("<nil>"), "", detail)
}

fn in_body(path: &FieldPath, value: &Value, what: &str) -> FieldError {
    FieldError::invalid(path, value.clone(), format!("{path} in body {what}"))
}
