//! The cost of calls, and the size of what they give.

use super::{Entries, Estimator, Range};
use crate::cel::ast::{Expr, Kind, Literal};
use crate::cel::charge::{CHECK, LIST, STRUCT};
use crate::cel::check::Reference;
use crate::cel::types::Type;

const TRAVERSE: f64 = 0.1;
const PATTERN: f64 = 0.25;
/// Of the longest regular expression of a named format.
const FORMAT_REGEX: f64 = 128.0;
const FORMAT_MAX: u64 = 64;

/// An argument: what it is, and how large.
struct Node<'e> {
    expr: &'e Expr,
    ty: &'e Type,
    size: Option<Range>,
    path: Vec<String>,
}

/// The cost of a call without its arguments, and the size of its result.
type Call = (Range, Option<Range>);

fn only(cost: Range) -> Option<Call> {
    Some((cost, None))
}

impl<'e> Estimator<'e> {
    pub(super) fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Range {
        if function == "dyn" && args.len() == 1 {
            let cost = self.cost(&args[0]);
            self.copy_sizes(expr.id, &args[0]);
            return cost.plus(Range::fixed(1));
        }
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let Reference::Functions(overloads) = &self.checked.references[expr.id] else { return Range::fixed(0) };
        let target = target.filter(|_| overloads.first().is_some_and(|o| o.member));
        let base = target.map_or(Range::fixed(0), |target| self.cost(target));
        let (mut total, mut size): (Range, Option<Range>) = (Range { min: u64::MAX, max: 0 }, None);
        for overload in overloads {
            let (cost, result) = self.overload(expr, function, overload.id, target, args, &costs);
            total = total.union(cost);
            size = match (size, result) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if let (Some(container), Some(step)) = (args.first(), index_step(overload.id)) {
                size = self.entries_of(container).map(|e| e.value);
                let path = self.below(container, step);
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        self.set_size(expr.id, size);
        base.plus(total)
    }

    fn node<'n>(&mut self, expr: &'n Expr) -> Node<'n>
    where
        'e: 'n,
    {
        Node { expr, ty: self.ty(expr), size: self.size(expr), path: self.path(expr) }
    }

    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        id: &str,
        target: Option<&Expr>,
        args: &[Expr],
        costs: &[Range],
    ) -> Call {
        let sum = costs.iter().fold(Range::fixed(0), |sum, cost| sum.plus(*cost));
        let target = target.map(|target| self.node(target));
        let nodes: Vec<Node<'_>> = args.iter().map(|arg| self.node(arg)).collect();
        let found = self.of_lists(id, target.as_ref(), &nodes);
        let found = found.or_else(|| self.of_kubernetes(function, id, target.as_ref(), &nodes));
        if let Some((cost, size)) = found {
            return (cost.plus(sum), size);
        }
        match (id, args) {
            ("logical_or" | "logical_and", [..]) => {
                return (Range { min: costs[0].min, max: costs[0].plus(costs[1]).max }, None);
            }
            ("conditional", [_, then, otherwise]) => {
                let size = nodes[1].known().union(nodes[2].known());
                let entries = Entries::union(self.entries_of(then), self.entries_of(otherwise));
                self.entries.extend(entries.map(|e| (expr.id, e)));
                return (costs[0].plus(costs[1].union(costs[2])), Some(size));
            }
            ("add_string" | "add_bytes" | "add_list", [a, b]) => {
                let size = nodes[0].known().plus(nodes[1].known());
                let entries = Entries::union(self.entries_of(a), self.entries_of(b));
                self.entries.extend(entries.map(|e| (expr.id, e)));
                let own = if id == "add_list" { Range::fixed(1) } else { size.scaled(TRAVERSE) };
                return (own.plus(sum), Some(size));
            }
            _ => {}
        }
        let (cost, size) = standard(id, target.as_ref(), &nodes);
        (cost.plus(sum), size)
    }

