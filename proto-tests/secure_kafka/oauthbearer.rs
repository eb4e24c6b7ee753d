//! OAUTHBEARER: tokens of an endpoint, of a file and unsecured ones, and what is said without one.

use std::time::Duration;

use super::*;
use crate::support::token_endpoint::{
    CLIENT_ID, CLIENT_SECRET, FakeProvider, ProviderFault, good_token,
};

/// Beyond what a test takes.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

impl ProxyProperties {
    /// With these options of the JAAS line.
    pub(super) fn with_tokens(self, options: &str) -> Self {
        let jaas = format!(
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required {options};"
        );
        self.and("sasl.mechanism", "OAUTHBEARER")
            .and("sasl.jaas.config", &jaas)
    }

    pub(super) fn of_endpoint(self, url: &str) -> Self {
        self.and("sasl.oauthbearer.token.endpoint.url", url)
    }
}

/// The listener whose brokers want signed tokens.
pub(super) fn validating(at: &SecureListeners) -> ProxyProperties {
    trusting(sasl_ssl(at), at, "ca.pem")
}

pub(super) fn credentials(secret: &str) -> String {
    format!("clientId=\"{CLIENT_ID}\" clientSecret=\"{secret}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_both_ways_with_every_kind_of_token() {
    let (kafka, at) = cluster();
    let topic = unique("tokens");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    let provider = FakeProvider::start(HOUR).await;
    let secure_provider = FakeProvider::start_tls(HOUR).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, good_token(HOUR)).unwrap();
    let trust = format!("ssl.truststore.location=\"{}\"", golden("ca.pem"));
    for connecting in [
        validating(&at)
            .with_tokens(&format!("{} {trust}", credentials(CLIENT_SECRET)))
            .of_endpoint(secure_provider.url()),
        validating(&at)
            .and("sasl.mechanism", "OAUTHBEARER")
            .and("sasl.oauthbearer.client.credentials.client.id", CLIENT_ID)
            .and(
                "sasl.oauthbearer.client.credentials.client.secret",
                CLIENT_SECRET,
            )
            .of_endpoint(provider.url()),
        validating(&at)
            .with_tokens("")
            .of_endpoint(&format!("file://{}", file.display())),
        sasl_plaintext(&at).with_tokens("unsecuredLoginStringClaim_sub=\"alice\""),
    ] {
        produces_and_consumes(&connecting, &topic).await;
    }
    // One for all connections.
    assert_eq!((provider.given(), secure_provider.given()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_token_away_is_said_with_the_property_to_look_at() {
    let (_kafka, at) = cluster();
    let provider = FakeProvider::start(HOUR).await;
    let secure_provider = FakeProvider::start_tls(HOUR).await;
    let of = |secret: &str, url: &str| {
        validating(&at)
            .with_tokens(&credentials(secret))
            .of_endpoint(url)
    };
    let no_token = "there is no token for the brokers";
    let url = "sasl.oauthbearer.token.endpoint.url";
    for (fault, connecting, said, property) in [
        (
            None,
            of("wrong-client-secret", provider.url()),
            "refuses (401 Unauthorized): invalid_client: Client authentication failed",
            "sasl.jaas.config",
        ),
        (
            Some(ProviderFault::NoJson),
            of(CLIENT_SECRET, provider.url()),
            "answers 200 OK with what is no JSON of one",
            url,
        ),
        (
            Some(ProviderFault::NoToken),
            of(CLIENT_SECRET, provider.url()),
            "answers 200 OK without an access_token",
            url,
        ),
        (
            None,
            of(CLIENT_SECRET, "http://127.0.0.1:1/"),
            "cannot be reached: Connection refused",
            url,
        ),
        (
            None,
            of(CLIENT_SECRET, secure_provider.url()),
            "its certificate is signed by nobody that is trusted (ssl.truststore.location)",
            url,
        ),
        (
            None,
            validating(&at)
                .with_tokens("")
                .of_endpoint("file:///nowhere"),
            "/nowhere cannot be read: No such file",
            url,
        ),
    ] {
        provider.set_fault(fault);
        let (proxy, log) = connecting.start();
        let line = log.first_with(said).await;
        assert!(line.contains(&format!("({property})")), "{line}");
        until_asked(said, async || {
            let (status, reasons) = proxy.get("/ready").await;
            status == 503 && reasons.contains(&format!("{no_token} ({property})"))
        })
        .await;
    }
    assert_eq!(secure_provider.given(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_brokers_refuse_is_asked_for_again() {
    let (_kafka, at) = cluster();
    let provider = FakeProvider::start(HOUR).await;
    provider.set_fault(Some(ProviderFault::OtherAudience));
    let connecting = validating(&at)
        .with_tokens(&credentials(CLIENT_SECRET))
        .of_endpoint(provider.url());
    let (proxy, log) = connecting.start();
    let said = "the credentials for OAUTHBEARER are refused: the token is refused: \
                {\"status\":\"invalid_token\"}";
    log.first_with(&said.replace('"', "\\\"")).await;
    until_asked("it is said", async || {
        let (status, reasons) = proxy.get("/ready").await;
        status == 503 && reasons.contains("do not accept the proxy's credentials")
    })
    .await;
    provider.set_fault(None);
    proxy.ready().await;
}
