//! Values as Go prints them: messages that clients compare have them in this form.

use serde_json::Value;

/// The value as `%v` prints it.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number),
        Value::Bool(value) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}:{}", plain(value))).collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

/// The value as `%#v` prints it.
pub(crate) fn source(value: &Value) -> String {
    let list = |parts: Vec<String>| format!("{}{{{}}}", type_name(value), parts.join(", "));
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Array(items) => list(items.iter().map(source).collect()),
        Value::Object(members) => {
            list(members.iter().map(|(name, value)| format!("{name:?}:{}", source(value))).collect())
        }
        Value::Number(number) => number_text(number),
        value => value.to_string(),
    }
}

/// The type as `%T` prints it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A float has an exponent as soon as it is long.
fn number_text(number: &serde_json::Number) -> String {
    let Some(float) = number.as_f64().filter(|_| !number.is_i64()) else { return number.to_string() };
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    float.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_look_as_go_prints_them() {
        for (value, shown, in_source) in [
            (json!(null), "<nil>", "interface {}(nil)"),
            (json!("a b"), "a b", "\"a b\""),
            (json!(5), "5", "5"),
            (json!(1.0), "1", "1"),
            (json!(1e21), "1e+21", "1e+21"),
            (json!(0.00001), "1e-05", "1e-05"),
            (json!([1, "a"]), "[1 a]", "[]interface {}{1, \"a\"}"),
            (json!({"b": true, "a": [null]}), "map[a:[<nil>] b:true]", {
                "map[string]interface {}{\"a\":[]interface {}{interface {}(nil)}, \"b\":true}"
            }),
        ] {
            assert_eq!((plain(&value).as_str(), source(&value).as_str()), (shown, in_source), "{value}");
        }
    }
}
