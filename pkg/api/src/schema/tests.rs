#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn the_table_describes_pods() {
    let pod = find("io.k8s.api.core.v1.Pod").unwrap().shape();
    let containers = pod.member("spec").unwrap().field("containers").unwrap();
    assert_eq!((containers.list_type, &containers.list_map_keys[..]), ("map", &["name"][..]));
    assert!(containers.merges() && containers.patch_merge_key == "name");
    let volumes = pod.member("spec").unwrap().field("volumes").unwrap();
    assert!(volumes.merges() && volumes.retains_keys());
    assert!(volumes.element().member("configMap").is_some(), "members of inline messages are the parent's");
    assert!(pod.member("kind").is_some() && pod.member("nothing").is_none());
}

#[test]
fn every_reference_leads_to_a_type() {
    for ty in all() {
        for field in ty
            .fields
            .iter()
            .filter(|f| f.proto == "message" && !f.reference.contains("beta") && !f.reference.contains("alpha"))
        {
            assert!(find(field.reference).is_some(), "{}.{} -> {}", ty.name, field.name, field.reference);
        }
    }
}
