//! `include classpath("…")`, as files for the JVM have it: there is no class path here, so what it
//! names is absent, which HOCON has an include leave out.

use hocon::{Token, TokenKind};

/// Takes these includes out, required or not; the lines that they stood on.
pub(super) fn drop_includes(tokens: &mut Vec<Token>) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some(place) = tokens[from..].iter().position(is_include) {
        let start = from + place;
        from = match end_of_class_path(&tokens[start + 1..]) {
            Some(length) => {
                lines.push(tokens[start].line);
                tokens.drain(start..=start + length);
                start
            }
            None => start + 1,
        };
    }
    lines
}

fn is_include(token: &Token) -> bool {
    token.kind == TokenKind::Unquoted && token.value == "include"
}

/// How many tokens stand from `classpath(` to its last parenthesis and the comma behind it, if the
/// tokens begin with it.
fn end_of_class_path(tokens: &[Token]) -> Option<usize> {
    let unquoted = |token: &&Token| token.kind == TokenKind::Unquoted;
    let words = tokens.iter().take_while(unquoted);
    let opening: String = words.map(|token| token.value.trim()).collect();
    let required = opening.strip_prefix("required(").unwrap_or(&opening);
    if required.trim_start() != "classpath(" {
        return None;
    }
    let name = tokens
        .iter()
        .position(|token| token.kind == TokenKind::QuotedString)?;
    let is_closing = |token: &&Token| unquoted(token) && token.value.bytes().all(|b| b == b')');
    let closing = tokens[name + 1..].iter().take_while(is_closing).count();
    let end = name + 1 + closing;
    let has_comma = tokens
        .get(end)
        .is_some_and(|token| token.kind == TokenKind::Comma);
    (closing > 0).then_some(end + usize::from(has_comma))
}
