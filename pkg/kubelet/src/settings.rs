//! A node's settings from a file: a `KubeletConfiguration`, as far as this kubelet has what it sets.

use std::time::Duration;

use kube1_api::quantity::Quantity;
use serde_json::Value;

/// What a node can be told besides its flags, with upstream's names and defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub max_pods: u32,
    /// Bytes at which a log is put aside, and how many files of a container are kept.
    pub container_log_max_size: u64,
    pub container_log_max_files: usize,
    /// Images are collected when the disk is fuller than this (percent), until it is this full.
    pub image_gc_high: u64,
    pub image_gc_low: u64,
    /// An image that nothing has used for this long may go, and one that nothing has used for that long must.
    pub image_minimum_gc_age: Duration,
    pub image_maximum_gc_age: Option<Duration>,
    /// The longest wait before a crashing container is started again (KEP-4603).
    pub crash_loop_max: Duration,
    pub max_parallel_image_pulls: usize,
    /// Names of kernel settings that pods may have besides the safe ones; a `*` at the end stands for anything.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether `/logs` is served, and whether it answers queries of the logs of services.
    pub system_log_handler: bool,
    pub system_log_query: bool,
    /// Containers that say nothing of seccomp get the runtime's own profile.
    pub seccomp_default: bool,
    /// What is kept from pods (`kubeReserved` and `systemReserved` together).
    pub reserved_cpu_millis: i64,
    pub reserved_memory: i64,
    pub reserved_storage: i64,
    /// `evictionHard` as `--eviction-hard` has it.
    pub eviction_hard: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_pods: 110,
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            image_gc_high: 85,
            image_gc_low: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: None,
            crash_loop_max: CRASH_LOOP_MAX,
            max_parallel_image_pulls: 4,
            allowed_unsafe_sysctls: Vec::new(),
            system_log_handler: true,
            system_log_query: false,
            seccomp_default: false,
            reserved_cpu_millis: 0,
            reserved_memory: 0,
            reserved_storage: 0,
            eviction_hard: None,
        }
    }
}

/// Everything that is wrong with a file of settings, one mistake in a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(Vec<String>);

const CRASH_LOOP_MAX: Duration = Duration::from_secs(300);
/// Settings of which this kubelet has one value only.
const FIXED: &[(&str, &[&str])] = &[
    ("cgroupDriver", &["cgroupfs"]),
    ("cgroupsPerQOS", &["true"]),
    ("cpuCFSQuota", &["true"]),
    ("cpuManagerPolicy", &["none"]),
    ("enableServer", &["true"]),
    ("failCgroupV1", &["false"]),
    ("failSwapOn", &["false"]),
    ("imagePullCredentialsVerificationPolicy", &["NeverVerifyPreloadedImages"]),
    ("localStorageCapacityIsolation", &["true"]),
    ("memoryManagerPolicy", &["None"]),
    ("protectKernelDefaults", &["false"]),
    ("registerNode", &["true"]),
    ("rotateCertificates", &["true"]),
    ("serializeImagePulls", &["false"]),
    ("serverTLSBootstrap", &["true"]),
    ("shutdownGracePeriod", &["0s"]),
    ("shutdownGracePeriodCriticalPods", &["0s"]),
    ("topologyManagerPolicy", &["none"]),
    ("topologyManagerScope", &["container"]),
];

/// Takes a setting from the file, or says that its value is none for it.
type Take = fn(&mut Settings, &Value) -> Option<()>;

