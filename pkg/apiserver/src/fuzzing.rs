//! What hostile input is tried on: each function must survive any bytes. Used by tests and by the targets in `fuzz/`.

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use kube1_api::resource::ResourceTable;

use crate::audit::Policy;
use crate::authn::{AuthenticationConfiguration, fuzzing as authn};
use crate::authz::AuthorizationConfiguration;
use crate::dial::Remote;
use crate::http::fuzzing as http_frames;
use crate::options::{DeleteOptions, ListOptions, WriteOptions};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::{encode, negotiate, storage};

/// The target of a request: path and query.
pub fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, query) = text.split_once('?').unwrap_or((&text, &text));
    let query = Query::parse(query);
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let info = RequestInfo::parse(&method, path, &query);
        let _ = info.is_long_running();
    }
    let _ = ListOptions::parse(&query, false);
    let _ = ListOptions::parse(&query, true);
    let _ = WriteOptions::parse(&query, &text, "PatchOptions").map(|o| o.to_json("PatchOptions"));
    let _ = DeleteOptions::parse(&query, None).map(|o| o.to_json());
    let _ = crate::http::requests::parse_duration(&text);
}

/// Headers by which a representation is chosen, and those of identities.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(10_000) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_append(name, value);
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(data) {
        headers.append(ACCEPT, value.clone());
        headers.append(ACCEPT_ENCODING, value);
    }
    let query = Query::default();
    for answer in [negotiate::Answer::Object, negotiate::Answer::List, negotiate::Answer::Stream] {
        let _ = negotiate::accept(&headers, &query, negotiate::Offer { protobuf: true, views: true, answer });
    }
    let _ = negotiate::accept_failure(&headers, &query);
    let _ = negotiate::aggregated_discovery(&headers);
    let _ = negotiate::accepts_gzip(&headers);
    let _ = negotiate::body_format(&headers, true);
    authn::headers(&headers);
}

/// Tokens with which lists go on.
pub fn continue_token(data: &[u8]) {
    storage::fuzzing::continue_token(data);
}

/// Stored objects and encrypted ones, as a damaged store would give them.
pub fn stored(data: &[u8]) {
    storage::fuzzing::stored(data);
}

/// Bearer tokens of every kind, key sets of issuers, certificates.
pub fn credentials(data: &[u8]) {
    authn::credentials(data);
}

/// Bodies in protobuf, by kind.
pub fn body(data: &[u8]) {
    let table = ResourceTable::builtin();
    for plural in ["pods", "services", "events"] {
        if let Some(row) = table.stored("", plural) {
            let _ = encode::decode_protobuf(&row, data);
        }
    }
    let _ = encode::decode_delete_options(data);
}

