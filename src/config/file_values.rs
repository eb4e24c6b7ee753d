//! Values from files, so that secrets need not stand where processes and their starts show them.
//!
//! `${file:/path}` is the whole content of a file, trimmed; `${file:/path:name}` a property of a
//! Java properties file, as Java's `FileConfigProvider` has it. Both may stand inside a value.

use std::path::Path;

use super::{file, java_properties};

const OPEN: &str = "${file:";

/// The text with the references to files replaced; `None` when there are none.
///
/// # Errors
/// Which file cannot be read, or lacks the property.
pub(super) fn resolve(text: &str) -> Result<Option<String>, String> {
    if !text.contains(OPEN) {
        return Ok(None);
    }
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once(OPEN) {
        let Some((named, after)) = reference.split_once('}') else {
            return Err(format!("{OPEN}… has no closing brace"));
        };
        resolved.push_str(before);
        resolved.push_str(&value_of(named)?);
        rest = after;
    }
    resolved.push_str(rest);
    Ok(Some(resolved))
}

fn value_of(named: &str) -> Result<String, String> {
    match named.rsplit_once(':') {
        Some((path, property)) => property_of(path, property),
        None => content_of(named),
    }
}

/// The trimmed content of a file.
///
/// # Errors
/// That it cannot be read, and why.
pub(super) fn content_of(path: &str) -> Result<String, String> {
    let text = file::read_text(Path::new(path));
    let text = text.map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(text.trim().to_owned())
}

fn property_of(path: &str, name: &str) -> Result<String, String> {
    let mut properties = java_properties::parse(&content_of(path)?);
    let place = properties
        .iter()
        .rposition(|property| property.name == name);
    let place = place.ok_or_else(|| format!("{path} has no property {name}"))?;
    Ok(properties.swap_remove(place).value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_the_content_of_a_file_or_a_property_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str, text| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let whole = path("whole", " hunter2 \n");
        let properties = path("some.properties", "user = alice\npassword: hun\\ter2\n");
        for (text, expected) in [
            (format!("${{file:{whole}}}"), "hunter2"),
            (
                format!("u=\"${{file:{properties}:user}}\" p=\"${{file:{properties}:password}}\";"),
                "u=\"alice\" p=\"hun\ter2\";",
            ),
        ] {
            assert_eq!(resolve(&text).unwrap().as_deref(), Some(expected), "{text}");
        }
        assert_eq!(resolve("${x} file:/y"), Ok(None));
        for (text, fault) in [
            (format!("${{file:{whole}"), "has no closing brace"),
            ("${file:/no/such}".to_owned(), "cannot read /no/such: "),
            (
                format!("${{file:{properties}:pin}}"),
                " has no property pin",
            ),
        ] {
            let line = resolve(&text).expect_err(&text);
            assert!(line.contains(fault), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
    }
}
