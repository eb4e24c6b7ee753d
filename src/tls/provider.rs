//! The cryptography, and the processor that it needs.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::TlsError;

/// What all connections are encrypted with.
///
/// # Errors
/// [`TlsError::Processor`] where it would panic.
pub(crate) fn crypto_provider() -> Result<Arc<CryptoProvider>, TlsError> {
    match missing_cpu_feature() {
        None => Ok(Arc::new(rustls_graviola::default_provider())),
        Some(feature) => Err(TlsError::Processor(feature)),
    }
}

/// What the cryptography is written for, and would panic without.
#[cfg(target_arch = "x86_64")]
fn missing_cpu_feature() -> Option<&'static str> {
    let features = [
        ("AES", is_x86_feature_detected!("aes")),
        ("PCLMULQDQ", is_x86_feature_detected!("pclmulqdq")),
        ("SSSE3", is_x86_feature_detected!("ssse3")),
        ("BMI1", is_x86_feature_detected!("bmi1")),
        ("BMI2", is_x86_feature_detected!("bmi2")),
        ("ADX", is_x86_feature_detected!("adx")),
        ("AVX2", is_x86_feature_detected!("avx2")),
    ];
    let missing = features.iter().find(|(_, is_there)| !is_there);
    missing.map(|(name, _)| *name)
}

#[cfg(not(target_arch = "x86_64"))]
fn missing_cpu_feature() -> Option<&'static str> {
    None
}
