//! Files as people write them, and what of them cannot be followed.

use fuzzing::fuzz;

use super::*;

const TYPICAL: &str = "\
# A comment
; another
[logging]
    default = FILE:/var/log/krb5.log

[libdefaults]
    default_realm = EXAMPLE.COM
    dns_lookup_kdc = false
    kdc_timeout = 5s

[realms]
    EXAMPLE.COM = {
        kdc = kdc-1.example.com
        kdc = tcp/kdc-2.example.com:1088
        kdc = [2001:db8::1]:90
        kdc = 2001:db8::2
        kdc = https://proxy/KdcProxy
        admin_server = kdc-1.example.com
        auth_to_local = {
            RULE = \"a = b\"
        }
    }
    OTHER.ORG = {
        kdc = other
    }

[domain_realm]
    .example.com = EXAMPLE.COM
    .other.org = OTHER.ORG
    one.example.com = OTHER.ORG
";

fn parse(text: &str) -> Result<Krb5Conf, String> {
    let mut conf = Krb5Conf::default();
    let mut include = |_: &mut Krb5Conf, _: &Path, _| Err("nothing is included".to_owned());
    conf.add(text, &mut include)?;
    Ok(conf)
}

fn typical() -> Krb5Conf {
    parse(TYPICAL).expect("it is a krb5.conf")
}

#[test]
fn kdcs_are_those_of_the_realm_in_order_as_far_as_tcp_reaches() {
    let kdcs = typical().kdcs("EXAMPLE.COM").expect("KDCs");
    let expected = [
        ("kdc-1.example.com", 88),
        ("kdc-2.example.com", 1088),
        ("2001:db8::1", 90),
        ("2001:db8::2", 88),
    ];
    let expected = expected.map(|(host, port)| KdcAddress {
        host: host.to_owned(),
        port,
    });
    assert_eq!(kdcs, expected);
    let fault = typical().kdcs("NOWHERE").expect_err("no realm");
    assert!(fault.contains("not looked up in DNS"), "{fault}");
    let only = "[realms]\nR = {\nkdc = https://proxy/KdcProxy\n}";
    let fault = parse(only).expect("a file").kdcs("R").expect_err("no TCP");
    assert!(fault.contains("https://proxy"), "{fault}");
}

#[test]
fn the_realm_of_a_host_is_that_of_its_name_or_a_parent_or_the_default() {
    let conf = typical();
    for (host, realm) in [
        ("one.example.com", "OTHER.ORG"),
        ("two.example.com", "EXAMPLE.COM"),
        ("a.b.other.org", "OTHER.ORG"),
        ("example.com", "EXAMPLE.COM"),
        ("elsewhere", "EXAMPLE.COM"),
    ] {
        assert_eq!(conf.realm_of(host), Some(realm), "{host}");
    }
    assert_eq!(Krb5Conf::default().realm_of("elsewhere"), None);
}

#[test]
fn a_time_out_is_milliseconds_or_says_its_unit() {
    let timeout = |text: &str| {
        let conf = parse(&format!("[libdefaults]\n{text}")).expect(text);
        conf.kdc_timeout().as_millis()
    };
    assert_eq!(timeout("kdc_timeout = 2500"), 2500);
    assert_eq!(timeout("kdc_timeout = 3s"), 3000);
    assert_eq!(timeout("kdc_timeout = 0"), 10_000);
    assert_eq!(timeout("kdc_timeout = x"), 10_000);
    assert_eq!(timeout("kdc_timeout = 99999999"), 120_000);
    assert_eq!(timeout(""), 10_000);
}

#[test]
fn encryption_types_are_those_that_are_permitted_and_that_we_have() {
    let kinds = |text: &str| {
        let conf = parse(&format!("[libdefaults]\n{text}")).expect(text);
        conf.permitted("default_tgs_enctypes")
    };
    assert_eq!(kinds(""), Ok(EncryptionType::ALL.to_vec()));
    assert_eq!(
        kinds("permitted_enctypes = arcfour-hmac, AES256-CTS aes128-sha2"),
        Ok(vec![
            EncryptionType::Aes256Sha1,
            EncryptionType::Aes128Sha256
        ])
    );
    assert_eq!(
        kinds("permitted_enctypes = aes\ndefault_tgs_enctypes = DEFAULT -aes256-cts -aes128-cts"),
        Ok(vec![
            EncryptionType::Aes256Sha384,
            EncryptionType::Aes128Sha256
        ])
    );
    let fault = kinds("permitted_enctypes = des3-cbc-sha1 rc4").expect_err("none is ours");
    assert!(fault.starts_with("permitted_enctypes = "), "{fault}");
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    for (text, fault) in [
        ("a = b", "line 1: it stands before any [section]"),
        ("[libdefaults\n", "line 1: ] is missing"),
        ("[libdefaults]\n\ndefault_realm", "line 3: = is missing"),
        ("[realms]\n}", "line 2: nothing is open that } closes"),
        ("[realms]\nR = {\nkdc = k", "the } of realms, R is missing"),
        ("include /x", "nothing is included"),
    ] {
        assert_eq!(parse(text), Err(fault.to_owned()), "{text:?}");
    }
    let nested = format!("[realms]\n{}", "a = {\n".repeat(20));
    let fault = parse(&nested).expect_err("too deep");
    assert!(fault.ends_with("too many { are open"), "{fault}");
}

#[test]
fn fuzz_krb5_conf() {
    fuzz("krb5_conf", |input| {
        let mut bytes = TYPICAL.as_bytes().to_vec();
        input.damage(&mut bytes);
        // It is read or refused, and nothing panics.
        if let Ok(conf) = parse(&String::from_utf8_lossy(&bytes)) {
            let _ = (conf.kdcs("EXAMPLE.COM"), conf.realm_of("a.example.com"));
            let _ = (conf.kdc_timeout(), conf.permitted("default_tkt_enctypes"));
        }
    });
}