/// Name, what its value must be, and how it is taken.
const KNOWN: &[(&str, &str, Take)] = &[
    ("maxPods", "a number from 1 to 1000", |s, v| set(&mut s.max_pods, number(v, 1, 1000)? as u32)),
    ("containerLogMaxSize", "an amount such as 10Mi", |s, v| {
        set(&mut s.container_log_max_size, u64::try_from(amount(v)?.units()).ok().filter(|size| *size > 0)?)
    }),
    ("containerLogMaxFiles", "a number from 2", |s, v| {
        set(&mut s.container_log_max_files, number(v, 2, 10_000)? as usize)
    }),
    ("imageGCHighThresholdPercent", "a number from 0 to 100", |s, v| set(&mut s.image_gc_high, number(v, 0, 100)?)),
    ("imageGCLowThresholdPercent", "a number from 0 to 100", |s, v| set(&mut s.image_gc_low, number(v, 0, 100)?)),
    ("imageMinimumGCAge", "a time such as 2m", |s, v| set(&mut s.image_minimum_gc_age, duration(v)?)),
    ("imageMaximumGCAge", "a time such as 12h", |s, v| {
        set(&mut s.image_maximum_gc_age, Some(duration(v)?).filter(|age| !age.is_zero()))
    }),
    ("crashLoopBackOff", "maxContainerRestartPeriod from 1s to 5m", |s, v| {
        let period = duration(v.as_object().filter(|members| members.len() == 1)?.get("maxContainerRestartPeriod")?)?;
        let allowed = Duration::from_secs(1)..=CRASH_LOOP_MAX;
        set(&mut s.crash_loop_max, Some(period).filter(|p| allowed.contains(p))?)
    }),
    ("maxParallelImagePulls", "a number from 1", |s, v| {
        set(&mut s.max_parallel_image_pulls, number(v, 1, 1000)? as usize)
    }),
    ("allowedUnsafeSysctls", "a list of names", |s, v| {
        let names = v.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
        set(&mut s.allowed_unsafe_sysctls, names.collect::<Option<_>>()?)
    }),
    ("enableSystemLogHandler", "true or false", |s, v| set(&mut s.system_log_handler, v.as_bool()?)),
    ("enableSystemLogQuery", "true or false", |s, v| set(&mut s.system_log_query, v.as_bool()?)),
    ("seccompDefault", "true or false", |s, v| set(&mut s.seccomp_default, v.as_bool()?)),
    ("systemReserved", "amounts of cpu, memory and ephemeral-storage", reserve),
    ("kubeReserved", "amounts of cpu, memory and ephemeral-storage", reserve),
    ("evictionHard", "thresholds of memory.available, nodefs.available and nodefs.inodesFree", |s, v| {
        let parts = v.as_object()?.iter().map(|(signal, amount)| Some(format!("{signal}<{}", amount.as_str()?)));
        let text = parts.collect::<Option<Vec<_>>>()?.join(",");
        text.parse::<crate::EvictionThresholds>().ok()?;
        set(&mut s.eviction_hard, Some(text))
    }),
];

fn set<T>(slot: &mut T, value: T) -> Option<()> {
    *slot = value;
    Some(())
}

impl Settings {
    /// Reads a `KubeletConfiguration` in YAML or JSON. What is not set keeps its default. Every setting that this kubelet
    /// does not have, or not with this value, is an error: none is passed over in silence.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let value: Value = serde_saphyr::from_str(text).map_err(|e| SettingsError(vec![e.to_string()]))?;
        let Value::Object(members) = value else { return Err(SettingsError(vec!["expected an object".to_owned()])) };
        let (mut settings, mut wrong) = (Self::default(), Vec::new());
        for (name, wanted) in [("apiVersion", "kubelet.config.k8s.io/v1beta1"), ("kind", "KubeletConfiguration")] {
            if members.get(name).and_then(Value::as_str) != Some(wanted) {
                wrong.push(format!("{name}: expected {wanted}"));
            }
        }
        for (name, value) in members.iter().filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")) {
            if let Some((_, expected, take)) = KNOWN.iter().find(|(known, ..)| known == name) {
                if take(&mut settings, value).is_none() {
                    wrong.push(format!("{name}: {value} is not {expected}"));
                }
            } else if let Some((_, allowed)) = FIXED.iter().find(|(known, _)| known == name) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if !allowed.contains(&text.as_str()) {
                    wrong.push(format!("{name}: {value} is not supported by this node, only {}", allowed.join(", ")));
                }
            } else {
                wrong.push(format!("{name}: this node has no such setting"));
            }
        }
        if settings.image_gc_low >= settings.image_gc_high && wrong.is_empty() {
            wrong.push("imageGCLowThresholdPercent must be below imageGCHighThresholdPercent".to_owned());
        }
        if wrong.is_empty() { Ok(settings) } else { Err(SettingsError(wrong)) }
    }

    /// Whether pods may have a kernel setting that is not among the safe ones.
    pub fn allows_sysctl(&self, name: &str) -> bool {
        self.allowed_unsafe_sysctls.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == allowed,
        })
    }
}