    fn of_lists(&self, id: &str, target: Option<&Node<'_>>, args: &[Node<'_>]) -> Option<Call> {
        let made = |cost: Range, size: Range| Some((cost.plus(Range::fixed(LIST + 1)), Some(size)));
        let compared = |node: &Node<'_>, text: bool| {
            let size = node.known();
            let square = size.times(size);
            made(square.scaled(if text { 2.0 + TRAVERSE } else { 2.0 }), square)
        };
        let is_text = |id: &str| id.starts_with("list_string_") || id.starts_with("list_bytes_");
        match (id, target, args) {
            ("list_sets_contains_list" | "list_sets_intersects_list", _, [a, b]) => {
                only(a.known().times(b.known()).plus(Range::fixed(1)))
            }
            ("list_sets_equivalent_list", _, [a, b]) => {
                only(a.known().times(b.known()).scaled(2.0).plus(Range::fixed(1)))
            }
            ("list_slice", Some(target), [from, to]) => {
                let most = to.whole().unwrap_or(target.known().max);
                let size = Range::fixed(most.saturating_sub(from.whole().unwrap_or(0)));
                made(size, size)
            }
            ("lists_range", None, [count]) => {
                let size = Range::fixed(count.whole().unwrap_or(u64::MAX));
                made(size, size)
            }
            ("list_reverse", Some(target), []) => made(target.known(), target.known()),
            ("list_flatten" | "list_flatten_int", Some(target), args) => {
                let depth = args.first().map_or(1, |depth| depth.whole().unwrap_or(u64::MAX));
                made(target.known().scaled(depth as f64), target.known())
            }
            ("list_distinct", Some(target), []) => {
                let text = matches!(target.ty, Type::List(of) if matches!(**of, Type::String | Type::Bytes));
                compared(target, text)
            }
            (id, Some(target), []) if id.ends_with("_sort") => compared(target, is_text(id)),
            (id, Some(_), [keys]) if id.ends_with("_sortByAssociatedKeys") => compared(keys, is_text(id)),
            _ => None,
        }
    }

    /// Functions that Kubernetes charges itself.
    fn of_kubernetes(&self, function: &str, id: &str, target: Option<&Node<'_>>, args: &[Node<'_>]) -> Option<Call> {
        let one = || only(Range::fixed(1));
        let read = |node: &Node<'_>, factor: f64| node.known().scaled(factor);
        match (function, target, args) {
            ("check", ..) => only(Range::fixed(CHECK)),
            (
                "serviceAccount"
                | "path"
                | "group"
                | "resource"
                | "subresource"
                | "namespace"
                | "name"
                | "allowed"
                | "reason"
                | "error"
                | "errored"
                | "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "format.named"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                ..,
            ) => one(),
            ("fieldSelector" | "labelSelector", _, [selector]) => {
                let size = selector.known();
                let requirements = size.scaled(0.5).scaled((LIST + STRUCT) as f64);
                only(Range::fixed(LIST).plus(size.scaled(TRAVERSE)).plus(requirements))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                let Type::List(of) = target.ty else { return only(read(target, TRAVERSE)) };
                let mut each = Range::fixed(1);
                if matches!(**of, Type::String | Type::Bytes) {
                    each = each.plus(self.item_size(target).scaled(TRAVERSE));
                }
                only(target.known().times(each))
            }
            ("url", _, [text]) | ("escapeKey", _, [text]) => Some((read(text, TRAVERSE), Some(text.known()))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                Some((read(text, TRAVERSE), Some(text.known())))
            }
            ("replace", Some(text), [from, to, ..]) => {
                Some((read(text, 2.0 * TRAVERSE), Some(replaced(text.known(), from.known(), to.known()))))
            }
            ("split", Some(text), args) => {
                let most = args.get(1).and_then(Node::whole).unwrap_or(text.known().max);
                Some((read(text, 2.0 * TRAVERSE), Some(Range { min: 0, max: most })))
            }
            ("join", Some(list), args) => Some(self.joined(list, args.first())),
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let cost = matching(text.known(), pattern.known());
                Some((cost, Some(Range { min: 0, max: text.known().max })))
            }
            ("ip", ..) if id == "cidr_ip" => one(),
            ("ip" | "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver", _, [text, ..]) => {
                only(read(text, TRAVERSE))
            }
            ("isCanonical", _, [text]) => only(read(text, 2.0 * TRAVERSE)),
            ("containsIP" | "containsCIDR", _, [other]) => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).scaled(TRAVERSE);
                if function == "containsCIDR" {
                    cost = cost.plus(bytes.scaled(TRAVERSE)).plus(Range::fixed(1));
                }
                only(if id.ends_with("_string") { cost.plus(read(other, TRAVERSE)) } else { cost })
            }
            ("validate", _, [text]) => only(read(text, TRAVERSE).scaled(FORMAT_REGEX * PATTERN)),
            ("_==_", _, [a, b]) if a.ty == b.ty => equality(a, b),
            _ => None,
        }
    }

    fn item_size(&self, list: &Node<'_>) -> Range {
        if list.path.is_empty() {
            return Range::UNKNOWN;
        }
        let mut path = list.path.clone();
        path.push("@items".into());
        self.size_at(&path).unwrap_or(Range::UNKNOWN)
    }

    fn joined(&self, list: &Node<'_>, separator: Option<&Node<'_>>) -> Call {
        let count = list.known();
        let mut size = count.times(self.item_size(list));
        if let Some(separator) = separator {
            let between = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            size = size.plus(separator.known().times(between));
        }
        (size.scaled(TRAVERSE), Some(size))
    }
}

