//! Values of the types that Kubernetes adds to CEL.

use std::sync::Arc;

use super::library::{authorizer, format, network, semver, url};
use super::types::Type;
use crate::quantity::Quantity;

#[derive(Clone, Debug)]
pub enum Extension {
    Url(Arc<url::Url>),
    Ip(std::net::IpAddr),
    Cidr(network::Cidr),
    Quantity(Quantity),
    Semver(Arc<semver::Version>),
    Format(&'static format::Named),
    Authorizer(Arc<authorizer::Question>),
    PathCheck(Arc<authorizer::Question>),
    GroupCheck(Arc<authorizer::Question>),
    ResourceCheck(Arc<authorizer::Question>),
    Decision(Arc<authorizer::Answer>),
}

impl Extension {
    pub(super) fn ty(&self) -> Type {
        match self {
            Self::Ip(_) => Type::Opaque("net.IP".into()),
            Self::Cidr(_) => Type::Opaque("net.CIDR".into()),
            other => Type::object(other.type_name()),
        }
    }

    const fn type_name(&self) -> &'static str {
        match self {
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Self::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Self::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// Bytes of addresses, for the cost of comparing them.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Self::Cidr(cidr) => u64::from(cidr.bits.div_ceil(8)),
            _ => 1,
        }
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Url(a), Self::Url(b)) => a.text == b.text,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a.partial_cmp(b) == Some(std::cmp::Ordering::Equal),
            (Self::Semver(a), Self::Semver(b)) => a.cmp(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            (Self::Decision(a), Self::Decision(b)) => a == b,
            (Self::Authorizer(a), Self::Authorizer(b))
            | (Self::PathCheck(a), Self::PathCheck(b))
            | (Self::GroupCheck(a), Self::GroupCheck(b))
            | (Self::ResourceCheck(a), Self::ResourceCheck(b)) => a == b,
            _ => false,
        }
    }
}
