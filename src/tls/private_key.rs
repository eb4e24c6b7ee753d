//! Private keys, encrypted or not: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) and SEC1 (RFC 5915).

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use secret::Secret;

use crate::error::StoreFault;
use crate::pem::PemBlock;

/// The key that a block of PEM has; `None` if it has none.
pub(crate) fn of_block(
    block: &PemBlock<'_>,
    password: Option<&Secret>,
) -> Result<Option<PrivateKeyDer<'static>>, StoreFault> {
    let der = || block.der.to_vec();
    let is_encrypted = block.label == "ENCRYPTED PRIVATE KEY";
    if !is_encrypted && !block.label.ends_with("PRIVATE KEY") {
        return Ok(None);
    }
    if block.is_encrypted {
        return Err(StoreFault::OldKeyEncryption);
    }
    let key = match block.label {
        "PRIVATE KEY" => PrivatePkcs8KeyDer::from(der()).into(),
        "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der()).into(),
        "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der()).into(),
        "ENCRYPTED PRIVATE KEY" => decrypt(&block.der, password)?,
        other => {
            let fault = format!("a {other} is not read here: write it as PKCS#8");
            return Err(StoreFault::Malformed(fault));
        }
    };
    Ok(Some(key))
}

fn decrypt(der: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, StoreFault> {
    let password = password.ok_or(StoreFault::NoKeyPassword)?;
    let key = match EncryptedPrivateKeyInfoRef::try_from(der) {
        Ok(key) => key,
        Err(_) if is_of_pkcs12(der) => return Err(StoreFault::OldKeyEncryption),
        Err(error) => return Err(StoreFault::Malformed(format!("its key: {error}"))),
    };
    if key.encryption_algorithm.pbes2().is_none() {
        return Err(StoreFault::OldKeyEncryption);
    }
    let key = key
        .decrypt(password.reveal())
        .map_err(|_| StoreFault::WrongKeyPassword)?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// Whether it is encrypted by one of pkcs-12PbeIds (RFC 7292, appendix C), which a PEM file has no
/// reason to use.
fn is_of_pkcs12(der: &[u8]) -> bool {
    const PBE_IDS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x0C, 0x01];
    der.windows(PBE_IDS.len()).any(|window| window == PBE_IDS)
}
