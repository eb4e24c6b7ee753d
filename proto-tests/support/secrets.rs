//! The secrets of the tests, and that none of them is shown by anybody.
//!
//! ```text
//! a program's log and its /metrics ────▶ looked through ─▶ its owner's test fails (Program)
//! the log of servers in this process ──▶ looked through ─▶ the next test with one fails (Proxy)
//! HTTP answers, close frames, output ──▶ looked through ─▶ the test that reads it fails
//! ```
//!
//! A program that is given a secret logs at `trace`, and so do servers in this process. A test that
//! gives a program a password which is not in the table fails: what is not there is not looked for.

use std::io;
use std::path::Path;
use std::sync::{LazyLock, Mutex, Once};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use super::kafka::root;
#[cfg(test)]
use super::program::Program;

/// The passwords and tokens of the tests, and what those begin with that are made when they run.
const SECRETS: [&str; 12] = [
    // Users of brokers, right and wrong: see scripts/kafka.
    "alice-secret",
    "bob-secret",
    "dave-secret",
    "wrong-secret",
    "guess-",
    // Of the token endpoint, and how each of its tokens begins: see token_endpoint.
    "client-secret-7",
    "wrong-client-secret",
    "eyJhbGciOiJFUzI1NiIsImtpZCI6InRlc3Qi",
    // How each token of the OpenID provider begins: see openid_provider.
    "eyJhbGciOiJFUzI1NiIsImtpZCI6Im9wZW5pZC",
    // Of stores: see scripts/kafka and golden/*/make.
    "storepass",
    // Of settings and headers.
    "hunter2",
    "hunter3",
];

/// Folders whose files have private keys.
const KEYS: [&str; 3] = ["golden/stores", "golden/tls", "golden/tls-server"];

/// A secret, and what it looks like where somebody has encoded it.
struct SecretForms {
    name: String,
    forms: Vec<String>,
}

static FORMS: LazyLock<Vec<SecretForms>> = LazyLock::new(|| {
    let passwords = SECRETS.iter().map(|secret| SecretForms {
        name: (*secret).to_owned(),
        forms: forms_of(secret),
    });
    passwords.chain(private_keys()).collect()
});

/// As it is, in base64 with whatever stands before and behind it, in hexadecimal, and as a list of
/// numbers, which is how Rust prints bytes.
fn forms_of(secret: &str) -> Vec<String> {
    let numbers: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
    let hexadecimal = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_owned(), numbers.join(", "), hexadecimal];
    for before in 0..3 {
        let text = "\0".repeat(before) + secret;
        // The characters that have bits of the secret alone.
        let (begin, end) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            forms.push(encoded[begin..end].to_owned());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The first line of each key, which differs from those of the others.
fn private_keys() -> Vec<SecretForms> {
    let folders = KEYS.map(|folder| root().join("proto-tests").join(folder));
    let files = folders.iter().flat_map(|folder| folder.read_dir().unwrap());
    let keys = files.filter_map(|file| {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).ok()?;
        let (_, key) = text.split_once("PRIVATE KEY-----\n")?;
        let line = key.lines().find(|line| line.len() == 64)?;
        Some(SecretForms {
            name: path.display().to_string(),
            forms: vec![line.to_owned()],
        })
    });
    keys.collect()
}

/// The secret that is in the text, in whatever form.
pub(crate) fn found_in(text: &str) -> Option<&'static str> {
    let mut secrets = FORMS.iter();
    let shown = secrets.find(|secret| secret.forms.iter().any(|form| text.contains(form)))?;
    Some(&shown.name)
}

/// Fails where a secret is in the text.
pub(crate) fn assert_none_in(text: &str) {
    if let Some(secret) = found_in(text) {
        panic!("{secret} is shown: {text}");
    }
}

/// Whether a program that is started so has secrets.
///
/// # Panics
/// One of them is not in the table.
pub(crate) fn are_given(args: &[&str], variables: &[(&str, &str)]) -> bool {
    let flags = args.windows(2).map(|pair| (pair[0], pair[1]));
    let variables = variables.iter().copied();
    let given = flags.chain(variables.clone());
    for (_, value) in given.filter(|(name, _)| is_of_a_password(name)) {
        assert_known(value);
    }
    let texts = args
        .iter()
        .copied()
        .chain(variables.map(|(_, value)| value));
    let mut are_there = false;
    for text in texts {
        for word in text.split_whitespace() {
            if let Some((name, value)) = word.rsplit_once('=')
                && is_of_a_password(name)
            {
                assert_known(value.trim_matches([';', '"']));
                are_there = true;
            }
        }
        are_there |= found_in(text).is_some() || reads_a_secret(text);
    }
    are_there
}

