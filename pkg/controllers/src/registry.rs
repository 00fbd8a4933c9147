//! The table of controllers.

use crate::endpoints::{legacy, mirror, slices};
use crate::job::ttl;
use crate::manager::Entry;
use crate::node::{self, eviction, ipam, lifecycle, pod_gc};
use crate::volume::{binder, ephemeral, protection};
use crate::{
    account_tokens, autoscaler, certificates, cron_job, daemon_set, deployment, disruption, garbage, job, namespace,
    policy_status, quota, replica_set, service_account, service_lb, stateful_set, tokens,
};

macro_rules! controllers {
    ($($name:literal as $account:literal: $run:path,)*) => {
        &[$(Entry { name: $name, account: $account, run: |controller| Box::pin($run(controller)) }),*]
    };
}

/// Every controller by upstream's name, with its service account.
pub(crate) const CONTROLLERS: &[Entry] = controllers![
    "deployment-controller" as "deployment-controller": deployment::run,
    "replicaset-controller" as "replicaset-controller": replica_set::run_replica_sets,
    "replicationcontroller-controller" as "replication-controller": replica_set::run_replication_controllers,
    "serviceaccount-controller" as "service-account-controller": service_account::run_default_accounts,
    "root-ca-certificate-publisher-controller" as "root-ca-cert-publisher": service_account::run_root_ca_publisher,
    "namespace-controller" as "namespace-controller": namespace::run,
    "endpointslice-controller" as "endpointslice-controller": slices::run,
    "endpoints-controller" as "endpoint-controller": legacy::run,
    "endpointslice-mirroring-controller" as "endpointslicemirroring-controller": mirror::run,
    "garbage-collector-controller" as "generic-garbage-collector": garbage::run,
    "node-lifecycle-controller" as "node-controller": lifecycle::run,
    "taint-eviction-controller" as "node-controller": eviction::run,
    "node-ipam-controller" as "node-controller": ipam::run,
    "pod-garbage-collector-controller" as "pod-garbage-collector": pod_gc::run,
    "certificatesigningrequest-approving-controller" as "certificate-controller": certificates::run_approver,
    "certificatesigningrequest-signing-controller" as "certificate-controller": certificates::run_signer,
    "certificatesigningrequest-cleaner-controller" as "certificate-controller": certificates::run_cleaner,
    "daemonset-controller" as "daemon-set-controller": daemon_set::run,
    "statefulset-controller" as "statefulset-controller": stateful_set::run,
    "job-controller" as "job-controller": job::run,
    "ttl-after-finished-controller" as "ttl-after-finished-controller": ttl::run,
    "cronjob-controller" as "cronjob-controller": cron_job::run,
    "horizontal-pod-autoscaler-controller" as "horizontal-pod-autoscaler": autoscaler::run,
    "resourcequota-controller" as "resourcequota-controller": quota::run,
    "disruption-controller" as "disruption-controller": disruption::run,
    "persistentvolume-binder-controller" as "persistent-volume-binder": binder::run,
    "persistentvolumeclaim-protection-controller" as "pvc-protection-controller": protection::run_claims,
    "persistentvolume-protection-controller" as "pv-protection-controller": protection::run_volumes,
    "volumeattributesclass-protection-controller" as "volumeattributesclass-protection-controller": protection::run_classes,
    "ephemeral-volume-controller" as "ephemeral-volume-controller": ephemeral::run,
    "serviceaccount-token-controller" as "tokens-controller": account_tokens::run,
    "token-cleaner-controller" as "token-cleaner": tokens::run,
    "ttl-controller" as "ttl-controller": node::ttl::run,
    "validatingadmissionpolicy-status-controller" as "validatingadmissionpolicy-status-controller": policy_status::run,
    "service-lb-controller" as "service-controller": service_lb::run,
];