fn equality(a: &Node<'_>, b: &Node<'_>) -> Option<Call> {
    let name = match a.ty {
        Type::Opaque(_) => return only(Range::fixed(1)),
        Type::Struct(name) => &**name,
        _ => return None,
    };
    match name {
        "kubernetes.NamedFormat" => only(Range { min: 1, max: FORMAT_MAX }.scaled(TRAVERSE)),
        "kubernetes.URL" => {
            let size = b.size.map_or(Range::fixed(1), |size| size);
            only(Range { min: 1, max: if a.size.is_some() { size.max } else { 1 } }.scaled(TRAVERSE))
        }
        "kubernetes.Quantity" | "kubernetes.Semver" => only(Range::fixed(1)),
        name if name.starts_with("kubernetes.authorization.") => only(Range::fixed(1)),
        _ => None,
    }
}

impl Node<'_> {
    fn known(&self) -> Range {
        self.size.unwrap_or(Range::UNKNOWN)
    }

    /// The amount of an integer that is written down.
    fn whole(&self) -> Option<u64> {
        match &self.expr.kind {
            Kind::Literal(Literal::Int(value)) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
}

fn index_step(overload: &str) -> Option<&'static str> {
    match overload {
        "index_list" => Some("@items"),
        "index_map" => Some("@values"),
        _ => None,
    }
}

fn matching(text: Range, pattern: Range) -> Range {
    text.plus(Range::fixed(1)).scaled(TRAVERSE).times(pattern.scaled(PATTERN))
}

fn standard(id: &str, target: Option<&Node<'_>>, args: &[Node<'_>]) -> Call {
    let grown =
        |size: Range, min: fn(u64) -> u64, max: fn(u64) -> u64| Some(Range { min: min(size.min), max: max(size.max) });
    match (id, target, args) {
        ("string_format", Some(text), _) => (text.known().scaled(TRAVERSE), None),
        ("string_to_bytes", _, [text]) => {
            (text.known().scaled(TRAVERSE), grown(text.known(), |n| n, |n| n.saturating_mul(4)))
        }
        ("bytes_to_string", _, [bytes]) => (bytes.known().scaled(TRAVERSE), grown(bytes.known(), |n| n / 4, |n| n)),
        ("strings_quote", _, [text]) => (
            text.known().scaled(TRAVERSE),
            grown(text.known(), |n| n.saturating_add(2), |n| n.saturating_mul(2).saturating_add(2)),
        ),
        ("starts_with_string" | "ends_with_string", _, [part]) => (part.known().scaled(TRAVERSE), None),
        ("in_list", _, [_, list]) => (list.known(), None),
        ("matches_string", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
            (matching(text.known(), pattern.known()), None)
        }
        ("contains_string", Some(text), [part]) => {
            (text.known().scaled(TRAVERSE).times(part.known().scaled(TRAVERSE)), None)
        }
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            _,
            [a, b],
        ) => {
            let max = a.known().max.min(b.known().max);
            (Range { min: u64::from(max > 0), max }.scaled(TRAVERSE), None)
        }
        _ => (Range::fixed(1), None),
    }
}

/// The size of a text some of whose parts are replaced by others.
fn replaced(text: Range, from: Range, to: Range) -> Range {
    let parts = |whole: u64, part: u64| (whole as f64 / part as f64).ceil() as u64;
    let (mut count, mut kept) = (Range::fixed(0), Range::fixed(0));
    if from.min == 0 {
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if to.max <= from.min {
        kept.max = text.max;
    } else {
        count.max = parts(text.max, from.min);
    }
    if from.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if from.max <= to.min {
        kept.min = text.min;
    } else {
        count.min = parts(text.min, from.max);
    }
    count.times(to).plus(kept)
}
