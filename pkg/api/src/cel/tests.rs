#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::*;

/// Evaluates without a schema; shows the value, or the error.
fn eval(text: &str) -> String {
    let program = match Program::compile(text, &Env::default().patching()) {
        Ok(program) => program,
        Err(issues) => return issues.to_string(),
    };
    match program.run(&Activation::new(CALL_LIMIT), CALL_LIMIT).0 {
        Ok(value) => value.to_json().map_or_else(|| value.to_string(), |json| json.to_string()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn expressions_give_values() {
    for (text, expected) in [
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-7 / 2", "-3"),
        ("-(1) - -1", "0"),
        ("1u + 0x10u", "17"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1 / 0", "division by zero"),
        ("1.5 + 1e2", "101.5"),
        ("string(100000.0) + ' ' + string(1000000.0) + ' ' + string(1234567.5)", "\"100000 1e+06 1.2345675e+06\""),
        ("string(0.0001) + ' ' + string(0.00001) + ' ' + string(1.5e21)", "\"0.0001 1e-05 1.5e+21\""),
        ("'a' + \"b\" + r'\\n' + '\\n\\x41\\u00e9'", "\"ab\\\\n\\nAé\""),
        ("b'ab' + b'\\xff'", "\"YWL/\""),
        ("1 < 2 && 'b' > 'a' || 1/0 == 1", "true"),
        ("1/0 == 1 || true", "true"),
        ("false && 1/0 == 1", "false"),
        ("1/0 == 1 || false", "division by zero"),
        ("1 == 1 ? 'yes' : 'no'", "\"yes\""),
        ("dyn(1) == 1.0 && dyn(2u) > 1.5", "true"),
        ("[1, 2, 3][1] + {'a': 5}['a'] + {'b': 2}.b", "9"),
        ("[1][5]", "index out of bounds: 5"),
        ("{'a': 1}.b", "no such key: b"),
        ("dyn(null).x", "no such key: x"),
        ("has(dyn(null).x) || has(dyn(1).x)", "false"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
        ("1 in [1, 2] && 'a' in {'a': 1} && !(3 in [1])", "true"),
        ("[1, 2].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2, 2].exists_one(x, x == 1)", "true"),
        ("['a', 'bb'].map(x, x.size()) + [1, 2, 3].filter(x, x % 2 == 1)", "[1,2,1,3]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4,6]"),
        ("[[1, 2], [3]].map(l, l.map(x, x + 1))", "[[2,3],[4]]"),
        ("{'a': 1, 'b': 2}.all(k, k != 'c')", "true"),
        ("[3, 4].all(i, v, v == i + 3) && {'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("[1, 2].transformList(i, v, i > 0, v * 10)", "[20]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", "{\"a\":2,\"b\":3}"),
        ("['x', 'y'].transformMapEntry(i, v, {v: i})", "{\"x\":0,\"y\":1}"),
        ("[1, dyn('a')].exists(x, x == 'a')", "true"),
        ("optional.of(1).hasValue() && !optional.none().hasValue()", "true"),
        ("{'a': {'b': 1}}.?a.?b.orValue(5) + {'a': {'b': 1}}.?x.b.orValue(5)", "6"),
        ("[1, 2][?5].or(optional.of(7)).value()", "7"),
        ("{'a': dyn(null)}.?a.?b.orValue(5) + {'a': dyn(1)}.?a.?b.orValue(5) + dyn('x').?b.orValue(1)", "11"),
        (
            "kubernetes.Quantity == type(quantity('1'))",
            "ERROR: <input>:1:1: undeclared reference to 'kubernetes' (in container '')\n \
             | kubernetes.Quantity == type(quantity('1'))\n | ^",
        ),
        (
            "cel.bind(x, 1, x)",
            "ERROR: <input>:1:1: undeclared reference to 'cel' (in container '')\n | cel.bind(x, 1, x)\n | ^\n\
             ERROR: <input>:1:9: undeclared reference to 'bind' (in container '')\n | cel.bind(x, 1, x)\n | ........^\n\
             ERROR: <input>:1:10: undeclared reference to 'x' (in container '')\n | cel.bind(x, 1, x)\n | .........^\n\
             ERROR: <input>:1:16: undeclared reference to 'x' (in container '')\n | cel.bind(x, 1, x)\n | ...............^",
        ),
        ("optional.of(2).optMap(x, x * 2).value() + optional.of(2).optFlatMap(x, optional.of(x)).value()", "6"),
        ("[?optional.none(), ?optional.of(1)] == [1] && {?'a': optional.none()} == {}", "true"),
        ("[1].first().value() + [1, 2].last().value()", "3"),
        ("optional.none().value()", "optional.none() dereference"),
        ("type(1) == int && type([]) == list && type('') == string && type(type(1)) == type", "true"),
        ("int('5') + int(2.9) + int(3u)", "10"),
        ("string(1.0) + string(true) + string(b'x') + string(duration('90s'))", "\"1truex90s\""),
        ("double('1.5') + double(1)", "2.5"),
        ("timestamp('2020-02-29T12:30:15.5Z').getDayOfYear()", "59"),
        ("timestamp('2020-01-01T00:00:00Z').getHours('-08:00')", "16"),
        ("timestamp('2020-01-01T00:00:00Z') + duration('1h') == timestamp('2020-01-01T01:00:00Z')", "true"),
        ("(timestamp('2020-01-02T00:00:00Z') - timestamp('2020-01-01T00:00:00Z')).getHours()", "24"),
        ("'hello'.charAt(1) + 'hello'.substring(1, 3) + ' x '.trim() + 'aB'.upperAscii()", "\"eelxAB\""),
        ("'héllo'.indexOf('l') + 'héllo'.lastIndexOf('l') + 'abc'.indexOf('z')", "4"),
        ("'a,b,c'.split(',', 2) + ['a', 'b'].join('-').split('')", "[\"a\",\"b,c\",\"a\",\"-\",\"b\"]"),
        ("'aaa'.replace('a', 'b', 2)", "\"bba\""),
        ("'abc'.substring(5)", "index out of range: 5"),
        ("'%s %d %.2f %x %b %%'.format(['a', 5, 1.0, 255, 5])", "\"a 5 1.00 ff 101 %\""),
        (
            "'%s'.format([{'b': 1.0, 'a': ['x\"', b'y', null, duration('90s'), [double('NaN')]]}]) == \
             '{\"a\":[\"x\\\\\"\", b\"y\", null, duration(\"90s\"), [\"NaN\"]], \"b\":1.000000}'",
            "true",
        ),
        (
            "'%f %.0f %e %e'.format([-1234567.5, 999.5, 0.00015, double('Infinity')])",
            "\"-1,234,567.500000 1,000 1.500000×10⁻⁰⁴      ∞\"",
        ),
        ("'%s %s'.format([1.5, dyn(b'x')])", "\"1.5 x\""),
        ("'%f'.format([dyn(1)])", {
            "error during formatting: fixed-point clause can only be used on doubles, was given int"
        }),
        ("true || int('x') == 1", "type conversion error from 'string' to 'int'"),
        (
            "'%d'.format(['x'])",
            "ERROR: <input>:1:14: error during formatting: decimal clause can only be used on integers, was given string\n \
             | '%d'.format(['x'])\n | .............^",
        ),
        (
            "'%s %s'.format([1])",
            "ERROR: <input>:1:15: index 1 out of range\n | '%s %s'.format([1])\n | ..............^",
        ),
        (
            "'x'.format([1])",
            "ERROR: <input>:1:11: too many arguments supplied to string.format (expected 0, got 1)\n \
             | 'x'.format([1])\n | ..........^",
        ),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        ("'abc123'.matches('^[a-z]+\\\\d+$') && 'abc 123'.find('[0-9]+') == '123'", "true"),
        ("'1a2b'.findAll('[0-9]') == ['1', '2'] && '1a2b'.findAll('[0-9]', 1) == ['1']", "true"),
        ("[3, 1, 2].isSorted() || [1, 2].isSorted() && [1, 2].sum() == 3 && [1, 2].max() == 2", "true"),
        ("[1, 2, 2].indexOf(2) + [1, 2, 2].lastIndexOf(2)", "3"),
        ("[3, 1, 2].sort() == [1, 2, 3] && ['b', 'a'].reverse() == ['a', 'b']", "true"),
        ("[{'n': 2}, {'n': 1}].sortBy(x, x.n).map(x, x.n)", "[1,2]"),
        ("[[1], [2, 3]].flatten() == [1, 2, 3] && [1, 1, 2].distinct() == [1, 2]", "true"),
        ("lists.range(3).slice(1, 3)", "[1,2]"),
        ("[1].slice(2, 3)", "cannot slice(2, 3), list is length 1"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])", "true"),
        ("url('https://example.com:80/a?b=1&b=2').getQuery()['b'] == ['1', '2']", "true"),
        ("url('https://[::1]:80/a').getHostname() + url('/a').getEscapedPath()", "\"::1/a\""),
        ("isURL('../x') || ip('127.0.0.1').isLoopback() && ip('fe80::1').isLinkLocalUnicast()", "true"),
        ("ip('10.0.0.1').family() == 4 && isIP('1.2.3') == false && ip.isCanonical('::1')", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))", "true"),
        ("string(cidr('10.1.2.3/8').masked()) + string(cidr('10.1.2.3/8').ip())", "\"10.0.0.0/810.1.2.3\""),
        ("quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1k').add(5).asInteger() == 1005", "true"),
        ("sign(quantity('-1')) == -1 && quantity('500m').isInteger() == false", "true"),
        (
            "semver('1.2.3-a.1').isLessThan(semver('1.2.3')) && semver('v1.02', true).compareTo(semver('1.2.0')) == 0",
            "true",
        ),
        ("isSemver('01.2.3') || isSemver('1.2') ", "false"),
        (
            "format.dns1123Label().validate('A').hasValue() && !format.named('uuid').value().validate('a').orValue([]).isSorted()",
            "false",
        ),
        ("format.qualifiedName().validate('a.b/c') == optional.none()", "true"),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
        ("Object{spec: Object.spec{replicas: 3, ?x: optional.none()}}", "{\"spec\":{\"replicas\":3}}"),
        (
            "[JSONPatch{op: 'add', path: '/a', value: {'b': 1}}]",
            "[{\"op\":\"add\",\"path\":\"/a\",\"value\":{\"b\":1}}]",
        ),
        ("{'a': 1, 'a': 2}", "Failed with repeated key a"),
        ("[1,\n 2, // two\n 3,].size()", "3"),
    ] {
        assert_eq!(eval(text), expected, "{text}");
    }
}

#[test]
fn issues_say_what_and_where() {
    let env = Env::default().with("object", Type::Dyn).with("name", Type::String);
    let starts = "expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                  BYTES, IDENTIFIER}";
    for (text, expected) in [
        ("object.x <=", format!("ERROR: <input>:1:12: Syntax error: mismatched input '<EOF>' {starts}\n | object.x <=\n | ...........^")),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^".into()),
        ("nme == ''", "ERROR: <input>:1:1: undeclared reference to 'nme' (in container '')\n | nme == ''\n | ^".into()),
        ("name.foo()", "ERROR: <input>:1:9: undeclared reference to 'foo' (in container '')\n | name.foo()\n | ........^".into()),
        ("name.size", "ERROR: <input>:1:5: type 'string' does not support field selection\n | name.size\n | ....^".into()),
        (
            "name == 1 &&\n  name == 2",
            "ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(string, int)'\n | name == 1 &&\n | .....^\n\
             ERROR: <input>:2:8: found no matching overload for '_==_' applied to '(string, int)'\n |   name == 2\n | .......^".into(),
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^".into()),
        ("name.all(x, true)", "ERROR: <input>:1:1: expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)\n | name.all(x, true)\n | ^".into()),
        ("name.matches('(')", "ERROR: <input>:1:14: invalid matches argument\n | name.matches('(')\n | .............^".into()),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^".into()),
        ("has(name)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(name)\n | ....^".into()),
        ("for == 1", "ERROR: <input>:1:1: reserved identifier: for\n | for == 1\n | ^".into()),
        ("jsonpatch.escapeKey('')", "ERROR: <input>:1:1: undeclared reference to 'jsonpatch' (in container '')\n | jsonpatch.escapeKey('')\n | ^\nERROR: <input>:1:20: undeclared reference to 'escapeKey' (in container '')\n | jsonpatch.escapeKey('')\n | ...................^".into()),
        ("Object{a: 1}", "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')\n | Object{a: 1}\n | ......^".into()),
        ("'é' == 1", "ERROR: <input>:1:5: found no matching overload for '_==_' applied to '(string, int)'\n | 'é' == 1\n | .．..^".into()),
    ] {
        assert_eq!(Program::compile(text, &env).unwrap_err().to_string(), expected, "{text}");
    }
}

fn shape(schema: &Json) -> Shape {
    Shape::of_schema(schema, "T", false).unwrap()
}

#[test]
fn values_follow_their_schema() {
    let schema = json!({"type": "object", "properties": {
        "at": {"type": "string", "format": "date-time"}, "for": {"type": "string", "format": "duration"},
        "ratio": {"type": "number"}, "any": {"x-kubernetes-int-or-string": true},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "a-b": {"type": "string", "format": "byte"}, "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}}}});
    let object = json!({"at": "2020-01-01T00:00:00Z", "for": "1h", "ratio": 1, "any": "50%", "set": ["a", "b"],
        "keyed": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "a-b": "QUI=", "open": {"x": 1}, "map": {"x": 3}, "hidden": 1});
    let shape = shape(&schema);
    let env = Env::default().with_shape("self", &shape);
    let mut activation = Activation::new(CALL_LIMIT);
    activation.set("self", Value::shaped(&object, &shape));
    for text in [
        "self.at.getFullYear() == 2020 && self.__for__ == duration('60m') && self.ratio == 1.0",
        "type(self.any) == string && self.any.endsWith('%')",
        "self.set == ['b', 'a'] && self.set + ['b', 'c'] == ['a', 'b', 'c']",
        "self.keyed == [self.keyed[1], self.keyed[0]] && size(self.keyed + [self.keyed[0]]) == 2",
        "self.a__dash__b == b'AB' && has(self.open) && self.map.x == 3 && self.map['x'] == 3",
        "self.map.all(k, self.map[k] > 2)",
    ] {
        let program = Program::compile(text, &env).unwrap();
        assert!(matches!(program.run(&activation, CALL_LIMIT).0, Ok(Value::Bool(true))), "{text}");
    }
    for (text, expected) in
        [("self.hidden == 1", "undefined field 'hidden'"), ("self.open.x == 1", "undefined field 'x'")]
    {
        assert!(Program::compile(text, &env).unwrap_err().to_string().contains(expected), "{text}");
    }
}

#[test]
fn what_runs_costs_what_upstream_says() {
    let text = json!({"type": "string"});
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let schema = json!({"type": "object", "properties": {"a": text, "b": text, "n": {"type": "integer"}, "l": list,
        "m": {"type": "object", "additionalProperties": {"type": "string"}}}});
    let object =
        json!({"a": "Rook takes 👑", "b": "Rook takes 👑", "n": 5, "l": [1, 2, 3], "m": {"k1": "a", "k2": "b"}});
    let shape = shape(&schema);
    let env = Env::default().with_shape("self", &shape);
    let mut activation = Activation::new(CALL_LIMIT);
    activation.set("self", Value::shaped(&object, &shape));
    for (text, cost) in [
        ("self.a.startsWith('Rook')", 3),
        ("!self.a.startsWith('knight')", 4),
        ("self.a.matches('^[^0-9]*$')", 8),
        ("type(self.a) == string", 4),
        ("self.a.indexOf('o', 2) == 2", 4),
        ("self.a.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
        ("self.a.split(' ') == ['Rook', 'takes', '👑']", 6),
        ("self.a.substring(4, 10).trim() == 'takes'", 6),
        ("self.a.lowerAscii() == self.b.lowerAscii()", 10),
        ("'%o %o %o'.format([7, 8, 9]) == '7 10 11'", 2),
        ("1 in self.l", 5),
        ("self.l[0] in self.l", 8),
        ("self.l + [4, 5] == [1, 2, 3, 4, 5]", 4),
        ("has(self.l) && has(self.m)", 2),
        ("self.a in ['x', 'y']", 2),
        ("'k1' in self.m", 3),
        ("self.m == {'k1': 'a', 'k2': 'b'}", 3),
        ("double(5) < 10.0", 1),
        ("sets.contains(self.l, [1])", 6),
        ("self.l.all(x, x > 0)", 2 + 3 * 5 + 1),
        ("self.l.map(x, x + 1) == [2, 3, 4]", 2 + 3 * 14 + 2),
    ] {
        let program = Program::compile(text, &env).unwrap();
        let (_, actual) = program.run(&activation, CALL_LIMIT);
        assert_eq!(actual, cost, "{text}");
        assert!(program.estimate(&shape) >= actual, "{text}");
    }
}

#[test]
fn what_is_written_is_estimated_as_upstream_does() {
    let list = |of: &str| json!({"type": "array", "items": {"type": of}});
    let with = |mut schema: Json, limit: &str, most: u64| {
        schema[limit] = most.into();
        schema
    };
    let map = |of: &str| json!({"type": "object", "additionalProperties": {"type": of}});
    let objects = json!({"type": "array", "items": {"type": "object", "required": ["required"],
        "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}}});
    for (schema, rule, cost) in [
        (list("number"), "self.all(x, true)", 4718591),
        (with(list("number"), "maxItems", 10), "self.all(x, true)", 32),
        (list("string"), "self.all(x, true)", 3145727),
        (list("boolean"), "self.all(x, true)", 1887437),
        (objects, "self.all(x, true)", 555128),
        (map("number"), "self.all(x, true)", 1348169),
        (map("string"), "self.all(x, true)", 1179647),
        (map("boolean"), "has(self.x)", 1),
        (json!({"type": "string"}), "self.contains('test')", 314574),
        (json!({"type": "string", "maxLength": 10}), "self.contains('test')", 5),
        (json!({"type": "string"}), "self.startsWith('test')", 2),
        (json!({"type": "string"}), "size(self + \"hello\") > size(\"hello\")", 314578),
        (json!({"type": "string", "maxLength": 4}), "size(self + \"hello\") > size(\"hello\")", 7),
        (list("number"), "self[1] == 0.0", 2),
        (list("string"), "self[1] == self[1]", 314577),
        (with(list("number"), "maxItems", 10), "self.all(x, self.all(y, true))", 352),
    ] {
        let shape = shape(&schema);
        let program = Program::compile(rule, &Env::default().with_shape("self", &shape)).unwrap();
        assert_eq!(program.estimate(&shape), cost, "{rule} {schema}");
    }
    let shape = shape(&list("number"));
    let squared =
        Program::compile("self.all(x, self.all(y, true))", &Env::default().with_shape("self", &shape)).unwrap();
    assert!(squared.estimate(&shape) > 10_000_000);
}

#[test]
fn hostile_expressions_end_soon() {
    let big = json!({"l": (0..100_000).collect::<Vec<i64>>(), "s": "a".repeat(1 << 20)});
    let mut activation = Activation::new(CALL_LIMIT);
    activation.set("o", Value::of_json(&big));
    let env = Env::default().with("o", Type::Dyn);
    for text in [
        "o.l.all(a, o.l.all(b, a != b || true))",
        "o.l.map(a, o.l.map(b, [a, b]))",
        "o.s.replace('', o.s)",
        "o.s.matches('(a*)*b' + o.s)",
        "o.s.split('').map(x, o.s)",
        "o.l.map(x, o.s + o.s)",
        "lists.range(1000000).map(x, lists.range(1000000))",
        "o.l.distinct()",
        "o.l.exists(x, [o.l, o.l, o.l] == [o.l, o.l, [o.s]])",
        "sets.contains(o.l, o.l)",
        "o.l.map(x, o.s).join(o.s)",
        "'%s'.format([o.l.map(x, o.s)])",
    ] {
        let (started, program) = (Instant::now(), Program::compile(text, &env).unwrap());
        let result = program.run(&activation, CALL_LIMIT).0;
        let why = result.map(|v| v.to_string()).unwrap_err();
        assert!(matches!(why, Error::TooCostly | Error::Interrupted), "{text}: {why}");
        assert!(started.elapsed() < Duration::from_secs(20), "{text}");
    }
    for text in [
        "(".repeat(300) + "1" + &")".repeat(300),
        "[".repeat(300) + &"]".repeat(300),
        vec!["1"; 5000].join("+"),
        "x".repeat(200_000),
        "!".repeat(90_000) + "true1",
        format!("a{}", ".a".repeat(2000)),
        format!("optional.of(1){}", ".optMap(x, x)".repeat(40)),
        "#".repeat(50_000),
    ] {
        let started = Instant::now();
        let issues = Program::compile(&text, &env).unwrap_err().to_string();
        assert!(issues.starts_with("ERROR: <input>:1:"), "{}", &issues[..100]);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    for text in [vec!["true"; 5000].join(" && "), vec!["1"; 900].join("+") + " > 0", "!".repeat(90_000) + "true"] {
        assert!(matches!(Program::compile(&text, &env).unwrap().run(&activation, CALL_LIMIT).0, Ok(Value::Bool(true))));
    }
}

#[test]
fn composed_variables_are_evaluated_once_and_when_asked_for() {
    let mut env = Env::default().with("object", Type::Dyn).composing();
    let mut composed = Composed::default();
    for (name, text) in [("n", "object.n + 1"), ("twice", "variables.n * 2"), ("bad", "object.nothing")] {
        let program = Program::compile(text, &env).unwrap();
        env.compose(name, program.output().clone());
        composed.programs.push((name.into(), Ok(program)));
    }
    let object = json!({"n": 4});
    let mut activation = Activation::new(CALL_LIMIT);
    activation.set("object", Value::of_json(&object));
    activation.set_composed(&composed);
    let run = |text: &str| {
        let (value, cost) = Program::compile(text, &env).unwrap().run(&activation, CALL_LIMIT);
        (value.map(|v| v.to_string()).map_err(|e| e.to_string()), cost + activation.take_spent())
    };
    assert_eq!(run("variables.twice"), (Ok("10".into()), 2 + 3 + 3));
    assert_eq!(run("variables.twice + variables.n"), (Ok("15".into()), 5));
    let why = "composited variable \"bad\" fails to evaluate: no such key: nothing";
    assert_eq!(run("variables.bad == 1").0, Err(why.into()));
    assert_eq!(run("has(variables.bad)").0, Ok("true".into()));
    let issues = Program::compile("variables.x", &env).unwrap_err().to_string();
    assert!(issues.contains("undefined field 'x'"), "{issues}");
}

#[test]
fn the_authorizer_is_asked() {
    let env = Env::default().with("authorizer", Type::object("kubernetes.authorization.Authorizer"));
    let mut activation = Activation::new(CALL_LIMIT);
    activation.set("authorizer", Extension::Authorizer(Default::default()).into());
    activation.set_decide(std::sync::Arc::new(|question: &Question, verb: &str| Answer {
        allowed: question.resource == "pods" && question.namespace == "a" && verb == "get",
        reason: format!("{} {}", question.path, question.name),
        error: question.field_selector.is_empty().then(|| "no selector".into()),
    }));
    let run = |text: &str| {
        let (value, cost) = Program::compile(text, &env).unwrap().run(&activation, CALL_LIMIT);
        (value.map(|v| v.to_string()).map_err(|e| e.to_string()), cost)
    };
    let ask = "authorizer.group('').resource('pods').namespace('a').check('get')";
    assert_eq!(run(&format!("{ask}.allowed()")), (Ok("true".into()), 350_005));
    assert_eq!(run("authorizer.path('/x').check('get').reason()").0, Ok("/x ".into()));
    let selected = "authorizer.group('').resource('p').fieldSelector('a=b').name('n').check('list')";
    assert_eq!(run(&format!("{selected}.errored() || {selected}.reason() != ' n'")).0, Ok("false".into()));
    assert_eq!(
        run("authorizer.group('').resource(' ').check('get').allowed()").0,
        Err("resource must not be empty".into())
    );
    let often = format!("{ask}.allowed() && {ask}.allowed() && {ask}.allowed()");
    assert_eq!(run(&often).0, Err(Error::TooCostly.to_string()));
}
