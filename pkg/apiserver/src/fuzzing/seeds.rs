//! What inputs of the decoders start from, and words that mean something to them.

pub const REQUESTS: &[&[u8]] = &[
    b"/api/v1/namespaces/default/pods/p/proxy/a%2Fb?labelSelector=a%3Db,c+in+(d)&fieldSelector=metadata.name%3Dx&limit=5&continue=eyJ2Ijoi&timeoutSeconds=3&resourceVersion=7&resourceVersionMatch=NotOlderThan&watch=1&dryRun=All&fieldManager=m&timeout=1m30s",
    b"/apis/apps/v1/watch/namespaces/a/deployments",
];
pub const HEADERS: &[&[u8]] = &[
    b"application/json;as=Table;v=v1;g=meta.k8s.io;q=0.5,application/vnd.kubernetes.protobuf;stream=watch, */*;q=.1",
    b"impersonate-user:a\nimpersonate-group:b\nimpersonate-extra-scopes%2fx:c\nx-remote-user:d\ncontent-type:application/json;charset=utf-8",
    b"g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
];
pub const CONTINUE: &[&[u8]] = &[
    br#"{"v":"meta.k8s.io/v1","rv":12,"start":"default/a\u0000"}"#,
    b"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTIsInN0YXJ0IjoiZGVmYXVsdC9hXHUwMDAwIn0",
];
pub const STORED: &[&[u8]] = &[
    br#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b\"","c":"\u00fc"},"name":"n","namespace":"ns","resourceVersion":"","uid":"u"},"spec":{"nodeName":"x","list":[1,{"a":true},null,-1.5e3]}}"#,
];
pub const TOKENS: &[&[u8]] = &[
    b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50Iiwic3ViIjoic3lzdGVtOnNlcnZpY2VhY2NvdW50OmE6YiIsImF1ZCI6WyJhIl0sImV4cCI6OTk5OTk5OTk5OX0.AAAA",
    br#"{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:a:b","aud":["a"],"exp":9999999999,"nbf":-1,"iat":1e300,"jti":"x","kubernetes.io":{"namespace":"a","serviceaccount":{"name":"b","uid":"u"},"pod":{"name":"p","uid":"q"},"warnafter":1}}"#,
    b"abcdef.0123456789abcdef",
    br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AAAA","y":"AAAA","use":"sig"},{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#,
    b"-----BEGIN CERTIFICATE-----\nMIIBAAAAAAA=\n-----END CERTIFICATE-----\n",
    b"\x30\x82\x01\x00\x30\x81\xa7\xa0\x03\x02\x01\x02\x02\x01\x01\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02\x63\x61",
];
pub const FILES: &[&[u8]] = &[
    b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Request, users: [a], verbs: [get], resources: [{group: '', resources: ['pods/*'], resourceNames: [b]}], nonResourceURLs: ['/a*'], omitStages: [Panic]}\n",
    b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Webhook, name: w, webhook: {timeout: 3s, failurePolicy: Deny, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /x}, matchConditions: [{expression: 'request.user == \"a\"'}]}}\n",
    b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: 'https://a.example', audiences: [b], certificateAuthority: x}\n  claimValidationRules: [{expression: 'claims.a == 1', message: m}]\n  claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: a.io/b, valueExpression: claims.c}]}\nanonymous: {enabled: true, conditions: [{path: /livez}]}\n",
    b"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  providers:\n  - aesgcm: {keys: [{name: k, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}\n  - kms: {apiVersion: v2, name: s, endpoint: 'unix:///@s', timeout: 3s}\n  - identity: {}\n",
    b"apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: 'dns:///a:4317'\nsamplingRatePerMillion: 5\n",
    b"apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: a, user: u}}]\nclusters: [{name: a, cluster: {server: 'https://[::1]:6443/x', certificate-authority-data: AAAA}}]\nusers: [{name: u, user: {token: t, client-certificate-data: AAAA}}]\n",
];
pub const SPDY: &[&[u8]] = &[
    b"\x80\x03\x00\x02\x01\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x03abc\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x07",
    b"\x00\x00\x00\x03\x01\xff\xff\xffa\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x05\x00\x00\x00\x01",
];
pub const WEBSOCKET: &[&[u8]] = &[
    b"\xf0\x82\x84\x00\x00\x00\x00\x00abc\x82\x82\x00\x00\x00\x00\xff\x00\x89\x80\x00\x00\x00\x00\x88\x80\x00\x00\x00\x00",
    b"\x80\x81\xfe\x00\x04\x01\x02\x03\x04abcd\x00\x00\x00\x03\x01\x00\x00\x01a",
];
pub const REQUEST_WORDS: &[&str] =
    &["%00", "%ff", "+", "&", "=", ";q=", ";q=nan", ";q=inf", "\u{1}", ",,", "limit=-1", "limit=99999999999999999999"];
pub const STORED_WORDS: &[&str] =
    &["\"metadata\":{", "\"resourceVersion\":\"\"", "\\u0000", "\\", "/", "\"name\":\"\""];
