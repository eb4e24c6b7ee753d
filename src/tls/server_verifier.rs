//! What is checked of a server's certificate.
//!
//! As Java does, and unlike rustls' own verifier, it takes a certificate that stands in the trust
//! store itself, also one that calls itself a certificate authority, as `openssl req -x509` makes
//! them.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::certificate;
use crate::error::StoreFault;

/// Checks the chain, the time, and the name unless that is turned off.
#[derive(Debug)]
pub(crate) struct TrustStoreVerifier {
    roots: RootCertStore,
    /// Those of the store themselves.
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    verify_host_name: bool,
}

impl TrustStoreVerifier {
    pub(crate) fn new(
        trusted: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
        verify_host_name: bool,
    ) -> Result<Self, StoreFault> {
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(trusted.iter().cloned());
        if taken == 0 {
            return Err(StoreFault::NoReadableCertificate);
        }
        Ok(Self {
            roots,
            trusted,
            algorithms,
            verify_host_name,
        })
    }

    /// With more roots.
    pub(crate) fn with_roots(mut self, roots: RootCertStore) -> Self {
        self.roots.extend(roots.roots);
        self
    }

    /// With roots of which nothing else is known.
    pub(crate) fn of_roots(
        roots: RootCertStore,
        algorithms: WebPkiSupportedAlgorithms,
        verify_host_name: bool,
    ) -> Self {
        Self {
            roots,
            trusted: Vec::new(),
            algorithms,
            verify_host_name,
        }
    }
}

impl ServerCertVerifier for TrustStoreVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.trusted.contains(end_entity) {
            certificate::check_validity(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )
            .map_err(|error| match error {
                // rustls names it for what it says of itself, not for what it lacks.
                Error::InvalidCertificate(CertificateError::Other(_))
                    if certificate::is_signed_by_itself(end_entity) =>
                {
                    CertificateError::UnknownIssuer.into()
                }
                error => error,
            })?;
        }
        if self.verify_host_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes whatever a server presents.
#[derive(Debug)]
pub(crate) struct NoVerifier {
    schemes: Vec<SignatureScheme>,
}

impl NoVerifier {
    pub(crate) fn new(schemes: Vec<SignatureScheme>) -> Self {
        Self { schemes }
    }
}

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
