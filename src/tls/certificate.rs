//! What certificates say, as far as it is asked for here.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// The public key that a certificate is about (DER of SubjectPublicKeyInfo, RFC 5280).
pub(crate) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    Some(read(certificate)?.tbs_certificate.subject_pki.raw)
}

/// The certificates that lead from `leaf` towards its root, as far as `others` have them. A root
/// is left out: who does not have it would not trust it.
pub(crate) fn chain(leaf: Vec<u8>, others: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![leaf];
    while let Some(issuer) = issuer_of(&chain, others) {
        chain.push(issuer.to_vec());
    }
    chain.into_iter().map(CertificateDer::from).collect()
}

fn issuer_of<'a>(chain: &[Vec<u8>], others: &'a [Vec<u8>]) -> Option<&'a [u8]> {
    let last = read(chain.last()?)?.tbs_certificate;
    let issuer = others.iter().find(|der| {
        let certificate = read(der).map(|certificate| certificate.tbs_certificate);
        certificate.is_some_and(|tbs| {
            tbs.subject.as_raw() == last.issuer.as_raw()
                && tbs.subject.as_raw() != tbs.issuer.as_raw()
        }) && !chain.contains(der)
    });
    issuer.map(Vec::as_slice)
}

/// Whether nobody else is said to have signed it.
pub(crate) fn is_signed_by_itself(certificate: &[u8]) -> bool {
    read(certificate).is_some_and(|certificate| {
        let names = certificate.tbs_certificate;
        names.subject.as_raw() == names.issuer.as_raw()
    })
}

/// Whether it is valid at that time.
///
/// # Errors
/// As rustls has them.
pub(crate) fn check_validity(certificate: &[u8], now: UnixTime) -> Result<(), Error> {
    let encoding = Error::InvalidCertificate(CertificateError::BadEncoding);
    let validity = match read(certificate) {
        Some(certificate) => certificate.tbs_certificate.validity,
        None => return Err(encoding),
    };
    let seconds = i64::try_from(now.as_secs()).map_err(|_| encoding.clone())?;
    let now = ASN1Time::from_timestamp(seconds).map_err(|_| encoding)?;
    if now < validity.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

fn read(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate)
}
