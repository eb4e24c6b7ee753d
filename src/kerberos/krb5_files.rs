//! The files of `krb5.conf`, and those that they include.

use std::fs;
use std::path::{Path, PathBuf};

use crate::krb5_conf::{IncludeKind, Krb5Conf};

/// Files that include each other would do so without end.
const DEPTH_MAX: usize = 10;

/// Reads what the variable `KRB5_CONFIG` names, or else `/etc/krb5.conf`. Of several files, separated
/// by colons, those count that exist.
///
/// # Errors
/// What cannot be read, or understood.
pub fn read_krb5_conf(variable: Option<&str>) -> Result<Krb5Conf, String> {
    let named = variable.filter(|text| !text.is_empty());
    let paths = named.unwrap_or("/etc/krb5.conf").split(':');
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    let existing: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
    if existing.is_empty() {
        return Err(format!(
            "{} does not exist; the variable KRB5_CONFIG names another one",
            paths[0].display()
        ));
    }
    let mut conf = Krb5Conf::default();
    for path in existing {
        read_file(path, &mut conf, 0)?;
    }
    Ok(conf)
}

fn read_file(path: &Path, conf: &mut Krb5Conf, depth: usize) -> Result<(), String> {
    let of_file = |fault: String| format!("{}: {fault}", path.display());
    if depth > DEPTH_MAX {
        return Err(of_file("too many files include one another".to_owned()));
    }
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| of_file(format!("it cannot be read: {error}")))?;
    let mut include = |conf: &mut Krb5Conf, path: &Path, kind| match kind {
        IncludeKind::File => read_file(path, conf, depth + 1),
        IncludeKind::Folder => read_folder(path, conf, depth + 1),
    };
    conf.add(&text, &mut include).map_err(of_file)
}

fn read_folder(path: &Path, conf: &mut Krb5Conf, depth: usize) -> Result<(), String> {
    let of_folder = |error| format!("{}: it cannot be read: {error}", path.display());
    let entries = fs::read_dir(path).map_err(of_folder)?;
    let names: Result<Vec<_>, _> = entries.map(|e| e.map(|e| e.file_name())).collect();
    let mut names = names.map_err(of_folder)?;
    names.sort();
    let names = names.iter().filter_map(|name| name.to_str());
    for name in names.filter(|name| is_included(name)) {
        read_file(&path.join(name), conf, depth)?;
    }
    Ok(())
}

/// Copies that editors and packages leave are not meant.
fn is_included(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.chars().all(is_plain) || (name.ends_with(".conf") && !name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_named_or_included_count_together_the_first_value_before_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let write =
            |name: &str, text: &str| fs::write(path(name), text).expect("it can be written");
        let realm = |realm: &str| format!("[libdefaults]\ndefault_realm = {realm}\n");
        fs::create_dir(path("conf.d")).expect("a folder");
        write("conf.d/b.conf", "[realms]\nR = {\nkdc = b\n}");
        write("conf.d/a", "[realms]\nR = {\nkdc = a\n}");
        write("conf.d/.hidden.conf", "wrong");
        write("conf.d/a.rpmsave", "wrong");
        write("more", &realm("SECOND"));
        let main = format!(
            "includedir {}\n{}include {}",
            path("conf.d"),
            realm("FIRST"),
            path("more")
        );
        write("krb5.conf", &main);
        let load = |variable: &str| read_krb5_conf(Some(variable));
        let conf = load(&path("krb5.conf")).expect("it is read");
        assert_eq!(conf.default_realm(), Some("FIRST"));
        let hosts = conf.kdcs("R").expect("KDCs");
        let hosts: Vec<_> = hosts.iter().map(|kdc| kdc.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b"]);
        // Of those in the variable, the ones that exist.
        let both = load(&format!("{}:{}", path("absent"), path("more"))).expect("one exists");
        assert_eq!(both.default_realm(), Some("SECOND"));
        let fault = load(&path("absent")).expect_err("none exists");
        assert!(fault.contains("absent does not exist"), "{fault}");

        write("self", &format!("include {}", path("self")));
        let fault = load(&path("self")).expect_err("there is no end");
        assert!(
            fault.ends_with("too many files include one another"),
            "{fault}"
        );
        write("broken", "include /nowhere");
        let fault = load(&path("broken")).expect_err("it is absent");
        assert!(fault.contains("/nowhere: it cannot be read"), "{fault}");
        write("folder", "includedir /nowhere");
        let fault = load(&path("folder")).expect_err("it is absent");
        assert!(fault.contains("/nowhere: it cannot be read"), "{fault}");
    }
}
