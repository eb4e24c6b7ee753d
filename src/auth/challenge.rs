//! The texts of a challenge (RFC 9110, section 11.6.1).

/// A quoted string of printable ASCII.
pub(super) fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}
