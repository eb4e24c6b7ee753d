//! A keytab by MIT's ktutil, and what is no keytab.

use fuzzing::fuzz;

use super::*;

/// See `make` beside it.
const KEYTAB: &[u8] = include_bytes!("../../../proto-tests/golden/kerberos/alice.keytab");

fn principal(text: &str) -> KerberosPrincipal {
    KerberosPrincipal::parse(text, None).expect(text)
}

fn keys_of(content: &[u8], name: &str) -> Result<Vec<KerberosKey>, String> {
    Keytab::parse(content)?.keys_of(&principal(name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_newest_keys_are_taken_the_preferred_type_first() {
    let keys = keys_of(KEYTAB, "alice@TEST.LOCAL").expect("keys");
    let shown: Vec<_> = keys
        .iter()
        .map(|key| (key.kind(), hex(key.reveal())))
        .collect();
    let expected = [
        (
            EncryptionType::Aes256Sha1,
            "98302bee8ab5a4aee570b2f694a09e51c114659ff05eb3882a9d746eeeca808d",
        ),
        (
            EncryptionType::Aes128Sha1,
            "e1a38dae9a18a871c52230aa6a63fb96",
        ),
        (
            EncryptionType::Aes256Sha384,
            "2fd32f296d781b8b9fa90d5f6b48678420d30aa72e2daf05105420521596803e",
        ),
        (
            EncryptionType::Aes128Sha256,
            "a9f83e4aad396251b2f30d5f0d451591",
        ),
    ];
    let expected = expected.map(|(kind, key)| (kind, key.to_owned()));
    assert_eq!(shown, expected);
    let service = keys_of(KEYTAB, "kafka/b-1.example@TEST.LOCAL").expect("keys");
    assert_eq!(service.len(), 1);
    let shown = format!("{:?}", Keytab::parse(KEYTAB));
    assert!(shown.contains("300") && !shown.contains("152"), "{shown}");
}

#[test]
fn a_principal_without_a_key_to_use_is_told_what_there_is() {
    let fault = keys_of(KEYTAB, "carol@TEST.LOCAL").expect_err("no key");
    assert_eq!(
        fault,
        "has no key of carol@TEST.LOCAL, but of alice@TEST.LOCAL, bob@TEST.LOCAL, \
         kafka/b-1.example@TEST.LOCAL"
    );
    let fault = keys_of(KEYTAB, "bob@TEST.LOCAL").expect_err("an old type");
    assert!(fault.contains("encryption types 23,"), "{fault}");
    let fault = keys_of(&[5, 2], "bob@TEST.LOCAL").expect_err("nothing in it");
    assert!(fault.ends_with("but of nobody"), "{fault}");
}

#[test]
fn what_was_removed_is_passed_over_and_what_is_no_keytab_is_said() {
    let unused = [
        &[5, 2][..],
        &(-6_i32).to_be_bytes(),
        b"unused",
        &KEYTAB[2..],
    ]
    .concat();
    assert_eq!(Keytab::parse(&unused), Keytab::parse(KEYTAB));
    let padded = [KEYTAB, &[0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(Keytab::parse(&padded), Keytab::parse(KEYTAB));
    let fault = |content: &[u8]| Keytab::parse(content).expect_err("no keytab");
    assert_eq!(fault(b""), "is no keytab");
    assert_eq!(fault(b"principal"), "is no keytab");
    assert!(fault(&[5, 1, 0]).contains("0x0501"));
    assert_eq!(fault(&KEYTAB[..KEYTAB.len() - 3]), "is a damaged keytab");
    assert_eq!(fault(&[5, 2, 0x80, 0, 0, 0]), "is a damaged keytab");
}

#[test]
fn fuzz_keytabs() {
    fuzz("keytabs", |input| {
        let mut content = KEYTAB.to_vec();
        input.damage(&mut content);
        // It is read or refused, and nothing panics.
        let _ = keys_of(&content, "alice@TEST.LOCAL");
    });
}