fn is_of_a_password(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let endings = ["password", "secret", "_pass", "user_info"];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn assert_known(value: &str) {
    let is_file = value.starts_with('@') || value.starts_with("${file:");
    assert!(
        is_file || value.is_empty() || found_in(value).is_some(),
        "{value} is not in the table of support/secrets.rs"
    );
}

/// Whether a setting stands for the content of a file, or is one that has secrets.
fn reads_a_secret(text: &str) -> bool {
    let has_secrets = |path: &str| {
        let text = std::fs::read_to_string(Path::new(path));
        text.is_ok_and(|text| found_in(&text).is_some())
    };
    text.contains("file:") || has_secrets(text.trim_start_matches('@'))
}

/// What servers in this process have shown.
static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Looks through what is logged in this process, at every level. `RUST_LOG=debug` prints it.
pub(crate) fn watch_this_process() -> SecretsGuard {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned());
        let printed = tracing_subscriber::fmt::layer().with_test_writer();
        let searched = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(|| LogSearch);
        let subscriber = tracing_subscriber::registry()
            .with(printed.with_filter(level.parse::<Targets>().unwrap()))
            .with(searched.with_filter(LevelFilter::TRACE));
        // A binary with a log of its own keeps that.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
    SecretsGuard
}

/// Takes whole lines.
struct LogSearch;

impl io::Write for LogSearch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if found_in(&text).is_some() {
            SHOWN.lock().unwrap().push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fails at its end when a server in this process has shown a secret.
pub(crate) struct SecretsGuard;

impl Drop for SecretsGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let shown = SHOWN.lock().unwrap().clone();
            assert!(shown.is_empty(), "secrets are logged: {shown:?}");
        }
    }
}

#[test]
fn a_secret_is_found_in_every_form_that_it_may_be_found_in() {
    let secret = "hunter2";
    let (head, tail) = ("Authorization: Basic ", "\r\n");
    let shown = |text: &str| found_in(&format!("{head}{text}{tail}")) == Some(secret);
    for before in ["", "u:", "us:", "user:", "\0user\0"] {
        for behind in ["", "x", "xy", "xyz"] {
            let text = format!("{before}{secret}{behind}");
            assert!(shown(&text) && shown(&STANDARD_NO_PAD.encode(&text)));
            assert!(shown(&format!("{:?}", text.as_bytes())), "{text}");
        }
    }
    assert!(!shown("hunter") && !shown("aHVudGVy"));
    let key = std::fs::read_to_string(root().join("proto-tests/golden/tls/server.key"));
    assert!(found_in(&key.unwrap()).unwrap().ends_with("server.key"));
}

#[test]
fn a_program_with_a_secret_is_known_and_a_secret_that_is_not_in_the_table_is_an_error() {
    let jaas = "sasl.jaas.config=Module required username=\"a\" password=\"hunter2\";";
    for (args, variables) in [
        (&["-D", jaas][..], &[][..]),
        (&["--ssl-keystore-password", "storepass"], &[]),
        (&["-D", "a=\"${file:/secret}\""], &[]),
        (&[], &[("WSPROXY_KAFKA_SSL_KEY_PASS", "hunter2")]),
    ] {
        assert!(are_given(args, variables), "{args:?}");
    }
    assert!(!are_given(&["--dev", "--port", "0"], &[("A", "b=c")]));
    let unknown = jaas.replace("hunter2", "new");
    let refused = std::panic::catch_unwind(|| are_given(&["-D", &unknown], &[]));
    assert!(refused.is_err());
    let refused = std::panic::catch_unwind(|| are_given(&["--key-password", "new"], &[]));
    assert!(refused.is_err());
}

#[test]
fn a_program_that_logs_a_secret_fails_its_test() {
    let telling = || drop(Program::start(&["--dev", "--server-id", "hunter2"]));
    let failure = std::panic::catch_unwind(telling).unwrap_err();
    let failure = failure.downcast_ref::<String>().unwrap();
    assert!(failure.starts_with("secrets are logged: "), "{failure}");
}
