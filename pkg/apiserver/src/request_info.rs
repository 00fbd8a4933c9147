//! What a request asks for, read off its method, path and query alone.

/// The parsed form of a request's target, as authorization, flow control and audit see it.
///
/// For a resource request `path` is still set; for others the resource fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// Kubernetes verb for resources (`get`, `list`, `deletecollection` ...), lower-case HTTP method otherwise.
    pub verb: String,
    pub group: String,
    pub version: String,
    /// Empty for cluster-scoped requests.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    pub subresource: String,
    /// What follows the subresource in the path (proxy), without the leading slash.
    pub subresource_path: String,
    /// Empty for collections. A list or watch with `fieldSelector=metadata.name=X` carries `X`.
    pub name: String,
    /// Raw selectors, passed on to authorizers.
    pub label_selector: String,
    pub field_selector: String,
}
