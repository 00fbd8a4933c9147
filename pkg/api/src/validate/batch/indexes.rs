//! Sets of indexes as text: `1,3-5,7`.

/// How many there are; they are in order and below `completions`.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for span in spans(text, completions) {
        let (first, end) = span?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(out_of_order(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that is in both.
pub(super) fn common(one: &str, other: &str, completions: i64) -> Option<i64> {
    // What cannot be read is complained of elsewhere.
    let (mut left, mut right) = (spans(one, completions).flatten(), spans(other, completions).flatten());
    let (mut a, mut b) = (left.next()?, right.next()?);
    loop {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 { a = left.next()? } else { b = right.next()? }
    }
}

fn spans(text: &str, completions: i64) -> impl Iterator<Item = Result<(i64, i64), String>> {
    text.split(',').filter(move |_| !text.is_empty()).map(move |span| {
        let number = |text: &str| match text.parse::<i64>() {
            Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
            Ok(n) if n >= completions => Err(format!("too large index: {text:?}")),
            Ok(n) => Ok(n),
        };
        let (first, end) = span.split_once('-').map_or((span, None), |(first, end)| (first, Some(end)));
        if end.is_some_and(|end| end.contains('-')) {
            return Err(format!(
                "the fragment {span:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let first = number(first)?;
        let Some(end) = end else { return Ok((first, first)) };
        let end = number(end)?;
        if first >= end { Err(out_of_order(first, end)) } else { Ok((first, end)) }
    })
}

fn out_of_order(before: i64, now: i64) -> String {
    format!("non-increasing order, previous: {before}, current: {now}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_and_compared() {
        for (text, expected) in [
            ("", Ok(0)),
            ("0,2-4", Ok(4)),
            ("5", Err("too large index: \"5\"")),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("3-2", Err("non-increasing order, previous: 3, current: 2")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
        ] {
            assert_eq!(count(text, 5), expected.map_err(str::to_owned), "{text}");
        }
        assert!(count("1-2-3", 5).is_err());
        assert_eq!(common("0,2-4", "1,3", 5), Some(3));
        assert_eq!(common("0,2", "1,3", 5), None);
    }
}
