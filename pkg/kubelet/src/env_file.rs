//! Files of environment variables that one container of a pod leaves for others (KEP-3721).

/// Why a file's text cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct EnvFileError {
    line: usize,
    reason: &'static str,
}

/// The value of `key`, the first one if there are several.
///
/// Each variable is written `NAME='value'`, without blanks around the equals sign. Everything between the quotes counts as
/// it stands, line ends too. Blank lines, blanks before a name, comment lines and a comment after the closing quote are
/// allowed. Text after the value of `key` is not looked at.
pub fn value_of(text: &str, key: &str) -> Result<Option<String>, EnvFileError> {
    let mut rest = text;
    while !rest.is_empty() {
        let left = rest.len();
        let fail = |reason| {
            let line = text[..text.len() - left].matches('\n').count() + 1;
            Err(EnvFileError { line, reason })
        };
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((name, value)) = first.trim_start_matches([' ', '\t']).split_once('=') else {
            return fail("there is no '='");
        };
        if name.is_empty() || name.ends_with([' ', '\t']) {
            return fail("the name of the variable must stand directly before '='");
        }
        // As in a shell, a blank after the equals sign ends an empty value.
        if value.trim_end_matches('\r').is_empty() || value.starts_with([' ', '\t']) {
            if name == key {
                return Ok(Some(String::new()));
            }
            rest = after;
            continue;
        }
        if !value.starts_with('\'') {
            return fail("the value must be in single quotes");
        }
        let opened = &rest[rest.len() - after.len() - newline(rest, after) - value.len() + 1..];
        let Some((value, behind)) = opened.split_once('\'') else { return fail("the closing quote is missing") };
        let (tail, after) = behind.split_once('\n').unwrap_or((behind, ""));
        if !matches!(tail.trim_start().chars().next(), None | Some('#')) {
            return fail("only a comment may follow the closing quote");
        }
        if name == key {
            return Ok(Some(value.to_owned()));
        }
        rest = after;
    }
    Ok(None)
}

/// Length of the line end between a line and what follows it.
fn newline(rest: &str, after: &str) -> usize {
    usize::from(!after.is_empty() || rest.ends_with('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_stand_between_quotes() {
        let text = "# comment\n\n  A='one'\nB='two # $HOME \\n' # why\nC='first\n  # second\n'\nD= 'x'\nE=\n\tF=''\nA='again'\nG='end'";
        for (key, expected) in [
            ("A", Some("one")),
            ("B", Some("two # $HOME \\n")),
            ("C", Some("first\n  # second\n")),
            ("D", Some("")),
            ("E", Some("")),
            ("F", Some("")),
            ("G", Some("end")),
            ("H", None),
        ] {
            assert_eq!(value_of(text, key), Ok(expected.map(str::to_owned)), "{key}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused_with_its_line() {
        for (text, line) in [
            ("A='1'\nnothing\n", 2),
            ("=''\n", 1),
            ("\nX ='1'\n", 2),
            ("X=1", 1),
            ("X=\"1\"\n", 1),
            ("Y='\n\n'\nX='open\n", 4),
            ("X='a'b\n", 1),
        ] {
            assert_eq!(value_of(text, "Z").map_err(|error| error.line), Err(line), "{text}");
        }
        assert_eq!(value_of("Z='1'\nnothing", "Z"), Ok(Some("1".to_owned())));
    }

    #[test]
    fn any_text_is_survived() {
        for text in ["=", "'", "A='", "A=''", "\n", "é='ü'", "A='x'\r\nB='y'\r\n"] {
            let _ = value_of(text, "B");
        }
        assert_eq!(value_of("A='x'\r\nB='y'\r\n", "B"), Ok(Some("y".to_owned())));
    }
}
