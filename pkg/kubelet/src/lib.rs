//! The node agent: pod lifecycle, volumes, probes, images, node status and its HTTPS API.

#![allow(dead_code)] // The parts are joined by the pod worker, which follows.

mod cgroup;
mod config;
mod container;
mod dns;
mod downward;
mod env;
mod expand;
mod labels;
mod object_cache;
mod pod;
mod resources;
mod sandbox;
mod token;
mod volume;

pub use config::KubeletConfig;