fn reserve(settings: &mut Settings, value: &Value) -> Option<()> {
    for (resource, text) in value.as_object()? {
        let amount = amount(text).filter(|amount| amount.millis() >= 0)?;
        match resource.as_str() {
            "cpu" => settings.reserved_cpu_millis += amount.millis(),
            "memory" => settings.reserved_memory += amount.units(),
            "ephemeral-storage" => settings.reserved_storage += amount.units(),
            _ => return None,
        }
    }
    Some(())
}

fn number(value: &Value, least: u64, most: u64) -> Option<u64> {
    value.as_u64().filter(|number| (least..=most).contains(number))
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)).ok()
}

/// A time as Go writes it, such as `1h30m` or `1.5s`.
fn duration(value: &Value) -> Option<Duration> {
    let mut rest = value.as_str()?;
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() || sum.is_zero() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let seconds = match &after[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = &after[unit..];
        if rest.is_empty() {
            break;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn what_is_set_is_taken() {
        let text = "maxPods: 20\ncontainerLogMaxSize: 1Mi\nimageMaximumGCAge: 12h30m\ncpuManagerPolicy: none\n\
            crashLoopBackOff: {maxContainerRestartPeriod: 2s}\nallowedUnsafeSysctls: [kernel.msg*, net.core.somaxconn]\n\
            systemReserved: {cpu: 500m, memory: 1Gi}\nkubeReserved: {cpu: 1, ephemeral-storage: 2Gi}\n\
            evictionHard: {memory.available: 5%}\nseccompDefault: true\n";
        let settings = Settings::parse(&format!("{HEAD}{text}")).expect("settings");
        assert_eq!((settings.max_pods, settings.container_log_max_size), (20, 1 << 20));
        assert_eq!(settings.image_maximum_gc_age, Some(Duration::from_secs(45_000)));
        assert_eq!(settings.crash_loop_max, Duration::from_secs(2));
        assert_eq!((settings.reserved_cpu_millis, settings.reserved_memory), (1500, 1 << 30));
        assert_eq!(settings.reserved_storage, 2 << 30);
        assert_eq!(settings.eviction_hard.as_deref(), Some("memory.available<5%"));
        assert!(settings.seccomp_default && settings.system_log_handler);
        let allowed = ["kernel.msgmax", "net.core.somaxconn", "net.core.somaxconn2", "kernel.sem"];
        assert_eq!(allowed.map(|name| settings.allows_sysctl(name)), [true, true, false, false]);
        assert_eq!(Settings::parse(HEAD), Ok(Settings::default()));
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (text, expected) in [
            ("maxPods: 0\n", "maxPods: 0 is not a number from 1 to 1000"),
            ("cpuManagerPolicy: static\n", "cpuManagerPolicy: \"static\" is not supported by this node, only none"),
            ("serializeImagePulls: true\n", "serializeImagePulls: true is not supported by this node, only false"),
            ("featureGates: {}\n", "featureGates: this node has no such setting"),
            (
                "crashLoopBackOff: {maxContainerRestartPeriod: 6m}\n",
                "crashLoopBackOff: {\"maxContainerRestartPeriod\":\"6m\"} is not maxContainerRestartPeriod from 1s to 5m",
            ),
            (
                "imageGCLowThresholdPercent: 90\n",
                "imageGCLowThresholdPercent must be below imageGCHighThresholdPercent",
            ),
            ("imageMinimumGCAge: 5\n", "imageMinimumGCAge: 5 is not a time such as 2m"),
        ] {
            let refused = Settings::parse(&format!("{HEAD}{text}")).expect_err(text);
            assert_eq!(refused.to_string(), expected);
        }
        let refused = Settings::parse("kind: Pod\nx: 1\ny: 2\n").expect_err("many mistakes").to_string();
        assert_eq!(refused.lines().count(), 4, "{refused}");
        for text in ["", "[]", "1", "a: b: c"] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
    }
}
