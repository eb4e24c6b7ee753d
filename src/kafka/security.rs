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
use crate::sasl::SaslConfig;

/// What every connection of a client begins with.
#[derive(Clone, Default)]
pub struct SecurityConfig {
    /// TLS with these settings; none: plain text.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// SASL with this mechanism and these credentials; none: no authentication.
    pub sasl: Option<Arc<SaslConfig>>,
}

impl fmt::Debug for SecurityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityConfig")
            .field("tls", &self.tls.is_some())
            .field("sasl", &self.sasl)
            .finish()
    }
}
