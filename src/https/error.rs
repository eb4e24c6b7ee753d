//! Why a request has no answer.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why a request has no answer.
#[derive(Debug)]
pub enum HttpsError {
    /// The connection was not made, or it broke.
    Failed(Box<dyn Error + Send + Sync>),
    /// There was none within that time.
    TimedOut(Duration),
}

impl HttpsError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }

    /// What TLS says, if that is the reason.
    pub fn tls(&self) -> Option<&rustls::Error> {
        let Self::Failed(error) = self else {
            return None;
        };
        let mut next: Option<&(dyn Error + 'static)> = Some(&**error);
        while let Some(error) = next {
            if let Some(tls) = error.downcast_ref() {
                return Some(tls);
            }
            next = match error.downcast_ref::<io::Error>() {
                // What it was made of; its source is what that comes from.
                Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

/// What it comes from: hyper's own words say little.
impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => write!(f, "no answer within {} ms", after.as_millis()),
            Self::Failed(error) => {
                let mut innermost: &dyn Error = &**error;
                while let Some(source) = innermost.source() {
                    innermost = source;
                }
                write!(f, "{innermost}")
            }
        }
    }
}
