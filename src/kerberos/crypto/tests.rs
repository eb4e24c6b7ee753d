//! The examples of the RFCs, and what does not go with a key.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    digits
        .chunks(2)
        .map(|pair| byte(pair).expect("hex"))
        .collect()
}

fn key(kind: EncryptionType, hex: &str) -> KerberosKey {
    KerberosKey::new(kind, SecretBytes::new(bytes(hex))).expect("the length of its type")
}

/// RFC 8009, appendix A.
const KEY_128: &str = "3705D96080C17728A0E800EAB6E0D23C";
const KEY_256: &str = "6D404D37FAF79F9DF0D33568D320669800EB4836472EA8A026D16B7182460C52";

#[test]
fn keys_are_derived_as_in_rfc_8009() {
    let usage = KeyUsage::Example;
    for (kind, base, kc, ke, ki) in [
        (
            EncryptionType::Aes128Sha256,
            KEY_128,
            "B31A018A48F54776F403E9A396325DC3",
            "9B197DD1E8C5609D6E67C3E37C62C72E",
            "9FDA0E56AB2D85E1569A688696C26A6C",
        ),
        (
            EncryptionType::Aes256Sha384,
            KEY_256,
            "EF5718BE86CC84963D8BBB5031E9F5C4BA41F28FAF69E73D",
            "56AB22BEE63D82D7BC5227F6773F8EA7A5EB1C825160C38312980C442E5C7E49",
            "69B16514E3CD8E56B82010D5C73012B622C4D00FFC23ED1F",
        ),
    ] {
        let key = key(kind, base);
        let derived = |what| key.derive(usage, what).to_vec();
        assert_eq!(derived(DerivedKey::Checksum), bytes(kc));
        assert_eq!(derived(DerivedKey::Encryption), bytes(ke));
        assert_eq!(derived(DerivedKey::Integrity), bytes(ki));
    }
}

#[test]
fn texts_are_encrypted_as_in_rfc_8009() {
    let key = key(EncryptionType::Aes128Sha256, KEY_128);
    let confounder = bytes("7BCA285E2FD4130FB55B1A5C83BC5B24");
    let confounder = confounder.try_into().expect("a block");
    let encrypted = key.encrypt_with(KeyUsage::Example, &bytes("000102030405"), confounder);
    let expected =
        bytes("84D7F30754ED987BAB0BF3506BEB09CFB55402CEF7E6877CE99E247E52D16ED4421DFDF8976C");
    assert_eq!(encrypted, expected);
}

/// The key of "password" in RFC 3962, appendix B, is this one after one more derivation, by
/// "kerberos".
#[test]
fn keys_are_derived_as_in_rfc_3962() {
    let constant = n_fold(b"kerberos");
    let derived = derive_by_aes(&bytes("cdedb5281bb2f801565a1122b2563515"), constant);
    assert_eq!(derived.to_vec(), bytes("42263c6e89f4fc28b8df68ee09799f15"));
    let base = bytes("cdedb5281bb2f801565a1122b25635150ad1f7a04bb9f3a333ecc0e2e1f70837");
    let derived = derive_by_aes(&base, constant);
    let expected = bytes("fe697b52bc0d3ce14432ba036a92e65bbb52280990a2fa27883998d72af30161");
    assert_eq!(derived.to_vec(), expected);
}

#[test]
fn what_was_encrypted_comes_back_whatever_its_length() {
    for kind in EncryptionType::ALL {
        let key = KerberosKey::random(kind);
        for len in 0..50 {
            let text: Vec<u8> = (0..len).collect();
            let encrypted = key.encrypt(KeyUsage::AsRep, &text);
            let decrypted = key.decrypt(KeyUsage::AsRep, &encrypted);
            assert_eq!(decrypted.expect("the same key").reveal(), text);
            let len = encrypted.len();
            assert_eq!(len, BLOCK + text.len() + kind.mac_len());
        }
    }
}

#[test]
fn another_key_another_use_and_any_damage_are_noticed() {
    for kind in EncryptionType::ALL {
        let key = KerberosKey::random(kind);
        let encrypted = key.encrypt(KeyUsage::AsRep, b"a session key");
        let with = |key: &KerberosKey, usage| key.decrypt(usage, &encrypted);
        let other = KerberosKey::random(kind);
        assert_eq!(with(&other, KeyUsage::AsRep), Err(IntegrityFault));
        assert_eq!(with(&key, KeyUsage::TgsRep), Err(IntegrityFault));
        for at in 0..encrypted.len() {
            let mut damaged = encrypted.clone();
            damaged[at] ^= 1;
            let decrypted = key.decrypt(KeyUsage::AsRep, &damaged);
            assert_eq!(decrypted, Err(IntegrityFault));
            let cut = key.decrypt(KeyUsage::AsRep, &encrypted[..at]);
            assert_eq!(cut, Err(IntegrityFault));
        }
        let checksum = key.checksum(KeyUsage::TgsReqChecksum, &[b"a", b"b"]);
        let verify = |text: &[u8], checksum: &[u8]| {
            key.verify_checksum(KeyUsage::TgsReqChecksum, &[text], checksum)
        };
        assert_eq!(verify(b"ab", &checksum), Ok(()));
        assert_eq!(verify(b"ac", &checksum), Err(IntegrityFault));
        assert_eq!(verify(b"ab", &checksum[1..]), Err(IntegrityFault));
        assert_eq!(verify(b"ab", &[]), Err(IntegrityFault));
        assert_eq!(format!("{key:?}").matches("***").count(), 1);
    }
}
