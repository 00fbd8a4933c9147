//! NodeUnschedulable, NodeName and NodePorts.

use std::collections::BTreeSet;

use std::sync::Arc;

use kube1_client::node_match::tolerates;

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::{HostPort, PodInfo};
use crate::queue::Events;

/// Cordoned nodes take no pods, except those that tolerate the cordon's taint.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_TAINTS
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let taint = k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        };
        let tolerations = pod.spec.tolerations.as_deref().unwrap_or(&[]);
        Ok((!tolerates(tolerations, &taint)).then(|| Box::new(Uncordoned) as Box<dyn Filter>))
    }
}

#[derive(Clone)]
struct Uncordoned;

impl Filter for Uncordoned {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.is_unschedulable() {
            return Err(Rejection::unresolvable("node(s) were unschedulable"));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// `spec.nodeName` is normally set by binding only, but may be preset in a pod that another scheduler left.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        Ok(pod.node_name().map(|name| Box::new(Named(name.to_owned())) as Box<dyn Filter>))
    }
}

#[derive(Clone)]
struct Named(String);

impl Filter for Named {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if *node.name != *self.0 {
            return Err(Rejection::unresolvable("node(s) didn't match the requested node name"));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// Host ports are taken once per node.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::POD_GONE
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let wanted = &pod.host_ports;
        Ok((!wanted.is_empty()).then(|| Box::new(FreePorts(wanted.clone())) as Box<dyn Filter>))
    }
}

#[derive(Clone)]
struct FreePorts(BTreeSet<HostPort>);

impl Filter for FreePorts {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.0.iter().any(|port| node.used_ports.iter().any(|used| used.conflicts_with(port))) {
            return Err(Rejection::resolvable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