/// Files that operators write: kubeconfigs, and what configures audit, authentication, authorization and encryption.
pub fn files(data: &[u8]) {
    let name = format!("kube1-fuzzing-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, data).expect("a temporary file");
    let _ = Policy::read(&path).map(|policy| policy.verdict(None, &RequestInfo::default()));
    let _ = AuthorizationConfiguration::read(&path);
    let _ = AuthenticationConfiguration::read(&path, &["https://own.example".to_owned()]);
    let _ = storage::Encryption::open(None, Some(path.clone()));
    let _ = Remote::from_kubeconfig(&path);
    let _ = std::fs::remove_file(&path);
}

/// Frames of SPDY.
pub fn spdy(data: &[u8]) {
    http_frames::spdy(data);
}

/// Frames of websockets, translated to SPDY and back.
pub fn websocket(data: &[u8]) {
    http_frames::websocket(data);
}

#[cfg(test)]
mod tests {
    use kube1_mutate::{PER_BYTE, Target, run};

    #[test]
    fn requests_survive() {
        const REQUESTS: &[&[u8]] = &[
            b"/api/v1/namespaces/default/pods/p/proxy/a%2Fb?labelSelector=a%3Db,c+in+(d)&fieldSelector=metadata.name%3Dx&limit=5&continue=eyJ2Ijoi&timeoutSeconds=3&resourceVersion=7&resourceVersionMatch=NotOlderThan&watch=1&dryRun=All&fieldManager=m&timeout=1m30s",
            b"/apis/apps/v1/watch/namespaces/a/deployments",
        ];
        const HEADERS: &[&[u8]] = &[
            b"application/json;as=Table;v=v1;g=meta.k8s.io;q=0.5,application/vnd.kubernetes.protobuf;stream=watch, */*;q=.1",
            b"impersonate-user:a\nimpersonate-group:b\nimpersonate-extra-scopes%2fx:c\nx-remote-user:d\ncontent-type:application/json;charset=utf-8",
            b"g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ];
        let words = &[
            "%00",
            "%ff",
            "+",
            "&",
            "=",
            ";q=",
            ";q=nan",
            ";q=inf",
            "\u{1}",
            ",,",
            "limit=-1",
            "limit=99999999999999999999",
        ];
        run(&[
            Target { name: "request", run: super::request, seeds: REQUESTS, words, per_byte: PER_BYTE },
            Target { name: "headers", run: super::headers, seeds: HEADERS, words, per_byte: PER_BYTE },
        ]);
    }

    #[test]
    fn tokens_and_stored_bytes_survive() {
        const CONTINUE: &[&[u8]] = &[
            br#"{"v":"meta.k8s.io/v1","rv":12,"start":"default/a\u0000"}"#,
            b"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTIsInN0YXJ0IjoiZGVmYXVsdC9hXHUwMDAwIn0",
        ];
        const STORED: &[&[u8]] = &[
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b\"","c":"\u00fc"},"name":"n","namespace":"ns","resourceVersion":"","uid":"u"},"spec":{"nodeName":"x","list":[1,{"a":true},null,-1.5e3]}}"#,
        ];
        let words = &["\"metadata\":{", "\"resourceVersion\":\"\"", "\\u0000", "\\", "/", "\"name\":\"\""];
        run(&[
            Target { name: "continue", run: super::continue_token, seeds: CONTINUE, words, per_byte: PER_BYTE },
            Target { name: "stored", run: super::stored, seeds: STORED, words, per_byte: PER_BYTE },
        ]);
    }

    #[test]
    fn credentials_survive() {
        const TOKENS: &[&[u8]] = &[
            b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50Iiwic3ViIjoic3lzdGVtOnNlcnZpY2VhY2NvdW50OmE6YiIsImF1ZCI6WyJhIl0sImV4cCI6OTk5OTk5OTk5OX0.AAAA",
            br#"{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:a:b","aud":["a"],"exp":9999999999,"nbf":-1,"iat":1e300,"jti":"x","kubernetes.io":{"namespace":"a","serviceaccount":{"name":"b","uid":"u"},"pod":{"name":"p","uid":"q"},"warnafter":1}}"#,
            b"abcdef.0123456789abcdef",
            br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AAAA","y":"AAAA","use":"sig"},{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#,
            b"-----BEGIN CERTIFICATE-----\nMIIBAAAAAAA=\n-----END CERTIFICATE-----\n",
            b"\x30\x82\x01\x00\x30\x81\xa7\xa0\x03\x02\x01\x02\x02\x01\x01\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02\x63\x61",
        ];
        let words = &["eyJ", ".", "\"exp\":", "system:serviceaccount:", "\x30\x7f", "\x02\x01"];
        run(&[Target { name: "credentials", run: super::credentials, seeds: TOKENS, words, per_byte: PER_BYTE }]);
    }

    #[test]
    fn files_survive() {
        const FILES: &[&[u8]] = &[
            b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Request, users: [a], verbs: [get], resources: [{group: '', resources: ['pods/*'], resourceNames: [b]}], nonResourceURLs: ['/a*'], omitStages: [Panic]}\n",
            b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Webhook, name: w, webhook: {timeout: 3s, failurePolicy: Deny, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /x}, matchConditions: [{expression: 'request.user == \"a\"'}]}}\n",
            b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: 'https://a.example', audiences: [b], certificateAuthority: x}\n  claimValidationRules: [{expression: 'claims.a == 1', message: m}]\n  claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: a.io/b, valueExpression: claims.c}]}\nanonymous: {enabled: true, conditions: [{path: /livez}]}\n",
            b"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  providers:\n  - aesgcm: {keys: [{name: k, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}\n  - identity: {}\n",
            b"apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: a, user: u}}]\nclusters: [{name: a, cluster: {server: 'https://[::1]:6443/x', certificate-authority-data: AAAA}}]\nusers: [{name: u, user: {token: t, client-certificate-data: AAAA}}]\n",
        ];
        let words = &["rules:\n", "- ", "&a", "*a", "level: ", "999999999999h", "'", "https://", "!!binary "];
        run(&[Target { name: "files", run: super::files, seeds: FILES, words, per_byte: PER_BYTE }]);
    }

    #[test]
    fn frames_survive() {
        const SPDY: &[&[u8]] = &[
            b"\x80\x03\x00\x02\x01\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x03abc\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x07",
            b"\x00\x00\x00\x03\x01\xff\xff\xffa\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x05\x00\x00\x00\x01",
        ];
        const WEBSOCKET: &[&[u8]] = &[
            b"\xf0\x82\x84\x00\x00\x00\x00\x00abc\x82\x82\x00\x00\x00\x00\xff\x00\x89\x80\x00\x00\x00\x00\x88\x80\x00\x00\x00\x00",
            b"\x80\x81\xfe\x00\x04\x01\x02\x03\x04abcd\x00\x00\x00\x03\x01\x00\x00\x01a",
        ];
        let words = &["\u{0}\u{0}\u{0}\u{1}", "\x7f\x7f\x7f\x7f", "\x04{\"Width\":1,\"Height\":2}"];
        run(&[
            Target { name: "spdy", run: super::spdy, seeds: SPDY, words, per_byte: PER_BYTE },
            Target { name: "websocket", run: super::websocket, seeds: WEBSOCKET, words, per_byte: PER_BYTE },
        ]);
    }

    #[test]
    fn protobuf_bodies_survive() {
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers":
            [{"name": "c", "resources": {"limits": {"cpu": "1"}}}], "activeDeadlineSeconds": 5}});
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 1});
        let encode = |v| kube1_api::codec::protobuf::encode_object(&v).unwrap_or_default().leak() as &'static [u8];
        let seeds: &'static [&'static [u8]] = vec![encode(pod), encode(options)].leak();
        run(&[Target { name: "body", run: super::body, seeds, words: &["k8s\0", "Pod"], per_byte: PER_BYTE }]);
    }
}
