//! Where the data of volumes is: rules that pods' volumes and persistent volumes have in common.

use super::at::At;
use super::pod::{descending, no_backsteps};
use super::{Errors, format, storage};

/// Which volume a source is of.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub name: &'a str,
    pub persistent: bool,
}

pub(super) type Check = fn(&At, Owner, &mut Errors);

/// A source, the name that upstream's errors about a second source give it and that of errors about its contents, and
/// the rule for those.
pub(super) type Source = (&'static str, &'static str, &'static str, Check);

pub(super) fn need(source: &At, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        source.get(field).need(errors);
    }
}

/// Checks that `volume` has exactly one of the sources.
pub(super) fn exactly_one(volume: &At, sources: &[Source], owner: Owner, errors: &mut Errors) {
    let mut found = false;
    for (name, second, shown, check) in sources {
        let source = volume.get(name);
        if !source.is_set() {
            continue;
        }
        if found {
            source.renamed(second).forbidden(errors, "may not specify more than 1 volume type");
        } else {
            check(&source.renamed(shown), owner, errors);
        }
        if *name == "iscsi" && !owner.persistent && source.get("initiatorName").is_set() {
            short_enough(volume, "name", owner.name, &source, owner.name, errors);
        }
        found = true;
    }
    if !found {
        volume.required(errors, "must specify a volume type");
    }
}

fn short_enough(at: &At, field: &str, value: &str, iscsi: &At, name: &str, errors: &mut Errors) {
    if name.len() + 1 + iscsi.str("targetPortal").len() > 64 {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        at.get(field).invalid_value(errors, value, detail);
    }
}

pub(super) fn host_path(source: &At, _: Owner, errors: &mut Errors) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let path = source.get("path");
    if path.need(errors) {
        no_backsteps(&path, path.text(), errors);
        source.get("type").exactly_one_of(errors, &TYPES);
    }
}

pub(super) fn git_repo(source: &At, _: Owner, errors: &mut Errors) {
    source.get("repository").need(errors);
    let directory = source.get("directory");
    descending(&directory, directory.text(), errors);
}

pub(super) fn gce_disk(source: &At, _: Owner, errors: &mut Errors) {
    source.get("pdName").need(errors);
    partition(&source.get("partition"), errors);
}

pub(super) fn aws_disk(source: &At, _: Owner, errors: &mut Errors) {
    source.get("volumeID").need(errors);
    partition(&source.get("partition"), errors);
}

fn partition(partition: &At, errors: &mut Errors) {
    if partition.int().is_some_and(|number| !(0..=255).contains(&number)) {
        partition.invalid(errors, "must be between 1 and 255, inclusive");
    }
}

pub(super) fn nfs(source: &At, _: Owner, errors: &mut Errors) {
    need(source, &["server", "path"], errors);
    let path = source.get("path");
    if !path.text().starts_with('/') {
        path.invalid_value(errors, path.text(), "must be an absolute path");
    }
}

pub(super) fn iscsi(source: &At, owner: Owner, errors: &mut Errors) {
    let (portal, iqn, secret) = (source.get("targetPortal"), source.get("iqn"), source.get("secretRef"));
    portal.need(errors);
    let initiator = source.get("initiatorName");
    if owner.persistent && initiator.is_set() {
        short_enough(source, "targetportal", portal.text(), source, owner.name, errors);
    }
    if iqn.need(errors) {
        iscsi_name(&iqn, owner, errors);
    }
    source.get("lun").in_range(errors, 0, 255);
    let authenticated = source.get("chapAuthDiscovery").is_true() || source.get("chapAuthSession").is_true();
    if authenticated && !secret.is_set() {
        secret.required(errors, "");
    }
    if owner.persistent && secret.is_set() {
        secret.get("name").need(errors);
    }
    if initiator.is_set() {
        iscsi_name(&initiator.renamed("initiatorname"), owner, errors);
    }
}

fn iscsi_name(name: &At, owner: Owner, errors: &mut Errors) {
    let text = name.text();
    let detail = match text.get(..3) {
        Some("iqn") if !is_qualified(text) => "must be valid format",
        Some(kind @ ("eui" | "naa")) => {
            let length = if kind == "eui" { 16 } else { 32 };
            let rest: Vec<char> = text.chars().skip(3).collect();
            let fine = rest.len() == length + 1 && rest[1..].iter().all(char::is_ascii_alphanumeric);
            match fine {
                true => return,
                false => "must be valid format",
            }
        }
        Some("iqn") => return,
        _ if owner.persistent => "must be valid format",
        _ => "must be valid format starting with iqn, eui, or naa",
    };
    name.invalid_value(errors, text, detail);
}

/// Whether text ends like `iqn.2001-04.com.example:storage`.
fn is_qualified(text: &str) -> bool {
    text.match_indices("iqn.").any(|(start, _)| {
        let rest = &text[start + 4..];
        let Some((name, part)) = rest.split_once(':') else { return false };
        let bytes = name.as_bytes();
        let digits = |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|b| b.iter().all(u8::is_ascii_digit));
        let dated = digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'.');
        let named = bytes.len() > 8 && bytes[8..].iter().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(b));
        let free = !part.is_empty() && !part.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace());
        dated && named && free
    })
}

