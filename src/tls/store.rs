//! Stores of keys and of trusted certificates, recognised by their content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use secret::Secret;
use zeroize::Zeroizing;

use crate::error::{StoreFault, StorePlace, TlsError};
use crate::pem::{self, PemBlock};
use crate::{certificate, jks, pkcs12, private_key};

/// A file in PEM, PKCS12 or JKS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFile {
    /// Where it is.
    pub location: PathBuf,
    /// What opens it; PEM has none.
    pub password: Option<Secret>,
}

/// Where a private key and the chain of its certificate are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStoreSource {
    /// In a file.
    File {
        /// The file.
        store: StoreFile,
        /// What opens the key, where that is not the password of the store.
        key_password: Option<Secret>,
    },
    /// In the settings themselves, as PEM.
    Inline {
        /// The key.
        key: Secret,
        /// The certificates, that of the key and those that lead to a root.
        certificate_chain: String,
        /// What opens the key.
        key_password: Option<Secret>,
    },
}

/// What a file is, by its first bytes.
enum StoreFormat<'a> {
    Pem(&'a str),
    Pkcs12,
    Jks,
}

fn format(bytes: &[u8]) -> Result<StoreFormat<'_>, StoreFault> {
    if bytes.starts_with(&jks::MAGIC) {
        return Ok(StoreFormat::Jks);
    }
    if bytes.starts_with(&jks::JCEKS_MAGIC) {
        return Err(StoreFault::Jceks);
    }
    if pem::is_pem(bytes) {
        let text = std::str::from_utf8(bytes).map_err(|_| StoreFault::UnknownFormat)?;
        return Ok(StoreFormat::Pem(text));
    }
    match bytes.first() {
        // A SEQUENCE.
        Some(0x30) => Ok(StoreFormat::Pkcs12),
        _ => Err(StoreFault::UnknownFormat),
    }
}

/// The content of a file that may be a store.
///
/// # Errors
/// The system's, or that no store is as large.
pub(crate) fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const BYTES_MAX: u64 = 16 << 20;
    let mut bytes = Zeroizing::default();
    let mut file = File::open(path)?.take(BYTES_MAX + 1);
    match file.read_to_end(&mut bytes)? as u64 > BYTES_MAX {
        true => Err(io::Error::other("it is larger than 16 MiB")),
        false => Ok(bytes),
    }
}

impl StoreFile {
    fn read(&self) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        read_file(&self.location).map_err(|error| TlsError::Unreadable {
            location: self.location.clone(),
            error,
        })
    }

    fn fault(&self, fault: StoreFault) -> TlsError {
        TlsError::Store {
            place: StorePlace::File(self.location.clone()),
            fault,
        }
    }

    /// The certificates that are trusted, in DER.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) fn trusted(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bytes = self.read()?;
        let password = self.password.as_ref().map(Secret::reveal);
        trusted_of(&bytes, password).map_err(|fault| self.fault(fault))
    }
}

/// The certificates of a PEM text, which are all trusted.
pub(crate) fn trusted_of_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let trusted = pem::blocks(text).map(|blocks| certificates_of(&blocks));
    some(trusted.and_then(not_empty), &StorePlace::Inline)
}

fn some<T>(result: Result<T, StoreFault>, place: &StorePlace) -> Result<T, TlsError> {
    result.map_err(|fault| TlsError::Store {
        place: place.clone(),
        fault,
    })
}

