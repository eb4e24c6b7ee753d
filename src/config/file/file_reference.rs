//! `${file:/path}` in a HOCON text: without quotes it would be read as a substitution.

/// The text with quotes around each such reference that stands in none, and in no comment.
/// Lines stay where they are.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (end, reference) = match rest {
            _ if rest.starts_with("\"\"\"") => (end_of_triple_quotes(rest), false),
            _ if rest.starts_with('"') => (end_of_quotes(rest), false),
            _ if rest.starts_with('#') || rest.starts_with("//") => {
                (rest.find('\n').unwrap_or(rest.len()), false)
            }
            _ if rest.starts_with("${file:") => match rest.find(['}', '\n']) {
                Some(end) if rest[end..].starts_with('}') => (end + 1, true),
                _ => (2, false),
            },
            _ => (rest.chars().next().map_or(1, char::len_utf8), false),
        };
        let (part, after) = rest.split_at(end);
        match reference {
            true => {
                let escaped = part.replace('\\', "\\\\").replace('"', "\\\"");
                quoted.extend(["\"", &escaped, "\""]);
            }
            false => quoted.push_str(part),
        }
        rest = after;
    }
    quoted
}

/// Quotes that directly follow the third one belong to the text.
fn end_of_triple_quotes(text: &str) -> usize {
    let Some(close) = text[3..].find("\"\"\"") else {
        return text.len();
    };
    let after = 3 + close + 3;
    after + text[after..].bytes().take_while(|b| *b == b'"').count()
}

fn end_of_quotes(text: &str) -> usize {
    let mut escaped = false;
    for (n, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return n + 1,
            // It is not closed, which the parser says.
            b'\n' => return n,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_quoted_where_it_stands_in_no_quotes_and_no_comment() {
        for (text, quoted) in [
            ("a = ${file:/x}", "a = \"${file:/x}\""),
            ("a = b${file:/x:k}c\n", "a = b\"${file:/x:k}\"c\n"),
            ("a = \"${file:/x}\"", "a = \"${file:/x}\""),
            ("a = \"\\\"${file:/x}\"", "a = \"\\\"${file:/x}\""),
            (
                "a = \"\"\"p=\"${file:/x}\";\"\"\"",
                "a = \"\"\"p=\"${file:/x}\";\"\"\"",
            ),
            ("# ${file:/x}\n// ${file:/x}", "# ${file:/x}\n// ${file:/x}"),
            ("a = ${file}", "a = ${file}"),
            ("a = ${file:/x\n}", "a = ${file:/x\n}"),
            ("ä = ${?ü}", "ä = ${?ü}"),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }
}
