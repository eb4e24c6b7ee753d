//! Which JAAS lines make a login, and which are refused.

use std::fs;

use tempfile::TempDir;

use super::*;

/// See `make` beside it: of alice@TEST.LOCAL.
const KEYTAB: &str = "proto-tests/golden/kerberos/alice.keytab";

/// A folder with a krb5.conf.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let conf = "[libdefaults]\ndefault_realm = TEST.LOCAL\n\
                [realms]\nTEST.LOCAL = {\nkdc = 127.0.0.1\n}\n";
    fs::write(folder.path().join("krb5.conf"), conf).expect("it can be written");
    folder
}

fn resolve(service: &str, options: &str) -> Result<String, String> {
    let folder = folder();
    let properties = KerberosProperties {
        service_name: service.to_owned(),
        ..KerberosProperties::default()
    };
    let line = format!("com.sun.security.auth.module.Krb5LoginModule required {options};");
    let entry = JaasEntry::parse(&line).expect("an entry");
    let conf = folder.path().join("krb5.conf");
    match properties.resolve_with(Some(&entry), conf.to_str()) {
        Ok(config) => Ok(format!("{config:?}")),
        Err(fault) => Err(format!("{}: {}", fault.property, fault.fault)),
    }
}

fn keytab(more: &str) -> String {
    format!("useKeyTab=true storeKey=true keyTab=\"{KEYTAB}\" {more}")
}

#[test]
fn a_keytab_and_a_principal_make_a_login_which_shows_no_key() {
    for (service, more) in [
        ("kafka", "principal=\"alice@TEST.LOCAL\""),
        (
            "",
            "principal=alice serviceName=kafka useTicketCache=true doNotPrompt=true",
        ),
        (
            "kafka",
            "principal=alice serviceName=kafka debug=true renewTGT=true",
        ),
    ] {
        let login = resolve(service, &keytab(more)).expect("a login");
        assert!(
            login.contains("\"kafka\"") && login.contains("alice"),
            "{login}"
        );
        assert!(!login.contains("bytes"), "{login}");
    }
}

#[test]
fn what_cannot_be_followed_is_refused_with_the_way_out() {
    for (service, options, said) in [
        (
            "kafka",
            "useTicketCache=true",
            "sasl.jaas.config: only a keytab can be logged in with, not a ticket cache or a \
             password: useKeyTab=true keyTab=\"/path\" principal=\"user@REALM\"",
        ),
        (
            "kafka",
            "useKeyTab=true principal=alice",
            "sasl.jaas.config: its option keyTab is needed",
        ),
        (
            "kafka",
            &keytab(""),
            "sasl.jaas.config: its option principal is needed",
        ),
        (
            "kafka",
            &keytab("principal=alice isInitiator=false"),
            "sasl.jaas.config: its option isInitiator=false is for brokers",
        ),
        (
            "",
            &keytab("principal=alice"),
            "sasl.kerberos.service.name: it is needed: what the brokers' principals begin with",
        ),
        (
            "kafka",
            &keytab("principal=alice serviceName=other"),
            "sasl.kerberos.service.name: it is \"kafka\", and \"other\" in sasl.jaas.config",
        ),
        (
            "kafka",
            &keytab("principal=carol"),
            "sasl.jaas.config: the keytab proto-tests/golden/kerberos/alice.keytab has no key of \
             carol@TEST.LOCAL, but of",
        ),
        (
            "kafka",
            &keytab("principal=\"alice@ELSEWHERE\""),
            "sasl.mechanism: GSSAPI needs krb5.conf: [realms] has no kdc of ELSEWHERE",
        ),
        (
            "kafka",
            "useKeyTab=true keyTab=\"/nowhere\" principal=alice",
            "sasl.jaas.config: the keytab /nowhere cannot be read: No such file",
        ),
    ] {
        let fault = resolve(service, options).expect_err(said);
        assert!(fault.starts_with(said), "{fault}");
    }
    let entry = JaasEntry::parse("a.b.PlainLoginModule required;").expect("an entry");
    let properties = KerberosProperties::default();
    let fault = |entry, conf| {
        let resolved = properties.resolve_with(entry, conf);
        resolved.expect_err("a fault").fault
    };
    for entry in [None, Some(&entry)] {
        let fault = fault(entry, None);
        assert!(
            fault.contains("needs com.sun.security.auth.module.Krb5LoginModule"),
            "{fault}"
        );
    }
}

#[test]
fn a_krb5_conf_that_is_absent_is_named() {
    let line = format!(
        "x.auth.module.Krb5LoginModule required {};",
        keytab("principal=alice serviceName=k")
    );
    let entry = JaasEntry::parse(&line).expect("an entry");
    let resolved = KerberosProperties::default().resolve_with(Some(&entry), Some("/nowhere"));
    let fault = resolved.expect_err("it is absent");
    assert_eq!(fault.property, "sasl.mechanism");
    assert_eq!(
        fault.fault,
        "GSSAPI needs krb5.conf: /nowhere does not exist; the variable KRB5_CONFIG names another one"
    );
}
