//! The feature gates of 1.36: which are on, and what of them is here.

/// A line for each: name, stage, `on` or `off`, and `locked` where upstream's users cannot change it.
const TABLE: &str = include_str!("data/features.txt");

/// On by default upstream, and not here: what they switch is missing, or has no meaning here.
const MISSING: [&str; 40] = [
    // The watch cache is the state itself: there is nothing to compare it with.
    "DetectCacheInconsistency",
    // Requests of the server leave by the host's own routes.
    "StructuredAuthenticationConfigurationEgressSelector",
    // Servers of one cluster are of one version.
    "UnknownVersionInteroperabilityProxy",
    // The scheduler looks at each pod for itself.
    "OpportunisticBatching",
    // Claims of devices are kept, but nothing allocates them.
    "DRAAdminAccess",
    "DRAConsumableCapacity",
    "DRADeviceBindingConditions",
    "DRADeviceTaints",
    "DRAExtendedResource",
    "DRAPartitionableDevices",
    "DRAPrioritizedList",
    "DRAResourceClaimGranularStatusAuthorization",
    "DRASchedulerFilterTimeout",
    "DynamicResourceAllocation",
    "KubeletPodResourcesDynamicResources",
    "KubeletPodResourcesGet",
    "KubeletPodResourcesListUseActivePods",
    "ResourceHealthStatus",
    "ResourceHealthStatusMessage",
    // The kubelet has no CSI drivers.
    "CSIServiceAccountTokenSecrets",
    "MutableCSINodeAllocatableCount",
    "RecoverVolumeExpansionFailure",
    // The kubelet gives no processors or memory of their own to pods.
    "CPUManagerPolicyBetaOptions",
    "CPUManagerPolicyOptions",
    "DisableCPUQuotaWithExclusiveCPUs",
    "TopologyManagerPolicyBetaOptions",
    "TopologyManagerPolicyOptions",
    // The kubelet has no setting for it, or leaves it to the runtime.
    "CustomCPUCFSQuotaPeriod",
    "GracefulNodeShutdown",
    "GracefulNodeShutdownBasedOnPodPriority",
    "KubeletCgroupDriverFromCRI",
    "KubeletSeparateDiskGC",
    "KubeletServiceAccountTokenForCredentialProviders",
    "ReloadKubeletClientCAFile",
    "SELinuxChangePolicy",
    "SELinuxMountReadWriteOncePod",
    "SystemdWatchdog",
    // Nodes run Linux.
    "WinDSR",
    "WinOverlay",
    "WindowsGracefulNodeShutdown",
];

/// One feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    /// `Alpha`, `Beta`, `GA` or `Deprecated`.
    pub stage: &'static str,
    /// Whether it is on upstream unless somebody changes that.
    pub is_default: bool,
}

impl Feature {
    /// By name.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.lines().filter_map(|line| {
            let mut words = line.split(' ');
            Some(Self { name: words.next()?, stage: words.next()?, is_default: words.next()? == "on" })
        })
    }

    /// Whether what it switches works here. That cannot be changed.
    pub fn is_on(&self) -> bool {
        self.is_default && !MISSING.contains(&self.name)
    }
}

/// Checks what `--feature-gates` asks for (`Name=true,Other=false`): the features are as they are, and whoever asks for
/// that gets it. The error says what cannot be had.
pub fn check(gates: &str) -> Result<(), String> {
    for gate in gates.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
        let (name, value) = gate.split_once('=').ok_or_else(|| format!("missing bool value for {gate}"))?;
        let wanted = match value.trim() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => return Err(format!("invalid value of {name}={other}: it must be true or false")),
        };
        let is_on = match name.trim() {
            "AllAlpha" => false,
            "AllBeta" => return Err("AllBeta: features of this stage can neither all be on nor all be off".into()),
            name => match Feature::all().find(|feature| feature.name == name) {
                Some(feature) => feature.is_on(),
                None => return Err(format!("unrecognized feature gate: {name}")),
            },
        };
        match (wanted, is_on) {
            (true, false) => return Err(format!("{gate}: this feature is not here")),
            (false, true) => return Err(format!("{gate}: this feature cannot be switched off")),
            _ => {}
        }
    }
    Ok(())
}

/// What is on as a metric in the text format of Prometheus, under upstream's name. Made when it is asked for.
pub fn metric() -> String {
    let mut text = String::from(
        "# HELP kubernetes_feature_enabled [BETA] This metric records the data about the stage and enablement of a k8s \
         feature.\n# TYPE kubernetes_feature_enabled gauge\n",
    );
    for feature in Feature::all() {
        let stage = if feature.stage == "GA" { String::new() } else { feature.stage.to_uppercase() };
        let (name, on) = (feature.name, u8::from(feature.is_on()));
        text.push_str(&format!("kubernetes_feature_enabled{{name=\"{name}\",stage=\"{stage}\"}} {on}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_feature_that_is_on_upstream() {
        let default: Vec<&str> = Feature::all().filter(|f| f.is_default).map(|f| f.name).collect();
        assert_eq!((Feature::all().count(), default.len()), (225, 160));
        assert!(MISSING.iter().all(|name| default.contains(name)), "{MISSING:?}");
    }

    #[test]
    fn gates_may_be_named_as_they_are() {
        for (gates, said) in [
            ("", None),
            ("WatchList=true, AllAlpha=false,OpportunisticBatching=false,GangScheduling=0", None),
            ("WatchList=false", Some("cannot be switched off")),
            ("GangScheduling=true", Some("is not here")),
            ("AllAlpha=true", Some("is not here")),
            ("AllBeta=true", Some("AllBeta")),
            ("Nothing=true", Some("unrecognized feature gate: Nothing")),
            ("WatchList", Some("missing bool value for WatchList")),
            ("WatchList=maybe", Some("must be true or false")),
        ] {
            match (check(gates), said) {
                (Ok(()), None) => {}
                (Err(why), Some(said)) => assert!(why.contains(said), "{why}"),
                (found, _) => panic!("{gates}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_metric_tells_what_is_here() {
        let text = metric();
        assert!(text.contains("kubernetes_feature_enabled{name=\"WatchList\",stage=\"BETA\"} 1\n"), "{text}");
        assert!(text.contains("{name=\"SidecarContainers\",stage=\"\"} 1\n"));
        assert!(text.contains("{name=\"GangScheduling\",stage=\"ALPHA\"} 0\n"));
    }
}
