//! The environment of a container.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, FileKeySelector, Pod, Service, ServicePort};
use kube1_client::{Keep, ObjectKey};

use crate::downward::{self, DownwardError, PodFacts};
use crate::env_file::{self, EnvFileError};
use crate::expand::expand;
use crate::object_cache::{ObjectCache, ObjectError};
use crate::pod::PodExt;
use crate::volume::{Volumes, read_inside};

/// Why a container's environment cannot be made; the text is what `kubectl describe` shows.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    #[error("{0}")]
    Object(ObjectError),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{0}")]
    Downward(DownwardError),
    #[error("couldn't find key {key} in file {path} of volume {volume}")]
    FileKey { volume: String, path: String, key: String },
    #[error("volume {0} is not there")]
    NoVolume(String),
    #[error("couldn't read file {path} of volume {volume}: {source}")]
    File { volume: String, path: String, source: std::io::Error },
    #[error("couldn't parse file {path} of volume {volume}: {source}")]
    Syntax { volume: String, path: String, source: EnvFileError },
}

/// What a container's variables may come from.
pub struct EnvSources<'a> {
    pub pod: &'a Pod,
    pub facts: &'a PodFacts,
    pub objects: &'a ObjectCache,
    /// The services that the pod sees as variables.
    pub services: Vec<Arc<KnownService>>,
    pub volumes: &'a Volumes,
}

/// The variables of a container, in order; a later one of the same name has taken an earlier one's place.
pub async fn container_env(sources: &EnvSources<'_>, container: &Container) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Variables::default();
    let service_env = service_variables(&sources.services);
    env_from(sources, container, &mut env).await?;
    for variable in container.env.iter().flatten() {
        let value = value_of(sources, container, variable, &env, &service_env).await?;
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    // Service variables yield to what the container sets itself.
    for (name, value) in service_env {
        if env.get(&name).is_none() {
            env.set(&name, value);
        }
    }
    Ok(env.list)
}

#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<&String> {
        self.list.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.list.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }
}

async fn env_from(sources: &EnvSources<'_>, container: &Container, env: &mut Variables) -> Result<(), EnvError> {
    let (uid, namespace) = (sources.pod.uid(), sources.pod.namespace());
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        if let Some(reference) = &source.config_map_ref {
            let map = sources.objects.config_map(uid, namespace, &reference.name).await;
            if let Some(map) = optional(map, reference.optional)? {
                values.extend(map.data.clone().unwrap_or_default());
            }
        }
        if let Some(reference) = &source.secret_ref {
            let secret = sources.objects.secret(uid, namespace, &reference.name).await;
            if let Some(secret) = optional(secret, reference.optional)? {
                let text = |b: &k8s_openapi::ByteString| String::from_utf8_lossy(&b.0).into_owned();
                values.extend(secret.data.iter().flatten().map(|(k, v)| (k.clone(), text(v))));
            }
        }
        for (key, value) in values.into_iter().filter(|(key, _)| !key.contains('=')) {
            env.set(&format!("{prefix}{key}"), value);
        }
    }
    Ok(())
}

async fn value_of(
    sources: &EnvSources<'_>,
    container: &Container,
    variable: &EnvVar,
    env: &Variables,
    service_env: &BTreeMap<String, String>,
) -> Result<Option<String>, EnvError> {
    let (uid, namespace) = (sources.pod.uid(), sources.pod.namespace());
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        let lookup = |name: &str| env.get(name).or_else(|| service_env.get(name)).cloned();
        return Ok(Some(expand(text, lookup)));
    };
    if let Some(selector) = &from.field_ref {
        return downward::field(sources.pod, sources.facts, selector).map(Some).map_err(EnvError::Downward);
    }
    if let Some(selector) = &from.resource_field_ref {
        let value = downward::resource(sources.pod, sources.facts, selector, Some(container));
        return value.map(Some).map_err(EnvError::Downward);
    }
    if let Some(selector) = &from.config_map_key_ref {
        let map = sources.objects.config_map(uid, namespace, &selector.name).await;
        let Some(map) = optional(map, selector.optional)? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|d| d.get(&selector.key)).cloned();
        return required(value, selector.optional, "ConfigMap", namespace, &selector.name, &selector.key);
    }
    if let Some(selector) = &from.secret_key_ref {
        let secret = sources.objects.secret(uid, namespace, &selector.name).await;
        let Some(secret) = optional(secret, selector.optional)? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|d| d.get(&selector.key));
        let value = value.map(|b| String::from_utf8_lossy(&b.0).into_owned());
        return required(value, selector.optional, "Secret", namespace, &selector.name, &selector.key);
    }
    if let Some(selector) = &from.file_key_ref {
        return file_value(sources.volumes, selector);
    }
    Ok(Some(String::new()))
}

