mod fake_open_id;
mod forged;

use std::time::UNIX_EPOCH;

use self::fake_open_id::FakeOpenId;
use super::*;
use crate::algorithm::JwsAlgorithm;
use crate::signer::SigningKey;

/// A provider that has one key, and who verifies its tokens.
struct ProviderHarness {
    fake: FakeOpenId,
    provider: OpenIdProvider,
    key: SigningKey,
    /// How often keys were withdrawn.
    withdrawals: watch::Receiver<usize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ProviderHarness {
    async fn start(change: impl FnOnce(&mut OpenIdConfig)) -> Self {
        let fake = FakeOpenId::start().await;
        let key = SigningKey::generate(JwsAlgorithm::Es256);
        fake.publish(&[key.public_jwk(r#","kid":"a""#)]);
        let mut config = OpenIdConfig {
            well_known_url: fake.url(),
            audience: "proxy".to_owned(),
            revalidation_interval: Duration::from_secs(600),
            revalidation_errors_limit: None,
            claims: vec!["kafka.user".to_owned()],
            tls: tls::trusting_nobody(),
        };
        change(&mut config);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (counted, withdrawals) = watch::channel(0);
        let on_withdrawal = move || counted.send_modify(|count| *count += 1);
        let provider = OpenIdProvider::start(config, on_withdrawal, &tasks, stop.clone());
        Self {
            fake,
            provider,
            key,
            withdrawals,
            tasks,
            stop,
        }
    }

    /// A token that is good for an hour.
    fn token(&self, kid: &str) -> String {
        let claims = self.claims("");
        let kid = format!(r#","kid":"{kid}""#);
        self.key.token(JwsAlgorithm::Es256, &kid, &claims)
    }

    /// `more` begins with a comma.
    fn claims(&self, more: &str) -> String {
        let issuer = self.fake.issuer();
        let exp = now() + 3600;
        format!(r#"{{"iss":"{issuer}","aud":["x","proxy"],"sub":"me","exp":{exp}{more}}}"#)
    }

    async fn verify(&self, token: &str) -> Result<VerifiedToken, VerifyError> {
        self.provider.verify(token).await
    }

    async fn fault(&self, token: &str) -> JwtFault {
        match self.verify(token).await {
            Err(VerifyError::Invalid(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    async fn unavailable(&self, token: &str) -> String {
        match self.verify(token).await {
            Err(VerifyError::Unavailable { reason }) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

#[tokio::test]
async fn a_token_that_the_provider_has_signed_is_good() {
    let harness = ProviderHarness::start(|_| {}).await;
    let claims = harness.claims(r#","kafka.user":"alice""#);
    let token = harness.key.token(JwsAlgorithm::Es256, "", &claims);
    let verified = harness.verify(&token).await.expect("it is good");
    assert_eq!(verified.subject.as_deref(), Some("me"));
    assert_eq!(verified.claims, [Some(Secret::new("alice"))]);
    let left = verified.expires_at.duration_since(SystemTime::now());
    assert!((3590..=3600).contains(&left.expect("in the future").as_secs()));
    assert!(!verified.key.is_withdrawn());
    let shown = format!("{verified:?} {:?}", harness.provider);
    assert!(!shown.contains("alice"), "{shown}");
    assert_eq!(harness.fake.asked(), 1);
}

#[tokio::test]
async fn a_new_key_is_fetched_once_for_all_who_come_with_it() {
    let mut harness = ProviderHarness::start(|_| {}).await;
    harness
        .verify(&harness.token("a"))
        .await
        .expect("it is good");
    let old = harness.token("a");
    harness.key = SigningKey::generate(JwsAlgorithm::Es256);
    harness
        .fake
        .publish(&[harness.key.public_jwk(r#","kid":"b""#)]);
    assert!(
        harness.verify(&old).await.is_ok(),
        "nothing has said otherwise"
    );
    let new = harness.token("b");
    let all = [(); 50].map(|()| Box::pin(harness.verify(&new)));
    for verified in all {
        verified.await.expect("it is good");
    }
    assert_eq!(harness.fake.asked(), 2);
    assert_eq!(*harness.withdrawals.borrow(), 1);
    assert_eq!(harness.fault(&old).await, JwtFault::UnknownKey);
    assert_eq!(harness.fake.asked(), 2, "not again so soon");
}

#[tokio::test]
async fn a_key_that_is_withdrawn_is_noticed_after_the_interval() {
    let interval = Duration::from_millis(20);
    let mut harness = ProviderHarness::start(|c| c.revalidation_interval = interval).await;
    let verified = harness
        .verify(&harness.token("a"))
        .await
        .expect("it is good");
    harness.fake.publish(&[]);
    let withdrawn = harness.withdrawals.wait_for(|count| *count > 0).await;
    withdrawn.expect("the provider is there");
    assert!(verified.key.is_withdrawn());
}

#[tokio::test]
async fn an_outage_is_said_and_ends_by_itself() {
    let harness = ProviderHarness::start(|_| {}).await;
    harness.fake.answer_with(503);
    let token = harness.token("a");
    let reason = harness.unavailable(&token).await;
    assert!(
        reason.ends_with("answers 503 Service Unavailable"),
        "{reason}"
    );
    // What is wrong anyway needs no provider.
    let expired = harness.claims("").replace(r#""exp":"#, r#""exp":1,"x":"#);
    let expired = harness.key.token(JwsAlgorithm::Es256, "", &expired);
    assert_eq!(harness.fault(&expired).await, JwtFault::Expired);
    let mut fetches = harness.provider.0.fetches.subscribe();
    harness.fake.answer_with(200);
    // One may be under way that was refused.
    while harness.verify(&token).await.is_err() {
        fetches.changed().await.expect("the provider is there");
    }
}

#[tokio::test]
async fn what_is_no_answer_of_a_provider_is_an_outage() {
    for (document, keys, said) in [
        (
            "<html>",
            "",
            "answers with no JSON object that has an issuer",
        ),
        (r#"{"issuer":"i"}"#, "", "that has an issuer and a jwks_uri"),
        (
            r#"{"issuer":"i","jwks_uri":"x"}"#,
            "",
            "says a jwks_uri that is no URL",
        ),
        ("", "<html>", "answers with no JSON object with keys"),
        ("", "long", "length limit exceeded"),
    ] {
        let harness = ProviderHarness::start(|_| {}).await;
        let long = " ".repeat(1 << 20);
        let keys = if keys == "long" { &long } else { keys };
        harness.fake.say(document, keys);
        let reason = harness.unavailable(&harness.token("a")).await;
        assert!(reason.contains(said), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_answer_is_not_waited_for_longer_than_five_seconds() {
    let harness = ProviderHarness::start(|_| {}).await;
    harness.fake.hold();
    let begin = Instant::now();
    let reason = harness.unavailable(&harness.token("a")).await;
    assert!(reason.contains("within 5"), "{reason}");
    assert_eq!(begin.elapsed().as_secs(), 5);
    // Now that this is known, not at all.
    let begin = Instant::now();
    harness.unavailable(&harness.token("a")).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn the_tasks_end_when_they_are_to() {
    let harness = ProviderHarness::start(|_| {}).await;
    harness
        .verify(&harness.token("a"))
        .await
        .expect("it is good");
    harness.tasks.close();
    harness.stop.cancel();
    harness.tasks.wait().await;
}
