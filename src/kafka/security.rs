//! How connections to brokers are protected (`security.protocol`), and as whom they are
//! authenticated.
//!
//! ```text
//!                  tls    sasl
//! PLAINTEXT        -      -
//! SSL              yes    -        the principal is that of the client's certificate
//! SASL_PLAINTEXT   -      yes
//! SASL_SSL         yes    yes
//! ```

use std::fmt;
use std::sync::Arc;

pub use crate::net::transport::tls_fault;
use crate::sasl::{SaslConfig, UserSasl};

/// What every connection of a client begins with.
#[derive(Clone, Default)]
pub struct SecurityConfig {
    /// TLS with these settings; none: plain text.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// SASL with this mechanism and these credentials; none: no authentication.
    pub sasl: Option<Arc<SaslConfig>>,
}

/// Why no user can authenticate by name and password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersUnsupported {
    /// Connections are not authenticated.
    #[error("the cluster is used without SASL, so there are no users")]
    WithoutSasl,
    /// They are, by other means.
    #[error("the cluster is used with {mechanism}; users authenticate with PLAIN and SCRAM only")]
    Mechanism {
        /// The SASL mechanism.
        mechanism: &'static str,
    },
}

impl SecurityConfig {
    /// The same protection, authenticated as that user.
    ///
    /// # Errors
    /// [`UsersUnsupported`]: never are connections left without authentication for a user.
    pub(crate) fn for_user(&self, user: UserSasl) -> Result<Self, UsersUnsupported> {
        let own = self.sasl.as_ref().ok_or(UsersUnsupported::WithoutSasl)?;
        let sasl = own.for_user(user);
        let mechanism = own.mechanism();
        let sasl = sasl.ok_or(UsersUnsupported::Mechanism { mechanism })?;
        Ok(Self {
            tls: self.tls.clone(),
            sasl: Some(Arc::new(sasl)),
        })
    }
}

impl fmt::Debug for SecurityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityConfig")
            .field("tls", &self.tls.is_some())
            .field("sasl", &self.sasl)
            .finish()
    }
}
