//! Java's properties files, as `java.util.Properties` reads them.

/// A property of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JavaProperty {
    pub(super) name: String,
    pub(super) value: String,
    /// The line that it begins on, from 1 on.
    pub(super) line: usize,
}

/// The properties of a file, in their order; a later one of the same name overrides.
pub(super) fn parse(text: &str) -> Vec<JavaProperty> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut whole = line.trim_start().to_owned();
        if whole.is_empty() || whole.starts_with(['#', '!']) {
            continue;
        }
        // A backslash at its end goes on with the next line.
        while whole.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            whole.pop();
            let Some((_, next)) = lines.next() else {
                break;
            };
            whole.push_str(next.trim_start());
        }
        let (name, value) = split_name(&whole);
        properties.push(JavaProperty {
            name: unescape(name),
            value: unescape(value),
            line: number + 1,
        });
    }
    properties
}

/// The name ends at `=`, `:` or a blank that is not escaped.
fn split_name(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (c == '=' || c == ':' || c.is_whitespace());
        escaped = !escaped && c == '\\';
        ends
    });
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (name, value.trim_start())
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                plain.push(code.and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_java_does() {
        let text = "# a comment\n! another\n\na=1\nb : 2\nc 3\n d\\ e = \\u00e4\\n\\\n   x\nempty\nf=g=h \n";
        let properties = parse(text);
        let properties: Vec<_> = properties
            .iter()
            .map(|p| (&*p.name, &*p.value, p.line))
            .collect();
        let expected = [
            ("a", "1", 4),
            ("b", "2", 5),
            ("c", "3", 6),
            ("d e", "ä\nx", 7),
            ("empty", "", 9),
            ("f", "g=h ", 10),
        ];
        assert_eq!(properties, expected);
    }
}
