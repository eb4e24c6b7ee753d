//! Where a token comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use kafka_client::sasl::{BearerToken, TokenFault};

use crate::ENDPOINT_URL;
use crate::endpoint::TokenEndpoint;
use crate::lifetime;
use crate::state::FetchedToken;
use crate::token::{TokenAnswer, is_token, read_text};
use crate::unsecured::UnsecuredToken;

/// Where a token comes from.
#[derive(Debug)]
pub enum TokenSource {
    /// From an OAuth 2.0 provider.
    Endpoint(Box<TokenEndpoint>),
    /// From a file, which is read anew each time.
    File(PathBuf),
    /// From ourselves.
    Unsecured(UnsecuredToken),
}

impl TokenSource {
    /// One attempt.
    pub(crate) async fn fetch(
        &self,
        extensions: &Arc<[(String, String)]>,
    ) -> Result<FetchedToken, TokenFault> {
        let answer = match self {
            Self::Endpoint(endpoint) => endpoint.fetch().await?,
            Self::File(path) => {
                let fault = |message: String| TokenFault {
                    message: message.into(),
                    property: ENDPOINT_URL,
                };
                stored_token(path).await.map_err(fault)?
            }
            Self::Unsecured(token) => token.issue(SystemTime::now()),
        };
        Ok(FetchedToken {
            token: BearerToken {
                token: answer.token,
                extensions: Arc::clone(extensions),
            },
            lifetime: answer.lifetime,
        })
    }
}

async fn stored_token(path: &Path) -> Result<TokenAnswer, String> {
    let shown = path.display();
    let text = read_text(path).await;
    let text = text.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if !is_token(text.reveal()) {
        return Err(format!("{shown} has no token"));
    }
    let lifetime = lifetime::of_stored(text.reveal(), SystemTime::now());
    if lifetime.is_zero() {
        return Err(format!("the token in {shown} has expired"));
    }
    Ok(TokenAnswer {
        token: text,
        lifetime,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_each_time_and_what_is_wrong_with_it_is_said() {
        let name = format!("oauth-token-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let source = TokenSource::File(path.clone());
        let extensions = [].into();
        let fault = async || {
            let fetched = source.fetch(&extensions).await;
            fetched.expect_err("a fault").to_string()
        };
        assert!(fault().await.contains("cannot be read"));
        for (text, said) in [
            ("", "has no token"),
            ("a b", "has no token"),
            ("e30.eyJleHAiOjF9.x\n", "has expired"),
        ] {
            std::fs::write(&path, text).expect("a file");
            let fault = fault().await;
            assert!(fault.contains(said), "{fault}");
            assert!(fault.ends_with("(sasl.oauthbearer.token.endpoint.url)"));
        }
        std::fs::write(&path, "opaque\n").expect("a file");
        let fetched = source.fetch(&extensions).await.expect("a token");
        assert_eq!(fetched.token.token.reveal(), "opaque");
        std::fs::remove_file(&path).expect("it is there");
    }
}
