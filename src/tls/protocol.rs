//! Versions and cipher suites by the names that Java has for them.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedProtocolVersion};

use crate::error::TlsError;

/// The versions that are spoken (`ssl.enabled.protocols`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolVersions {
    tls12: bool,
    tls13: bool,
}

impl Default for ProtocolVersions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}

impl ProtocolVersions {
    /// Reads a comma list of Java's names. Versions before TLS 1.2 are never spoken, and may stand
    /// beside newer ones.
    ///
    /// # Errors
    /// The accepted values.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut versions = Self {
            tls12: false,
            tls13: false,
        };
        let accepted = || "a comma list of TLSv1.2 and TLSv1.3".to_owned();
        for name in text.split(',').map(str::trim) {
            match name {
                "TLSv1.3" => versions.tls13 = true,
                "TLSv1.2" => versions.tls12 = true,
                "TLSv1.1" | "TLSv1" | "SSLv3" | "SSLv2Hello" => {}
                _ => return Err(accepted()),
            }
        }
        match versions.tls12 || versions.tls13 {
            true => Ok(versions),
            false => Err(format!("{}; older ones are not secure", accepted())),
        }
    }

    pub(crate) fn of_rustls(self) -> Vec<&'static SupportedProtocolVersion> {
        let tls13 = self.tls13.then_some(&rustls::version::TLS13);
        let tls12 = self.tls12.then_some(&rustls::version::TLS12);
        tls13.into_iter().chain(tls12).collect()
    }
}

/// The cipher suites that are offered (`ssl.cipher.suites`); all, unless some are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CipherSuites(Vec<CipherSuite>);

impl CipherSuites {
    /// Reads a comma list of Java's names; an empty one means all.
    ///
    /// # Errors
    /// The accepted values.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let suites = names.map(|name| {
            let known = SUITES.iter().find(|(java, _)| *java == name);
            known.map(|(_, suite)| *suite).ok_or_else(|| {
                let names: Vec<_> = SUITES.iter().map(|(java, _)| *java).collect();
                format!("a comma list of {}", names.join(", "))
            })
        });
        suites.collect::<Result<_, _>>().map(Self)
    }

    /// Leaves out the other suites.
    pub(crate) fn restrict(
        &self,
        provider: &mut CryptoProvider,
        versions: ProtocolVersions,
    ) -> Result<(), TlsError> {
        if !self.0.is_empty() {
            let suites = &mut provider.cipher_suites;
            suites.retain(|suite| self.0.contains(&suite.suite()));
        }
        let versions = versions.of_rustls();
        let speaks = |suite: &rustls::SupportedCipherSuite| versions.contains(&suite.version());
        match provider.cipher_suites.iter().any(speaks) {
            true => Ok(()),
            false => Err(TlsError::NoCipherSuite),
        }
    }
}

/// Java's names of the suites that there are.
const SUITES: &[(&str, CipherSuite)] = &[
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::crypto_provider;

    #[test]
    fn versions_have_javas_names_and_old_ones_are_never_spoken() {
        let count = |text: &str| ProtocolVersions::parse(text).map(|v| v.of_rustls().len());
        assert_eq!(count("TLSv1.2,TLSv1.3"), Ok(2));
        assert_eq!(count("TLSv1.2, TLSv1.1, TLSv1"), Ok(1));
        for refused in ["TLSv1.1", "", "TLS1.3", "tlsv1.3"] {
            assert!(count(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn every_suite_has_a_name_and_no_other_name_is_taken() {
        let provider = crypto_provider().expect("this processor");
        let suites: Vec<_> = provider.cipher_suites.iter().map(|s| s.suite()).collect();
        let named: Vec<_> = SUITES.iter().map(|(_, suite)| *suite).collect();
        assert!(
            suites.iter().all(|suite| named.contains(suite)),
            "{suites:?}"
        );
        assert_eq!(suites.len(), named.len());
        assert!(CipherSuites::parse("TLS_RSA_WITH_AES_128_CBC_SHA").is_err());
        assert_eq!(CipherSuites::parse(""), Ok(CipherSuites::default()));
    }

    #[test]
    fn suites_of_no_enabled_version_leave_nothing_to_speak() {
        let suites = CipherSuites::parse("TLS_AES_128_GCM_SHA256").expect("a suite");
        let mut provider = CryptoProvider::clone(&crypto_provider().expect("this processor"));
        let tls12 = ProtocolVersions::parse("TLSv1.2").expect("a version");
        assert!(suites.restrict(&mut provider, tls12).is_err());
        assert!(
            suites
                .restrict(&mut provider, ProtocolVersions::default())
                .is_ok()
        );
        assert_eq!(provider.cipher_suites.len(), 1);
    }
}