pub const TOKEN_WORDS: &[&str] = &["eyJ", ".", "\"exp\":", "system:serviceaccount:", "\x30\x7f", "\x02\x01"];
pub const FILE_WORDS: &[&str] =
    &["rules:\n", "- ", "&a", "*a", "level: ", "999999999999h", "'", "https://", "!!binary "];
pub const FRAME_WORDS: &[&str] = &["\u{0}\u{0}\u{0}\u{1}", "\x7f\x7f\x7f\x7f", "\x04{\"Width\":1,\"Height\":2}"];
pub const OBJECTS: &[&[u8]] = &[
    br#"{"metadata":{"name":"h"},"webhooks":[{"name":"a.b.c","rules":[{"operations":["*"],"apiGroups":["","apps"],"apiVersions":["v1"],"resources":["pods/*","*/scale"],"scope":"Namespaced"}],"clientConfig":{"service":{"namespace":"n","name":"s","path":"/x","port":8443},"caBundle":"AAAA"},"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]},"matchConditions":[{"name":"c","expression":"object.a == 1"}],"admissionReviewVersions":["v1"],"timeoutSeconds":5}]}"#,
    br#"{"spec":{"matchingPrecedence":7,"distinguisherMethod":{"type":"ByUser"},"priorityLevelConfiguration":{"name":"p"},"type":"Limited","limited":{"nominalConcurrencyShares":30,"lendablePercent":50,"borrowingLimitPercent":9,"limitResponse":{"type":"Queue","queuing":{"queues":8,"handSize":3,"queueLengthLimit":5}}},"rules":[{"subjects":[{"kind":"Group","group":{"name":"g"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"namespaces":["*"],"clusterScope":true}],"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/a/*"]}]}]}}"#,
    br#"{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"u"}],"spec":{"group":"g","version":"v1","service":{"namespace":"n","name":"s","port":443}}}"#,
    br#"{"metadata":{"name":"foos.g.io"},"spec":{"group":"g.io","scope":"Namespaced","names":{"plural":"foos","kind":"Foo","shortNames":["f"]},"conversion":{"strategy":"Webhook","webhook":{"conversionReviewVersions":["v1"],"clientConfig":{"url":"https://a"}}},"versions":[{"name":"v1","served":true,"storage":true,"deprecated":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}},"additionalPrinterColumns":[{"name":"A","type":"date","jsonPath":".a[0]['b']"}],"selectableFields":[{"jsonPath":".spec.a"}],"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object"}}}}}]}}"#,
    br#"{"metadata":{"annotations":{"autoscaling.alpha.kubernetes.io/metrics":"[{\"type\":\"Resource\"}]","autoscaling.alpha.kubernetes.io/conditions":"[]","autoscaling.alpha.kubernetes.io/behavior":"{}","autoscaling.alpha.kubernetes.io/current-metrics":"[]"}},"spec":{"targetCPUUtilizationPercentage":5,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":5}}}]},"status":{"currentMetrics":[],"conditions":[]}}"#,
    br#"{"involvedObject":{"kind":"Pod"},"regarding":{"kind":"Pod"},"source":{"component":"c"},"deprecatedSource":{},"count":3,"deprecatedCount":4,"firstTimestamp":"2026-01-01T00:00:00Z","message":"m","note":"n"}"#,
];
pub const ANSWERS: &[&[u8]] = &[
    br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"u","allowed":true,"patchType":"JSONPatch","patch":"W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d","warnings":["w"],"auditAnnotations":{"a":"b"},"status":{"code":418,"message":"m"}}}"#,
    br#"{"resources":[{"name":"foos","singularName":"foo","namespaced":true,"kind":"Foo","verbs":["get"],"shortNames":["f"]},{"name":"foos/status","kind":"Foo","verbs":["get"]}]}"#,
    br#"{"node":{"cpu":{"usageCoreNanoSeconds":5},"memory":{"workingSetBytes":4096}},"pods":[{"podRef":{"namespace":"n","name":"p"},"containers":[{"name":"c","cpu":{"usageCoreNanoSeconds":18446744073709551615}}]}]}"#,
    br#"{"apiVersion":"g/v1","kind":"Foo","metadata":{"name":"n","labels":{"a":"b"}},"spec":{}}"#,
    br#"<html><a href="/x">t</a><img  SRC='/i.png' alt="/a"><a href="http://h:1/x"></html>"#,
];
pub const OBJECT_WORDS: &[&str] =
    &["null", "[]", "{}", "18446744073709551615", "-1", "\"spec\":", "\"rules\":", "\"*\"", "1e300", "=\"/", " href="];
pub const ENCRYPTED: &[&[u8]] = &[
    b"k8s:enc:aesgcm:v1:k:0123456789ab0123456789abcdef0123",
    b"k8s:enc:aescbc:v1:k:0123456789abcdef0123456789abcdef",
    b"k8s:enc:secretbox:v1:k:0123456789abcdef012345670123456789abcdef",
];