/// A value that another container of the pod has left in a file.
fn file_value(volumes: &Volumes, selector: &FileKeySelector) -> Result<Option<String>, EnvError> {
    let (volume, path, key) = (selector.volume_name.clone(), selector.path.clone(), selector.key.clone());
    let root = volumes.paths.get(&volume).ok_or_else(|| EnvError::NoVolume(volume.clone()))?;
    let text = match read_inside(&root.path, &path) {
        Err(error) if error.kind() == ErrorKind::NotFound && selector.optional == Some(true) => return Ok(None),
        other => other.map_err(|source| EnvError::File { volume: volume.clone(), path: path.clone(), source })?,
    };
    match env_file::value_of(&text, &key) {
        Ok(None) if selector.optional != Some(true) => Err(EnvError::FileKey { volume, path, key }),
        Ok(value) => Ok(value),
        Err(source) => Err(EnvError::Syntax { volume, path, source }),
    }
}

fn optional<T>(result: Result<T, ObjectError>, optional: Option<bool>) -> Result<Option<T>, EnvError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(ObjectError::NotFound { .. }) if optional == Some(true) => Ok(None),
        Err(error) => Err(EnvError::Object(error)),
    }
}

fn required(
    value: Option<String>,
    optional: Option<bool>,
    kind: &'static str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, EnvError> {
    if value.is_none() && optional != Some(true) {
        let (namespace, name, key) = (namespace.to_owned(), name.to_owned(), key.to_owned());
        return Err(EnvError::Key { kind, namespace, name, key });
    }
    Ok(value)
}

/// What is kept of a service: what the containers of later pods are told of it.
#[derive(Clone, Debug)]
pub struct KnownService {
    key: ObjectKey,
    version: u64,
    /// Empty for one without an address of its own.
    address: String,
    ports: Vec<ServicePort>,
}

impl Keep for KnownService {
    type Object = Service;

    fn keep(service: Service) -> Self {
        let (key, version) = (Keep::key(&service), Keep::version(&service));
        let spec = service.spec.unwrap_or_default();
        let address = spec.cluster_ip.filter(|ip| ip != "None").unwrap_or_default();
        Self { key, version, address, ports: spec.ports.unwrap_or_default() }
    }

    fn full_name(&self) -> (&str, &str) {
        (&self.key.namespace, &self.key.name)
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// The services whose variables a pod gets: those of its namespace where it wants links, and the API's in any case.
pub fn visible_services(pod: &Pod, mut all: Vec<Arc<KnownService>>) -> Vec<Arc<KnownService>> {
    let links = pod.spec().enable_service_links != Some(false);
    let own = |s: &KnownService| links && s.key.namespace == pod.namespace();
    let master = |s: &KnownService| s.full_name() == ("default", "kubernetes");
    all.retain(|s| !s.address.is_empty());
    let shadows = all.iter().any(|s| own(s) && s.key.name == "kubernetes" && !master(s));
    all.retain(|s| own(s) || (master(s) && !shadows));
    all
}

fn service_variables(services: &[Arc<KnownService>]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for service in services {
        let name = service.key.name.to_uppercase().replace('-', "_");
        let (host, ports) = (&service.address, &service.ports);
        let Some(first) = ports.first() else { continue };
        env.insert(format!("{name}_SERVICE_HOST"), host.clone());
        env.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        for port in ports {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                env.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{shown}:{}", protocol.to_lowercase(), port.port);
            let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
            if std::ptr::eq(port, first) {
                env.insert(format!("{name}_PORT"), url.clone());
            }
            env.insert(prefix.clone(), url);
            env.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
            env.insert(format!("{prefix}_PORT"), port.port.to_string());
            env.insert(format!("{prefix}_ADDR"), host.clone());
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<KnownService> {
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}"}},"spec":{{"clusterIP":"{ip}",
            "ports":[{{"name":"web-x","port":80,"protocol":"TCP"}},{{"port":53,"protocol":"UDP"}}]}}}}"#
        );
        Arc::new(KnownService::keep(serde_json::from_str(&text).expect("a service")))
    }

    #[test]
    fn services_become_variables() {
        let env = service_variables(&[service("n", "my-db", "10.0.0.5")]);
        assert_eq!(env["MY_DB_SERVICE_PORT_WEB_X"], "80");
        assert_eq!(env["MY_DB_PORT"], "tcp://10.0.0.5:80");
        assert_eq!(env["MY_DB_PORT_53_UDP_ADDR"], "10.0.0.5");
    }

    #[test]
    fn a_pod_sees_its_namespace_and_the_api() {
        let pod: Pod = serde_json::from_str(r#"{"metadata":{"name":"p","namespace":"n"},"spec":{"containers":[]}}"#)
            .expect("a pod");
        let all = vec![
            service("n", "a", "10.0.0.1"),
            service("n", "headless", "None"),
            service("m", "b", "10.0.0.2"),
            service("default", "kubernetes", "10.0.0.3"),
        ];
        let names: Vec<_> = visible_services(&pod, all).iter().map(|s| s.key.name.clone()).collect();
        assert_eq!(names, ["a", "kubernetes"]);
    }
}
