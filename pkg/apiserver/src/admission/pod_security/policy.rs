//! What the labels of a namespace ask for.

use std::fmt;

use kube1_api::field::{FieldError, FieldPath};

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// A version of the standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Latest,
    Minor(u32),
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| plain).map(Self::Minor)
    }

    /// No check is newer than the latest version.
    pub fn minor(self) -> u32 {
        match self {
            Self::Latest => u32::MAX,
            Self::Minor(minor) => minor,
        }
    }
}

/// A level at a version of the standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", LEVELS[self.level as usize])?;
        match self.version {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// What a namespace asks for.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub enforce: Policy,
    pub audit: Policy,
    pub warn: Policy,
    /// Labels that say nothing.
    pub errors: Vec<FieldError>,
}

/// What namespaces are asked that say nothing themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defaults {
    pub enforce: Policy,
    pub audit: Policy,
    pub warn: Policy,
}

/// A level as it is written.
pub(super) fn level(text: &str) -> Option<Level> {
    let levels = [Level::Privileged, Level::Baseline, Level::Restricted];
    levels.into_iter().zip(LEVELS).find(|(_, name)| *name == text).map(|(level, _)| level)
}

/// `level` at `version` as a configuration writes them; what is empty is privileged, and latest.
pub(super) fn policy(mode: &str, level_text: &str, version: &str) -> Result<Policy, String> {
    let level = match level_text {
        "" => Some(Level::Privileged),
        text => level(text),
    };
    let level = level.ok_or_else(|| format!("defaults.{mode} {level_text:?} must be one of {}", LEVELS.join(", ")))?;
    let parsed = if version.is_empty() { Some(Version::Latest) } else { Version::parse(version) };
    let why = || format!("defaults.{mode}-version {version:?} must be \"latest\" or \"v1.x\"");
    Ok(Policy { level, version: parsed.ok_or_else(why)? })
}

impl Policies {
    /// An unreadable level is the strictest one where it is enforced, and none elsewhere.
    pub fn of<'a>(defaults: Defaults, label: impl Fn(&str) -> Option<&'a str>) -> Self {
        let mut policies = Self::default();
        let path = FieldPath::new("metadata").child("labels");
        let (mut enforces, mut warn) = (false, (false, false));
        for mode in ["enforce", "audit", "warn"] {
            let mut policy = match mode {
                "enforce" => defaults.enforce,
                "audit" => defaults.audit,
                _ => defaults.warn,
            };
            let key = format!("{PREFIX}{mode}");
            if let Some(text) = label(&key) {
                let known = level(text);
                enforces |= mode == "enforce" && known.is_some();
                warn.0 |= mode == "warn";
                let unknown = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                policy.level = known.unwrap_or(unknown);
                if known.is_none() {
                    let why = format!("must be one of {}", LEVELS.join(", "));
                    policies.errors.push(FieldError::invalid(&path.key(&key), text, why));
                }
            }
            let key = format!("{key}-version");
            if let Some(text) = label(&key) {
                warn.1 |= mode == "warn";
                let known = Version::parse(text);
                policy.version = known.unwrap_or_default();
                if known.is_none() {
                    let why = "must be \"latest\" or \"v1.x\"";
                    policies.errors.push(FieldError::invalid(&path.key(&key), text, why));
                }
            }
            match mode {
                "enforce" => policies.enforce = policy,
                "audit" => policies.audit = policy,
                _ => policies.warn = policy,
            }
        }
        // Those who make workloads are warned of what will be enforced on their pods.
        if !warn.0 && enforces && policies.enforce.level > policies.warn.level {
            policies.warn.level = policies.enforce.level;
            if !warn.1 {
                policies.warn.version = policies.enforce.version;
            }
        }
        policies
    }

    /// What is wrong with the labels.
    pub fn complaint(&self) -> Option<String> {
        super::together(self.errors.iter().map(ToString::to_string))
    }
}