fn trusted_of(
    bytes: &[u8],
    password: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, StoreFault> {
    let trusted = match format(bytes)? {
        StoreFormat::Pem(text) => certificates_of(&pem::blocks(text)?),
        StoreFormat::Pkcs12 => pkcs12::read(bytes, password)?.trusted(),
        StoreFormat::Jks => jks::read(bytes, password)?.certificates,
    };
    not_empty(trusted)
}

fn not_empty(certificates: Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, StoreFault> {
    match certificates.is_empty() {
        true => Err(StoreFault::NoCertificate),
        false => Ok(certificates.into_iter().map(CertificateDer::from).collect()),
    }
}

fn certificates_of(blocks: &[PemBlock<'_>]) -> Vec<Vec<u8>> {
    let labels = ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"];
    let certificates = blocks.iter().filter(|block| labels.contains(&block.label));
    certificates.map(|block| block.der.to_vec()).collect()
}

/// A key, and the certificates among which its own is.
struct KeyEntry {
    key: PrivateKeyDer<'static>,
    certificates: Vec<Vec<u8>>,
}

impl KeyStoreSource {
    /// The key and the chain of its certificate.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
        let (place, entry) = match self {
            Self::File {
                store,
                key_password,
            } => {
                let bytes = store.read()?;
                let place = StorePlace::File(store.location.clone());
                let entry = key_entry(&bytes, store.password.as_ref(), key_password.as_ref());
                (place, entry)
            }
            Self::Inline {
                key,
                certificate_chain,
                key_password,
            } => {
                let entry =
                    pem_key_entry(&[key.reveal(), certificate_chain], key_password.as_ref());
                (StorePlace::Inline, entry)
            }
        };
        let KeyEntry { key, certificates } = some(entry, &place)?;
        let key = provider.key_provider.load_private_key(key);
        let key = some(key.map_err(|_| StoreFault::UnusableKey), &place)?;
        let public_key = key.public_key().map(|key| key.to_vec());
        let own = certificates.iter().position(|der| match &public_key {
            Some(key) => certificate::public_key(der) == Some(key),
            None => true,
        });
        let leaf = some(own.ok_or(StoreFault::NoCertificateOfKey), &place)?;
        let chain = certificate::chain(certificates[leaf].clone(), &certificates);
        Ok(Arc::new(CertifiedKey::new(chain, key)))
    }
}

fn key_entry(
    bytes: &[u8],
    password: Option<&Secret>,
    key_password: Option<&Secret>,
) -> Result<KeyEntry, StoreFault> {
    let store_password = password.map(Secret::reveal);
    let mut entries: Vec<KeyEntry> = match format(bytes)? {
        // One password is that of the key: the text itself has none.
        StoreFormat::Pem(text) => return pem_key_entry(&[text], key_password.or(password)),
        // One password opens both, as Java has it for PKCS12.
        StoreFormat::Pkcs12 => {
            let keys = pkcs12::read(bytes, store_password)?.keys();
            let keys = keys.into_iter().map(|entry| KeyEntry {
                key: PrivatePkcs8KeyDer::from(entry.key.to_vec()).into(),
                certificates: entry.certificates,
            });
            keys.collect()
        }
        StoreFormat::Jks => {
            let store = jks::read(bytes, store_password)?;
            let password = key_password.or(password).map_or("", Secret::reveal);
            let keys = store.keys.iter().map(|entry| {
                Ok(KeyEntry {
                    key: PrivatePkcs8KeyDer::from(entry.decrypt(password)?.to_vec()).into(),
                    certificates: entry.chain.clone(),
                })
            });
            keys.collect::<Result<_, _>>()?
        }
    };
    let count = entries.len();
    let entry = entries.pop().ok_or(StoreFault::NoKey)?;
    match (count, entry.certificates.is_empty()) {
        (2.., _) => Err(StoreFault::SeveralKeys(count)),
        (_, true) => Err(StoreFault::NoCertificate),
        _ => Ok(entry),
    }
}

fn pem_key_entry(texts: &[&str], password: Option<&Secret>) -> Result<KeyEntry, StoreFault> {
    let mut keys = Vec::new();
    let mut certificates = Vec::new();
    for text in texts {
        let blocks = pem::blocks(text)?;
        for block in &blocks {
            keys.extend(private_key::of_block(block, password)?);
        }
        certificates.extend(certificates_of(&blocks));
    }
    let count = keys.len();
    let key = keys.pop().ok_or(StoreFault::NoKey)?;
    match (count, certificates.is_empty()) {
        (2.., _) => Err(StoreFault::SeveralKeys(count)),
        (_, true) => Err(StoreFault::NoCertificate),
        _ => Ok(KeyEntry { key, certificates }),
    }
}

#[cfg(test)]
mod tests;
