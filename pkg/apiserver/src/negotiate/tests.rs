#![allow(clippy::unwrap_used)]

use super::*;

fn headers(accept: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, accept.parse().unwrap());
    headers
}

#[test]
fn the_best_offered_clause_is_chosen() {
    let list = Offer { protobuf: true, views: true, answer: Answer::List };
    let one = Offer { answer: Answer::Object, ..list };
    let stream = Offer { answer: Answer::Stream, ..list };
    let custom = Offer { protobuf: false, ..list };
    let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let metadata_list = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let protobuf = "application/vnd.kubernetes.protobuf,application/json";
    let (plain, in_protobuf) = (Some((Format::Json, View::Object)), Some((Format::Protobuf, View::Object)));
    for (accepted, offer, expected) in [
        ("*/*", list, plain),
        ("application/yaml;q=0.5, application/json;q=0.1", list, Some((Format::Yaml, View::Object))),
        ("*/*, application/vnd.kubernetes.protobuf", list, in_protobuf),
        ("application/*, application/yaml", list, Some((Format::Yaml, View::Object))),
        (kubectl, list, Some((Format::Json, View::Table("v1")))),
        (kubectl, Offer { views: false, ..list }, plain),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", list, plain),
        (protobuf, custom, plain),
        (protobuf, stream, in_protobuf),
        (metadata, one, Some((Format::Protobuf, View::Metadata("v1")))),
        (metadata, Offer { protobuf: false, ..one }, Some((Format::Protobuf, View::Metadata("v1")))),
        (metadata_list, list, Some((Format::Protobuf, View::Metadata("v1")))),
        // The first clause that is understood counts, also when it does not fit the answer.
        (metadata, list, None),
        (metadata_list, one, None),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", stream, None),
        (
            "application/json;as=PartialObjectMetadata;v=v2;g=meta.k8s.io, application/yaml",
            one,
            Some((Format::Yaml, View::Object)),
        ),
        ("application/json;v=v1;g=meta.k8s.io", one, None),
        ("application/json;stream=watch", stream, plain),
        ("application/json;stream=watch", one, plain),
        ("application/vnd.kubernetes.protobuf;stream=watch", stream, in_protobuf),
        ("application/json;stream=other", stream, None),
        ("application/yaml;stream=watch", one, None),
        ("application/yaml", stream, None),
        ("application/json;sv=v1", one, None),
        ("application/cbor", one, None),
        ("application/cbor, application/json", one, plain),
        ("text/html", list, None),
    ] {
        let found = accept(&headers(accepted), &Query::default(), offer);
        assert_eq!(found.map(|a| (a.format, a.view)).ok(), expected, "{accepted} for {offer:?}");
    }
    let refused =
        |accepted, offer| accept(&headers(accepted), &Query::default(), offer).unwrap_err().message().to_owned();
    assert!(
        refused("application/yaml", stream)
            .ends_with(": application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")
    );
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    for accepted in ["text/html", "application/json;stream=other", table] {
        assert!(refused(accepted, stream).ends_with(&format!(": {all}")), "{accepted}");
    }
    for media in ["text/html", "application/cbor", "application/cbor-seq"] {
        for offer in [custom, one] {
            let message = format!("only the following media types are accepted: {all}");
            assert_eq!(refused(media, offer), message, "{media}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media.parse().unwrap());
        let message = format!("the body of the request was in an unknown format - accepted media types include: {all}");
        assert_eq!(body_format(&headers, true).unwrap_err().message(), message, "{media}");
    }
    assert_eq!(refused(metadata, list), "you requested PartialObjectMetadata, but the requested object is a list");
    for (accepted, format) in [
        (metadata, Format::Json),
        (metadata_list, Format::Json),
        (protobuf, Format::Protobuf),
        ("text/html", Format::Json),
        ("application/yaml", Format::Yaml),
    ] {
        assert_eq!(accept_failure(&headers(accepted), &Query::default()).format, format, "{accepted}");
    }
}

#[test]
fn aggregated_discovery_is_recognised() {
    let list = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (accept, format) in [
        (format!("application/json{list},application/json;q=0.9,*/*;q=0.8"), Some(Format::Json)),
        (format!("application/vnd.kubernetes.protobuf{list},application/json{list}"), Some(Format::Protobuf)),
        (format!("application/json{},application/json", list.replace("v2", "v2beta1")), None),
        (format!("application/json, application/json{list};q=0.5"), None),
        ("application/json".to_owned(), None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(super::aggregated_discovery(&headers), format, "{accept}");
    }
}
