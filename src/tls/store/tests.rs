//! Against stores that openssl and Java's keytool have made: see `proto-tests/golden/stores/make`.

use std::fs;

use super::*;
use crate::provider::crypto_provider;

fn testdata(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto-tests/golden/stores");
    folder.join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(testdata(name)).expect("a file")
}

fn file(name: &str, password: Option<&str>) -> StoreFile {
    StoreFile {
        location: testdata(name),
        password: password.map(Secret::new),
    }
}

fn trusted(name: &str, password: Option<&str>) -> Result<usize, StoreFault> {
    match file(name, password).trusted() {
        Ok(certificates) => {
            assert_eq!(
                certificates[0].to_vec(),
                pem::blocks(&text("ca.pem")).expect("PEM")[0].der.to_vec()
            );
            Ok(certificates.len())
        }
        Err(error) => Err(fault(error)),
    }
}

fn fault(error: TlsError) -> StoreFault {
    match error {
        TlsError::Store { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

/// How many certificates lead from that of the key towards its root.
fn chain(source: &KeyStoreSource) -> Result<usize, StoreFault> {
    let provider = crypto_provider().expect("this processor");
    let loaded = source.load(&provider).map_err(fault)?;
    assert!(loaded.keys_match().is_ok(), "{source:?}");
    Ok(loaded.cert.len())
}

fn key(
    name: &str,
    password: Option<&str>,
    key_password: Option<&str>,
) -> Result<usize, StoreFault> {
    chain(&KeyStoreSource::File {
        store: file(name, password),
        key_password: key_password.map(Secret::new),
    })
}

fn inline(key: &str, certificates: &str, password: Option<&str>) -> Result<usize, StoreFault> {
    chain(&KeyStoreSource::Inline {
        key: Secret::new(text(key)),
        certificate_chain: certificates.to_owned(),
        key_password: password.map(Secret::new),
    })
}

#[test]
fn trust_stores_of_every_format_are_known_by_their_content() {
    assert_eq!(trusted("ca.pem", None), Ok(1));
    // With Java's attribute, and without.
    assert_eq!(trusted("trust-keytool.p12", Some("storepass")), Ok(1));
    assert_eq!(trusted("trust-openssl.p12", Some("storepass")), Ok(1));
    assert_eq!(trusted("trust.jks", Some("storepass")), Ok(1));
    // As Java has it, nothing is checked without a password.
    assert_eq!(trusted("trust.jks", None), Ok(1));
}

#[test]
fn a_certificate_in_pem_may_be_called_as_openssl_has_called_it() {
    for label in ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"] {
        let text = text("ca.pem").replace(" CERTIFICATE", &format!(" {label}"));
        assert_eq!(
            trusted_of_pem(&text).map(|all| all.len()).ok(),
            Some(1),
            "{label}"
        );
    }
    let other = text("ca.pem").replace(" CERTIFICATE", " PKCS7");
    assert!(trusted_of_pem(&other).is_err());
}

#[test]
fn key_stores_of_every_format_are_known_by_their_content() {
    assert_eq!(key("key.p12", Some("storepass"), None), Ok(1));
    assert_eq!(key("key-legacy.p12", Some("storepass"), None), Ok(1));
    assert_eq!(key("key.jks", Some("storepass"), Some("keypass")), Ok(1));
}

#[test]
fn keys_in_pem_may_be_encrypted_and_of_any_form() {
    let leaf = text("leaf.pem");
    for (key, password) in [
        ("key-pkcs8.pem", None),
        ("key-sec1.pem", None),
        ("key-encrypted.pem", Some("keypass")),
        ("key-3des.pem", Some("keypass")),
    ] {
        assert_eq!(inline(key, &leaf, password), Ok(1), "{key}");
    }
    assert_eq!(
        inline("key-pkcs1.pem", &text("rsa-certificate.pem"), None),
        Ok(1)
    );
}

#[test]
fn the_certificate_of_the_key_comes_first_wherever_it_stands() {
    let certificates = format!("{}{}", text("ca.pem"), text("leaf.pem"));
    assert_eq!(inline("key-pkcs8.pem", &certificates, None), Ok(1));
    let one_line = certificates.replace('\n', " ");
    assert_eq!(inline("key-pkcs8.pem", &one_line, None), Ok(1));
}

#[test]
fn a_store_that_cannot_be_used_says_why() {
    let leaf = text("leaf.pem");
    for (result, fault) in [
        (
            trusted("trust.jks", Some("wrong")),
            StoreFault::WrongPassword,
        ),
        (
            trusted("trust-keytool.p12", Some("wrong")),
            StoreFault::WrongPassword,
        ),
        (trusted("trust-keytool.p12", None), StoreFault::NoPassword),
        (trusted("key-sec1.pem", None), StoreFault::NoCertificate),
        (trusted("make", None), StoreFault::UnknownFormat),
        (
            key("key-jceks.jks", Some("storepass"), None),
            StoreFault::Jceks,
        ),
        (
            key("key.jks", Some("storepass"), None),
            StoreFault::WrongKeyPassword,
        ),
        (key("key.p12", None, None), StoreFault::NoPassword),
        (key("ca.pem", None, None), StoreFault::NoKey),
        (key("key-sec1.pem", None, None), StoreFault::NoCertificate),
        (key("trust.jks", Some("storepass"), None), StoreFault::NoKey),
        (
            inline("key-pkcs8.pem", &text("ca.pem"), None),
            StoreFault::NoCertificateOfKey,
        ),
        (
            inline("key-encrypted.pem", &leaf, None),
            StoreFault::NoKeyPassword,
        ),
        (
            inline("key-encrypted.pem", &leaf, Some("wrong")),
            StoreFault::WrongKeyPassword,
        ),
        (
            inline("key-pbes1.pem", &leaf, Some("keypass")),
            StoreFault::OldKeyEncryption,
        ),
        (
            inline("key-headers.pem", &leaf, Some("keypass")),
            StoreFault::OldKeyEncryption,
        ),
        (inline("ca.pem", &leaf, None), StoreFault::NoKey),
    ] {
        assert_eq!(result, Err(fault));
    }
}

#[test]
fn a_key_of_a_curve_that_is_not_signed_with_is_an_error_that_names_those_that_are() {
    let key = file("key-p521.pem", None);
    let source = KeyStoreSource::Inline {
        key: Secret::new(fs::read_to_string(&key.location).expect("a file")),
        certificate_chain: text("leaf.pem"),
        key_password: None,
    };
    assert_eq!(chain(&source), Err(StoreFault::UnusableKey));
    assert!(StoreFault::UnusableKey.to_string().contains("P-384"));
}

#[test]
fn a_file_without_end_is_no_store() {
    let endless = StoreFile {
        location: PathBuf::from("/dev/zero"),
        password: None,
    };
    let error = endless.trusted().expect_err("it is too large");
    assert_eq!(error.to_string(), "/dev/zero: it is larger than 16 MiB");
}

#[test]
fn what_is_cut_off_is_an_error_and_no_panic() {
    let password = Secret::new("storepass");
    for name in [
        "key.p12",
        "key-legacy.p12",
        "key.jks",
        "trust.jks",
        "trust-keytool.p12",
    ] {
        let whole = fs::read(testdata(name)).expect("a file");
        for length in 0..whole.len() {
            let bytes = &whole[..length];
            assert!(
                trusted_of(bytes, Some("storepass")).is_err(),
                "{name} {length}"
            );
            assert!(
                key_entry(bytes, Some(&password), None).is_err(),
                "{name} {length}"
            );
        }
    }
}

#[test]
fn what_is_damaged_ends_in_no_panic() {
    let password = Secret::new("keypass");
    let provider = crypto_provider().expect("this processor");
    for name in ["key.jks", "trust.jks"] {
        let whole = fs::read(testdata(name)).expect("a file");
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            let _ = trusted_of(&bytes, None);
            // Without a password of the store nothing else notices.
            if let Ok(entry) = key_entry(&bytes, None, Some(&password)) {
                let _ = provider.key_provider.load_private_key(entry.key);
            }
        }
    }
}

#[test]
fn no_secret_shows() {
    let source = KeyStoreSource::File {
        store: file("key.jks", Some("hunter2")),
        key_password: Some(Secret::new("hunter2")),
    };
    let provider = crypto_provider().expect("this processor");
    let error = source.load(&provider).expect_err("a wrong password");
    let shown = format!("{source:?} {error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
