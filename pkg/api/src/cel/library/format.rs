//! Named formats of strings.

use super::Row;
use super::url::Url;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::time;
use crate::cel::value::{Error, Evaluated, Value};
use crate::validate::format as formats;

/// A format, and how long a regular expression for it would be, which is what checking it costs.
#[derive(Debug)]
pub struct Named {
    pub(in crate::cel) name: &'static str,
    pub(in crate::cel) regex_size: u64,
    /// What is wrong with a text.
    check: fn(&str) -> Vec<String>,
}

const fn named(name: &'static str, regex_size: u64, check: fn(&str) -> Vec<String>) -> Named {
    Named { name, regex_size, check }
}

static FORMATS: [Named; 13] = [
    named("dns1123Label", 30, formats::dns_label),
    named("dns1123Subdomain", 60, formats::dns_subdomain),
    named("dns1035Label", 30, formats::dns1035_label),
    named("qualifiedName", 60, formats::qualified_name),
    named("dns1123LabelPrefix", 30, |text| formats::dns_label(&prefix(text))),
    named("dns1123SubdomainPrefix", 60, |text| formats::dns_subdomain(&prefix(text))),
    named("dns1035LabelPrefix", 30, |text| formats::dns1035_label(&prefix(text))),
    named("labelValue", 40, formats::label_value),
    named("uri", 2000, |text| Url::read(text).err().into_iter().collect()),
    named("uuid", 81, |text| unless(is_uuid(text), "does not match the UUID format")),
    named("byte", 84, |text| unless(is_base64(text), "invalid base64")),
    named("date", 92, |text| unless(time::read_date(text).is_some(), "invalid date")),
    named("datetime", 92, |text| unless(time::read_timestamp(text).is_some(), "invalid datetime")),
];

macro_rules! row {
    ($index:literal, $function:literal) => {
        ($function, $function, "() -> kubernetes.NamedFormat", |_| Ok(Extension::Format(&FORMATS[$index]).into()))
    };
}

pub(super) const ROWS: &[Row] = &[
    row!(0, "format.dns1123Label"),
    row!(1, "format.dns1123Subdomain"),
    row!(2, "format.dns1035Label"),
    row!(3, "format.qualifiedName"),
    row!(4, "format.dns1123LabelPrefix"),
    row!(5, "format.dns1123SubdomainPrefix"),
    row!(6, "format.dns1035LabelPrefix"),
    row!(7, "format.labelValue"),
    row!(8, "format.uri"),
    row!(9, "format.uuid"),
    row!(10, "format.byte"),
    row!(11, "format.date"),
    row!(12, "format.datetime"),
    ("format.named", "format-named", "(string) -> optional(kubernetes.NamedFormat)", |c| {
        let name = c.text(0)?;
        let found = FORMATS.iter().find(|f| f.name == &*name);
        Ok(found.map_or(Value::NONE, |found| Value::some(Extension::Format(found).into())))
    }),
    ("validate", "format-validate", "kubernetes.NamedFormat.(string) -> optional(list(string))", validate),
];

fn validate<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let Value::Extension(Extension::Format(format)) = call.arg(0) else { return Err(Error::no_overload()) };
    let problems: Vec<Value<'a>> = (format.check)(&call.text(1)?).into_iter().map(Value::from).collect();
    Ok(if problems.is_empty() { Value::NONE } else { Value::some(problems.into()) })
}

fn unless(fine: bool, why: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![why.to_owned()] }
}

/// A prefix may end in a dash, which what follows it makes right.
fn prefix(text: &str) -> String {
    text.strip_suffix('-').map_or_else(|| text.to_owned(), |text| format!("{text}a"))
}

fn is_uuid(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    digits.len() == 32
        && digits.chars().all(|c| c.is_ascii_hexdigit())
        && (text.len() == 32
            || [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-')) && text.len() == 36)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
