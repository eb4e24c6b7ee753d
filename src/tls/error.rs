//! Why there is no TLS, in words for the operator.

use std::io;
use std::path::PathBuf;

/// Why a store, a key or a certificate cannot be used. Shows where it is, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The processor lacks what the cryptography is written for.
    #[error("TLS needs a processor with {0}, which this one lacks")]
    Processor(&'static str),
    /// The file cannot be read.
    #[error("{}: {error}", location.display())]
    Unreadable {
        /// The file.
        location: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The store can be read, and is not as it should be.
    #[error("{place}: {fault}")]
    Store {
        /// The file, or that the text stands in the setting itself.
        place: StorePlace,
        /// What is wrong.
        fault: StoreFault,
    },
    /// No cipher suite is left that could be spoken.
    #[error("none of the cipher suites is of an enabled version of TLS")]
    NoCipherSuite,
}

/// Which of its settings keeps a client from TLS.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// None of them: the processor does.
    #[error(transparent)]
    Processor(TlsError),
    /// The cipher suites, or the versions.
    #[error(transparent)]
    CipherSuites(TlsError),
    /// Who vouches for servers.
    #[error(transparent)]
    TrustStore(TlsError),
    /// Who we are.
    #[error(transparent)]
    KeyStore(TlsError),
}

/// Which of its settings keeps a server from TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// None of them: the processor does.
    #[error(transparent)]
    Processor(TlsError),
    /// What the server presents.
    #[error(transparent)]
    KeyStore(TlsError),
    /// Who vouches for clients.
    #[error(transparent)]
    ClientCa(TlsError),
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// A file.
    File(PathBuf),
    /// A setting has the text.
    Inline,
}

impl std::fmt::Display for StorePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Inline => f.write_str("the PEM text"),
        }
    }
}

/// What is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// Its first bytes are none of those of a store.
    #[error("it is neither PEM nor PKCS12 nor JKS")]
    UnknownFormat,
    /// Java's JCEKS.
    #[error("it is a JCEKS store: convert it, with keytool -importkeystore -deststoretype pkcs12")]
    Jceks,
    /// The password does not open it.
    #[error("its password is wrong")]
    WrongPassword,
    /// It cannot be opened without one.
    #[error("it has a password, and none is given")]
    NoPassword,
    /// The password of the key does not open the key.
    #[error("the password of its key is wrong")]
    WrongKeyPassword,
    /// The key is encrypted.
    #[error("its key is encrypted, and no password of the key is given")]
    NoKeyPassword,
    /// The key is encrypted in a way that is not read here.
    #[error("its key is encrypted in an old way: write it anew, with openssl pkcs8 -topk8")]
    OldKeyEncryption,
    /// The key is of an algorithm or a curve that the provider does not sign with, or damaged.
    #[error(
        "its key cannot be used: an RSA key of 2048 to 8192 bits, an EC key of P-256 or P-384, \
         or an Ed25519 key is expected"
    )]
    UnusableKey,
    /// It is cut off, or not as its format has it.
    #[error("it is damaged: {0}")]
    Malformed(String),
    /// There is no certificate in it.
    #[error("it has no certificate")]
    NoCertificate,
    /// There is no private key in it.
    #[error("it has no private key")]
    NoKey,
    /// There are several keys, and nothing says which to use.
    #[error("it has {0} private keys, and one is expected")]
    SeveralKeys(usize),
    /// None of its certificates belongs to its key.
    #[error("none of its certificates belongs to its key")]
    NoCertificateOfKey,
    /// None of its certificates can be trusted.
    #[error("none of its certificates can be read as one")]
    NoReadableCertificate,
}