pub(super) fn fibre_channel(source: &At, _: Owner, errors: &mut Errors) {
    let (names, lun, ids) = (source.get("targetWWNs"), source.get("lun"), source.get("wwids"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => names.required(errors, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => names.invalid(errors, "targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !names.is_empty() {
        if lun.is_set() {
            lun.in_range(errors, 0, 255);
        } else {
            lun.required(errors, "lun is required if targetWWNs is specified");
        }
    }
}

pub(super) fn glusterfs(source: &At, owner: Owner, errors: &mut Errors) {
    need(source, &["endpoints", "path"], errors);
    let namespace = source.get("endpointsNamespace");
    if !owner.persistent || !namespace.is_set() {
        return;
    }
    if namespace.is_empty() {
        namespace.invalid(errors, "if the endpointnamespace is set, it must be a valid namespace name");
    } else {
        namespace.check(errors, format::dns_label(namespace.text()));
    }
}

pub(super) fn flocker(source: &At, _: Owner, errors: &mut Errors) {
    let (name, id) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_empty(), id.is_empty()) {
        (true, true) => source.required(errors, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            source.invalid_value(errors, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.text().contains('/') {
        name.invalid(errors, "must not contain '/'");
    }
}

pub(super) fn rbd(source: &At, _: Owner, errors: &mut Errors) {
    need(source, &["monitors", "image"], errors);
}

pub(super) fn cinder(source: &At, owner: Owner, errors: &mut Errors) {
    source.get("volumeID").need(errors);
    secret(source, owner, errors);
}

/// A secret that is named wherever it is set; persistent volumes also say where it is.
fn secret(source: &At, owner: Owner, errors: &mut Errors) {
    let secret = source.get("secretRef");
    if secret.is_set() {
        let fields = ["name", "namespace"];
        need(&secret, if owner.persistent { &fields } else { &fields[..1] }, errors);
    }
}

pub(super) fn ceph_fs(source: &At, _: Owner, errors: &mut Errors) {
    source.get("monitors").need(errors);
}

pub(super) fn quobyte(source: &At, _: Owner, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.is_empty() {
        registry.required(errors, PAIRS);
    } else if tenant.text().len() >= 65 {
        tenant.required(errors, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.text().split(',') {
            let plain = pair
                .rsplit_once(':')
                .is_some_and(|(host, _)| !host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
            if !plain {
                registry.invalid(errors, PAIRS);
            }
        }
    }
    source.get("volume").need(errors);
}

pub(super) fn flex(source: &At, _: Owner, errors: &mut Errors) {
    source.get("driver").need(errors);
    for (key, option) in source.get("options").entries() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            option.invalid_value(errors, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

pub(super) fn azure_file(source: &At, owner: Owner, errors: &mut Errors) {
    need(source, &["secretName", "shareName"], errors);
    let namespace = source.get("secretNamespace");
    if owner.persistent && namespace.is_set() {
        namespace.need(errors);
    }
}

pub(super) fn azure_disk(source: &At, _: Owner, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    need(source, &["diskName", "diskURI"], errors);
    let (caching, kind, uri) = (source.get("cachingMode"), source.get("kind"), source.get("diskURI"));
    if caching.is_set() {
        caching.exactly_one_of(errors, &["None", "ReadOnly", "ReadWrite"]);
    }
    if kind.is_set() {
        kind.exactly_one_of(errors, &["Dedicated", "Managed", "Shared"]);
        let (start, form) = if kind.text() == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
        if !uri.text().starts_with(start) {
            uri.not_supported(errors, &[form]);
        }
    }
}

pub(super) fn vsphere(source: &At, _: Owner, errors: &mut Errors) {
    source.get("volumePath").need(errors);
}

pub(super) fn photon(source: &At, _: Owner, errors: &mut Errors) {
    source.get("pdID").need(errors);
}

pub(super) fn portworx(source: &At, _: Owner, errors: &mut Errors) {
    source.get("volumeID").need(errors);
}

pub(super) fn scale_io(source: &At, _: Owner, errors: &mut Errors) {
    need(source, &["gateway", "system", "volumeName"], errors);
}

pub(super) fn storage_os(source: &At, owner: Owner, errors: &mut Errors) {
    let (name, namespace) = (source.get("volumeName"), source.get("volumeNamespace"));
    if name.need(errors) {
        name.check(errors, format::dns_label(name.text()));
    }
    if !namespace.is_empty() {
        namespace.check(errors, format::dns_label(namespace.text()));
    }
    secret(source, owner, errors);
}

pub(super) fn csi(source: &At, _: Owner, errors: &mut Errors) {
    storage::driver_name(&source.get("driver"), errors);
    let secret = source.get("nodePublishSecretRef");
    if secret.is_set() && secret.get("name").need(errors) {
        for problem in format::dns_subdomain(secret.str("name")) {
            source.get("name").invalid_value(errors, secret.str("name"), problem);
        }
    }
}
