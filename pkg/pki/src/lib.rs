//! Certificate authorities, leaf certificates, service-account keys and kubeconfigs.
