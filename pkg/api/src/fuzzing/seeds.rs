//! What inputs of the decoders start from, and words that mean something to them.

pub const POD: &[u8] = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"b":"c"},"creationTimestamp":"2026-01-02T03:04:05Z","deletionGracePeriodSeconds":3},"spec":{"containers":[{"name":"c","image":"i:1","resources":{"limits":{"cpu":"100m","memory":1}},"ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"web"}}}],"tolerations":[{"operator":"Exists"}],"x":1}}"#;
pub const FOO: &[u8] = br#"{"apiVersion":"g.io/v1","kind":"Foo","metadata":{"name":"a"},"spec":{"list":[{"name":"x"},{"name":"y","size":2}],"any":{"thing":[1,2.5,null]}}}"#;
pub const DEFINITION: &[u8] = br#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"foos.g.io"},"spec":{"group":"g.io","names":{"plural":"foos","kind":"Foo"},"scope":"Namespaced","versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":[{"rule":"self.a > 1"}]}}}}}]}}"#;
pub const SCHEMA: &[u8] = br#"{"type":"object","required":["spec"],"properties":{"spec":{"type":"object","default":{},"properties":{"a":{"type":"integer","minimum":1,"default":2},"s":{"type":"string","pattern":"^a+$","format":"date-time","enum":["x"]},"l":{"type":"array","maxItems":5,"uniqueItems":false,"items":{"anyOf":[{"type":"string"}],"x-kubernetes-int-or-string":true},"x-kubernetes-list-type":"set"}},"additionalProperties":false,"x-kubernetes-validations":[{"rule":"self.a > 1 && self.s.matches('^a')","message":"m"}]}}}"#;
pub const JSON_WORDS: &[&str] = &[
    "\"metadata\"",
    "\"spec\"",
    "\"name\":",
    "\"$patch\":\"delete\"",
    "\"$patch\":\"replace\"",
    "\"$retainKeys\":[\"a\"]",
    "\"$setElementOrder/containers\":[{\"name\":\"c\"}]",
    "\"$deleteFromPrimitiveList/finalizers\":[\"x/a\"]",
    "\"op\":\"copy\"",
    "\"from\":\"\"",
    "\"path\":\"/spec/containers/-\"",
    "\"f:spec\":{}",
    "\"k:{\\\"name\\\":\\\"c\\\"}\":{}",
    "\"v:1\":{}",
    "\".\":{}",
    "\"type\":\"object\"",
    "\"properties\":{\"a\":",
    "\"x-kubernetes-preserve-unknown-fields\":true",
    "\"items\":",
    "\"default\":",
];
pub const YAML: &[u8] = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: &n a\n  labels: {<<: *n, \"b\": 'c'}\nspec:\n  containers:\n  - name: c\n    args: [1, ~, 0x10, .inf, 1_0, yes]\n    command:\n    - |\n      text\n    - >-\n      folded\n";
pub const BOMB: &[u8] = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
pub const YAML_WORDS: &[&str] = &[
    "&a",
    "*a",
    "<<: *n",
    "!!binary",
    "!!float",
    "? ",
    "- ",
    ": ",
    "|\n",
    ">\n",
    "%YAML 1.1\n",
    "...\n",
    "{",
    "[",
    "]",
    "}",
];
pub const PATCHES: &[&[u8]] = &[
    br#"[{"op":"add","path":"/metadata/labels/x","value":"y"},{"op":"copy","from":"/spec","path":"/spec/a"},{"op":"move","from":"/metadata/labels","path":"/spec/l"},{"op":"test","path":"/kind","value":"Pod"},{"op":"remove","path":"/spec/containers/0"}]"#,
    br#"{"metadata":{"labels":{"a":null,"$patch":"replace"}},"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"}],"ports":[{"containerPort":80,"hostPort":1}]},{"name":"d"}],"$retainKeys":["containers"],"tolerations":[{"$patch":"replace"}]}}"#,
    br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","finalizers":["x/b"],"$deleteFromPrimitiveList/finalizers":["x/a"]},"spec":{"containers":[{"name":"c","image":"j","ports":[{"containerPort":80,"protocol":"UDP"}]}]}}"#,
];
pub const MANAGED_FIELDS: &[&[u8]] = &[
    br#"{"f:metadata":{"f:labels":{".":{},"f:a":{}},"f:finalizers":{"v:\"x/a\"":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{}}}},"f:tolerations":{}}}"#,
    br#"[{"manager":"a","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:x":{}}},"subresource":"status"},{}]"#,
];
pub const SELECTORS: &[&[u8]] = &[
    b"a=b,c!=d,e in (f, g),h notin (i),!j,k,l>1,m<2",
    b"metadata.name=a\\,b,spec.nodeName!=c==d",
    b".status.conditions[?(@.type==\"Ready\")].status['a'][*]..b",
    br#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}"#,
];
pub const QUANTITIES: &[&[u8]] = &[
    b"1",
    b"100m",
    b"1.5Gi",
    b"-3e10",
    b"0.000000001",
    b"9223372036854775807Ei",
    b"170141183460469231731687303715884105727",
];
pub const TEXT_WORDS: &[&str] = &[" in (", ")", "!=", "notin", "[?(", "@.", "Ki", "e-9", "E", "n"];
pub const EXPRESSIONS: &[&[u8]] = &[
    b"object.spec.containers.all(c, c.image.startsWith('a') || has(c.env)) ? 'x' : \"y\" + string(1.5)",
    b"[1, 2u, {'a': b'c'}][0] in [3] && !(a.b[?0].orValue(-4) >= 5) && quantity('1Gi').isGreaterThan(quantity('1'))",
    b"Object{spec: Object.spec{replicas: 1, ?x: optional.none()}}",
];
pub const EXPRESSION_WORDS: &[&str] = &[
    "has(",
    ".map(x, ",
    ".exists(",
    "cel.bind(a, ",
    "?",
    "||",
    "&&",
    "'''",
    "r'",
    "in",
    "[",
    "]",
    "{",
    "}",
    "url('",
    ".find('(a+)+')",
    "9223372036854775808",
    "duration('1h')",
];
