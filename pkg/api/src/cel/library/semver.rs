//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Row;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("semver", "string_to_semver", "(string) -> kubernetes.Semver", make),
    ("semver", "string_bool_to_semver", "(string, bool) -> kubernetes.Semver", make),
    ("isSemver", "is_semver_string", "(string) -> bool", |c| Ok(read(c)?.is_ok().into())),
    ("isSemver", "is_semver_string_bool", "(string, bool) -> bool", |c| Ok(read(c)?.is_ok().into())),
    ("isGreaterThan", "semver_is_greater_than", "kubernetes.Semver.(kubernetes.Semver) -> bool", |c| {
        Ok(compare(c)?.is_gt().into())
    }),
    ("isLessThan", "semver_is_less_than", "kubernetes.Semver.(kubernetes.Semver) -> bool", |c| {
        Ok(compare(c)?.is_lt().into())
    }),
    ("compareTo", "semver_compare_to", "kubernetes.Semver.(kubernetes.Semver) -> int", |c| {
        Ok(Value::Int(compare(c)? as i64))
    }),
    ("major", "semver_major", "kubernetes.Semver.() -> int", |c| part(c, 0)),
    ("minor", "semver_minor", "kubernetes.Semver.() -> int", |c| part(c, 1)),
    ("patch", "semver_patch", "kubernetes.Semver.() -> int", |c| part(c, 2)),
];

#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    before: Vec<Part>,
}

/// A part of what comes before a release.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    pub(in crate::cel) fn cmp(&self, other: &Self) -> Ordering {
        let before = || match (self.before.is_empty(), other.before.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.before.cmp(&other.before),
        };
        self.numbers.cmp(&other.numbers).then_with(before)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
        let mut numbers = [0; 3];
        for ((number, text), name) in numbers.iter_mut().zip([major, minor, patch]).zip(["major", "minor", "patch"]) {
            *number = number_of(text).map_err(|why| format!("{why} {name} number {text:?}"))?;
        }
        let words = |text: &str, what: &str| {
            let fine = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if text.split('.').all(fine) {
                Ok(())
            } else {
                Err(format!("Invalid character(s) found in {what} {text:?}"))
            }
        };
        build.map_or(Ok(()), |build| words(build, "build meta data"))?;
        let mut found = Vec::new();
        if let Some(before) = before {
            words(before, "prerelease")?;
            for word in before.split('.') {
                found.push(match number_of(word) {
                    Ok(number) => Part::Number(number),
                    Err("Invalid character(s) found in") => Part::Word(word.into()),
                    Err(_) => {
                        return Err(format!("Numeric PreRelease version must not contain leading zeroes {word:?}"));
                    }
                });
            }
        }
        Ok(Self { numbers, before: found })
    }
}

fn number_of(text: &str) -> Result<u64, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("Invalid character(s) found in");
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("Version number must not contain leading zeroes:");
    }
    text.parse().map_err(|_| "Value out of range:")
}

/// Drops a leading v, adds what is missing and drops leading zeros.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in parts.iter_mut().filter(|p| p.len() > 1) {
        let cut = part.trim_start_matches('0');
        *part = if cut.starts_with(|c: char| c.is_ascii_digit()) { cut.to_owned() } else { format!("0{cut}") };
    }
    // What follows a short version belongs to its end.
    if parts.len() < 3
        && let Some(last) = parts.last().cloned()
        && !last.contains(['+', '-'])
    {
        parts.resize(3, "0".into());
    }
    parts.join(".")
}

fn read(call: &Call<'_, '_>) -> Result<Result<Version, String>, Error> {
    let text = call.text(0)?;
    let normalize = matches!(call.arg(1), Value::Bool(true));
    Ok(if normalize { Version::parse(&normalized(&text)) } else { Version::parse(&text) })
}

fn make<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    read(call)?.map(|version| Extension::Semver(Arc::new(version)).into()).map_err(Error::failed)
}

fn version(call: &Call<'_, '_>, index: usize) -> Result<Arc<Version>, Error> {
    match call.arg(index) {
        Value::Extension(Extension::Semver(version)) => Ok(version.clone()),
        _ => Err(Error::no_overload()),
    }
}

fn compare(call: &Call<'_, '_>) -> Result<Ordering, Error> {
    Ok(version(call, 0)?.cmp(&*version(call, 1)?))
}

fn part<'a>(call: &mut Call<'a, '_>, index: usize) -> Evaluated<'a> {
    Ok(Value::Int(i64::try_from(version(call, 0)?.numbers[index]).unwrap_or(i64::MAX)))
}
