//! Volumes that show parts of the API as files.

use std::collections::HashSet;

use super::environment::{field_ref, resource_field_ref};
use super::mount::local_path;
use crate::validate::Errors;
use crate::validate::at::At;
use crate::validate::volume_source::Owner;

pub(super) fn secret(source: &At, _: Owner, errors: &mut Errors) {
    source.get("secretName").need(errors);
    mode(&source.get("defaultMode"), errors);
    source.get("items").items().for_each(|item| key_to_path(&item, errors));
}

pub(super) fn config_map(source: &At, _: Owner, errors: &mut Errors) {
    source.get("name").need(errors);
    mode(&source.get("defaultMode"), errors);
    source.get("items").items().for_each(|item| key_to_path(&item, errors));
}

fn mode(mode: &At, errors: &mut Errors) {
    if mode.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        mode.invalid(errors, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn key_to_path(item: &At, errors: &mut Errors) {
    let path = item.get("path");
    item.get("key").need(errors);
    path.need(errors);
    local_path(&path, path.text(), errors);
    mode(&item.get("mode"), errors);
}

const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

pub(super) fn downward_api(source: &At, _: Owner, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    source.get("items").items().for_each(|item| downward_file(source, &item, errors));
}

/// Upstream's paths do not say which file it is.
fn downward_file(at: &At, item: &At, errors: &mut Errors) {
    let path = at.told_as("-", "path");
    if item.get("path").is_empty() {
        path.required(errors, "");
    }
    local_path(&path, item.str("path"), errors);
    let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
    if field.is_set() {
        field_ref(&field.below(at), &VOLUME_FIELDS, errors);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            at.invalid_value(errors, "resource", detail);
        }
    } else if resource.is_set() {
        resource_field_ref(&resource.below(at), true, errors);
    } else {
        at.required(errors, "one of fieldRef and resourceFieldRef is required");
    }
    mode(&item.get("mode").below(at), errors);
}

/// Paths that other sources of the volume have taken.
type Taken<'v> = HashSet<&'v str>;

pub(super) fn projected(source: &At, _: Owner, errors: &mut Errors) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    mode(&source.get("defaultMode"), errors);
    let mut taken = Taken::new();
    for entry in source.get("sources").items() {
        let kinds = entry.set_members(&KINDS);
        for name in &kinds {
            let part = entry.get(name);
            match *name {
                "secret" | "configMap" => {
                    part.get("name").need(errors);
                    for item in part.get("items").items() {
                        key_to_path(&item, errors);
                        if !item.str("path").is_empty() && !taken.insert(item.str("path")) {
                            conflict(source, part.str("name"), errors);
                        }
                    }
                }
                "downwardAPI" => {
                    for item in part.get("items").items() {
                        downward_file(&part, &item, errors);
                        take(source, item.str("path"), &mut taken, errors);
                    }
                }
                "serviceAccountToken" => token(source, &part, errors),
                // The rest is switched off, and dropped before it gets here.
                _ => {}
            }
        }
        if kinds.len() > 1 {
            entry.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

fn conflict(volume: &At, value: &str, errors: &mut Errors) {
    volume.invalid_value(errors, value, "conflicting duplicate paths");
}

fn take<'v>(volume: &At, path: &'v str, taken: &mut Taken<'v>, errors: &mut Errors) {
    if !path.is_empty() && !taken.insert(path) {
        conflict(volume, path, errors);
    }
}

fn token(volume: &At, token: &At, errors: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid(errors, "may not specify a duration less than 10 minutes");
    }
    if seconds.int().is_some_and(|s| s > 1 << 32) {
        seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
    }
    let path = volume.told_as("-", "path");
    if token.get("path").is_empty() {
        path.required(errors, "");
    } else {
        local_path(&path, token.str("path"), errors);
    }
}
