//! The classic text format of Prometheus, which upstream answers unless a client asks for OpenMetrics.

/// Counters that upstream names without the ending `_total`.
const PLAIN: [&str; 2] = ["apiserver_admission_webhook_rejection_count", "apiserver_admission_webhook_fail_open_count"];
/// Authenticated users are counted under a name without the ending too.
const PLAIN_USERS: [&str; 2] = ["authenticated_user_requests", "authentication_attempts"];

/// OpenMetrics text in the classic format: counters are named with their ending, and there is no end mark.
pub(super) fn classic(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut counter = "";
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            counter = if kind == "counter" { name } else { "" };
            out.push_str(&format!("# TYPE {} {kind}\n", named(name, kind)));
        } else if line.starts_with("# ") {
            // Help comes before the type; whether it is a counter's is seen on the next line.
            out.push_str(line);
            out.push('\n');
        } else if !counter.is_empty() && is_plain(counter) {
            out.push_str(&line.replacen(&format!("{counter}_total"), counter, 1));
            out.push('\n');
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    with_help_named(&out)
}

fn is_plain(name: &str) -> bool {
    PLAIN.contains(&name) || PLAIN_USERS.contains(&name)
}

fn named(name: &str, kind: &str) -> String {
    if kind == "counter" && !is_plain(name) { format!("{name}_total") } else { name.to_owned() }
}

/// Gives each HELP line the name of the TYPE line after it.
fn with_help_named(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().and_then(|l| l.strip_prefix("# TYPE ")).and_then(|l| l.split(' ').next());
        match (line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')), next) {
            (Some((_, help)), Some(name)) => out.push_str(&format!("# HELP {name} {help}\n")),
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_get_their_ending_and_those_without_lose_it() {
        let open = "# HELP a_b Help.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n# HELP g Gauge.\n# TYPE g gauge\ng 1\n\
            # HELP authentication_attempts H.\n# TYPE authentication_attempts counter\nauthentication_attempts_total{result=\"x\"} 1\n# EOF\n";
        let expected = "# HELP a_b_total Help.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n# HELP g Gauge.\n# TYPE g gauge\ng 1\n\
            # HELP authentication_attempts H.\n# TYPE authentication_attempts counter\nauthentication_attempts{result=\"x\"} 1\n";
        assert_eq!(classic(open), expected);
    }
}
