//! Against an endpoint in this process.

use futures_util::future::join_all;
use secret::Secret;
use tokio::time::timeout;

use super::*;
use crate::endpoint::{Grant, GrantProperties, TokenEndpoint};
use crate::fake::FakeTokenEndpoint;

/// Beyond what anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn provider(fake: &FakeTokenEndpoint) -> Arc<RefreshingTokenProvider> {
    let grant = Grant::ClientSecret {
        id: "me".to_owned(),
        secret: Secret::new("hunter2"),
        urlencode: false,
    };
    let properties = GrantProperties {
        credentials: "the.credentials",
        scope: "the.scope",
    };
    let tls = tls::trusting_nobody();
    let endpoint = TokenEndpoint::new(
        fake.url.clone(),
        (grant, None),
        properties,
        &tls,
        (LONG, LONG),
    );
    let source = TokenSource::Endpoint(Box::new(endpoint));
    let extensions = vec![("a".to_owned(), "b".to_owned())];
    Arc::new(RefreshingTokenProvider::new(
        source,
        extensions,
        TokenRefresh {
            window: RefreshWindow::default(),
            backoff: LONG,
            backoff_max: LONG,
        },
    ))
}

fn answer(token: &str, expires_in: u64) -> String {
    format!(r#"{{"access_token":"{token}","expires_in":{expires_in}}}"#)
}

#[tokio::test]
async fn all_connections_share_one_fetch() {
    let fake = FakeTokenEndpoint::start(200, &answer("a", 3600)).await;
    let provider = provider(&fake);
    let tokens = join_all((0..100).map(|_| provider.token())).await;
    for token in tokens {
        let token = token.expect("a token");
        assert_eq!(token.token.reveal(), "a");
        assert_eq!(token.extensions[..], [("a".to_owned(), "b".to_owned())]);
    }
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn all_connections_share_one_failure_until_the_wait_is_over() {
    let fake = FakeTokenEndpoint::start(401, "{}").await;
    let provider = provider(&fake);
    let tokens = join_all((0..100).map(|_| provider.token())).await;
    for token in tokens {
        assert_eq!(token.expect_err("a fault").property, "the.credentials");
    }
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_whether_anybody_asks_or_not() {
    let fake = FakeTokenEndpoint::start(200, &answer("a", 2)).await;
    let provider = provider(&fake);
    let renewing = {
        let provider = Arc::clone(&provider);
        tokio::spawn(async move { provider.keep_fresh().await })
    };
    assert_eq!(provider.token().await.expect("a token").token.reveal(), "a");
    fake.answer_with(200, &answer("b", 3600));
    let mut changes = provider.changed.subscribe();
    timeout(LONG, changes.changed())
        .await
        .expect("in time")
        .expect("it lives");
    assert_eq!(provider.token().await.expect("a token").token.reveal(), "b");
    assert_eq!(fake.requests().len(), 2);
    renewing.abort();
}

#[tokio::test]
async fn a_refused_token_is_followed_by_another_one() {
    let fake = FakeTokenEndpoint::start(200, &answer("a", 3600)).await;
    let provider = provider(&fake);
    let token = provider.token().await.expect("a token");
    fake.answer_with(200, &answer("b", 3600));
    provider.refused(&token);
    provider.refused(&token);
    assert_eq!(provider.token().await.expect("a token").token.reveal(), "b");
    assert_eq!(fake.requests().len(), 2);
}
