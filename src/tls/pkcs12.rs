//! PKCS12 (RFC 7292), with Java's attribute for trusted certificates and without.

use p12_keystore::error::Error;
use p12_keystore::{Pkcs12Archive, PrivateKeyBag};
use zeroize::Zeroizing;

use crate::error::StoreFault;

/// What a store has.
pub(crate) struct Pkcs12Store(Pkcs12Archive);

/// A key, in PKCS#8, and the certificates that may belong to it, in DER: those with its id first.
pub(crate) struct Pkcs12Key {
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// Reads a store.
pub(crate) fn read(bytes: &[u8], password: Option<&str>) -> Result<Pkcs12Store, StoreFault> {
    let opened = Pkcs12Archive::from_pkcs12(bytes, password.unwrap_or_default());
    opened.map(Pkcs12Store).map_err(|error| match error {
        // The check of the whole, and the padding of what was decrypted.
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => match password {
            Some(_) => StoreFault::WrongPassword,
            None => StoreFault::NoPassword,
        },
        error => StoreFault::Malformed(error.to_string()),
    })
}

impl Pkcs12Store {
    /// The certificates that Java's attribute calls trusted; all of them, if it stands at none, as
    /// other tools write stores. In DER.
    pub(crate) fn trusted(&self) -> Vec<Vec<u8>> {
        let has_attribute = self.0.certs.iter().any(|bag| bag.trusted);
        let certificates = self.0.certs.iter();
        let trusted = certificates.filter(|bag| bag.trusted || !has_attribute);
        trusted.map(|bag| bag.cert.as_der().to_vec()).collect()
    }

    /// The keys of the store.
    pub(crate) fn keys(&self) -> Vec<Pkcs12Key> {
        let keys = self.0.keys.iter().map(|key| Pkcs12Key {
            key: Zeroizing::new(key.key.as_der().to_vec()),
            certificates: self.candidates(key),
        });
        keys.collect()
    }

    fn candidates(&self, key: &PrivateKeyBag) -> Vec<Vec<u8>> {
        let id = key.local_key_id.as_ref().map(AsRef::<[u8]>::as_ref);
        let mut bags: Vec<_> = self.0.certs.iter().collect();
        bags.sort_by_key(|bag| id.is_none() || bag.local_key_id.as_deref() != id);
        bags.iter().map(|bag| bag.cert.as_der().to_vec()).collect()
    }
}
