//! TLS towards registries: the system's certificate authorities, else those that browsers trust.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// What connections are made with. Without `https` nothing is trusted, and nothing loaded.
///
/// # Errors
/// Why TLS cannot be had here.
pub(crate) fn client_config(https: bool) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if https {
        if let Some(missing) = missing_cpu_feature() {
            return Err(format!(
                "https needs a CPU with {missing}, which this one lacks"
            ));
        }
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
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
