use super::*;
use crate::json_web_key::read_key_set;

const INTERVAL: Duration = Duration::from_secs(600);
const ED25519: &str =
    r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

struct Harness {
    state: ProviderState,
    now: Instant,
}

/// What a step comes to.
#[derive(Debug, PartialEq, Eq)]
enum StepKind {
    Try,
    Wait,
    Invalid(JwtFault),
    Unavailable,
}

impl Harness {
    fn new(errors_limit: Option<u32>) -> Self {
        let now = Instant::now();
        let state = ProviderState::new(INTERVAL, errors_limit, now);
        Self { state, now }
    }

    fn known(errors_limit: Option<u32>, kids: &[&str]) -> Self {
        let mut harness = Self::new(errors_limit);
        harness.succeed(kids);
        harness
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn step_of(&mut self, issuer: Option<&str>, key_id: Option<&str>) -> StepKind {
        let hint = SignerHint {
            issuer,
            key_id,
            algorithm: JwsAlgorithm::EdDsa,
        };
        match self.state.step(hint, self.now) {
            KeyStep::Try(keys) => {
                assert!(keys.iter().all(|key| !key.is_withdrawn()));
                StepKind::Try
            }
            KeyStep::Wait => StepKind::Wait,
            KeyStep::Refuse(VerifyError::Invalid(fault)) => StepKind::Invalid(fault),
            KeyStep::Refuse(VerifyError::Unavailable { .. }) => StepKind::Unavailable,
        }
    }

    fn step(&mut self, kid: &str) -> StepKind {
        self.step_of(Some("issuer"), Some(kid))
    }

    fn is_due(&self) -> bool {
        self.state.due() <= self.now
    }

    fn succeed(&mut self, kids: &[&str]) -> FetchEffect {
        self.succeed_as("issuer", kids)
    }

    fn succeed_as(&mut self, issuer: &str, kids: &[&str]) -> FetchEffect {
        let keys = kids
            .iter()
            .map(|kid| format!(r#"{{{ED25519},"kid":"{kid}"}}"#));
        let keys: Vec<_> = keys.collect();
        let keys = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        let metadata = ProviderMetadata {
            issuer: issuer.to_owned(),
            keys: read_key_set(keys.as_bytes()).expect("a key set"),
        };
        self.state.begin_fetch();
        self.state.end_fetch(Ok(metadata), self.now)
    }

    fn fail(&mut self) -> FetchEffect {
        self.state.begin_fetch();
        self.state.end_fetch(Err("down".into()), self.now)
    }
}

#[test]
fn before_the_first_answer_tokens_wait_and_during_an_outage_they_do_not() {
    let mut harness = Harness::new(None);
    assert!(harness.is_due());
    assert_eq!(harness.step("a"), StepKind::Wait);
    harness.state.begin_fetch();
    assert_eq!(harness.step("a"), StepKind::Wait);
    assert!(harness.fail().is_new_failure);
    assert_eq!(harness.step("a"), StepKind::Unavailable);
    assert!(!harness.is_due());
    harness.pass(Duration::from_secs(1));
    assert!(harness.is_due(), "it is asked again every second");
    assert!(!harness.fail().is_new_failure);
    harness.pass(Duration::from_secs(1));
    assert!(harness.succeed(&["a"]).is_back);
    assert_eq!(harness.step("a"), StepKind::Try);
    assert!(!harness.is_due());
    harness.pass(INTERVAL);
    assert!(harness.is_due());
}

#[test]
fn a_known_key_does_without_the_provider_and_so_does_what_is_wrong_anyway() {
    let mut harness = Harness::known(None, &["a"]);
    harness.pass(INTERVAL);
    harness.fail();
    assert_eq!(harness.step("a"), StepKind::Try);
    assert_eq!(harness.step_of(Some("issuer"), None), StepKind::Try);
    for issuer in [None, Some("Issuer"), Some("issuer/"), Some("")] {
        let issued = harness.step_of(issuer, Some("b"));
        assert_eq!(issued, StepKind::Invalid(JwtFault::Issuer));
    }
    let hint = SignerHint {
        issuer: Some("issuer"),
        key_id: Some("a"),
        algorithm: JwsAlgorithm::Rs256,
    };
    assert!(matches!(
        harness.state.step(hint, harness.now),
        KeyStep::Refuse(VerifyError::Invalid(JwtFault::UnfitKey))
    ));
    assert_eq!(
        harness.step("b"),
        StepKind::Unavailable,
        "it may be a new one"
    );
}

#[test]
fn an_unknown_key_is_asked_for_at_most_every_ten_seconds() {
    let mut harness = Harness::known(None, &["a"]);
    assert_eq!(harness.step("b"), StepKind::Wait);
    assert!(harness.is_due());
    assert_eq!(harness.step("c"), StepKind::Wait, "the same fetch");
    harness.state.begin_fetch();
    assert_eq!(harness.step("d"), StepKind::Wait, "it is under way");
    let effect = harness.succeed(&["a", "b"]);
    assert_eq!(effect, FetchEffect::default());
    assert_eq!(harness.step("b"), StepKind::Try);
    for _ in 0..10 {
        assert_eq!(harness.step("c"), StepKind::Invalid(JwtFault::UnknownKey));
        assert!(!harness.is_due());
        harness.pass(Duration::from_secs(1));
    }
    assert_eq!(harness.step("c"), StepKind::Wait);
    assert!(harness.is_due());
    // It fails: nobody knows.
    harness.fail();
    assert_eq!(harness.step("c"), StepKind::Unavailable);
    assert_eq!(harness.step("a"), StepKind::Try);
}

#[test]
fn a_token_without_a_kid_asks_for_keys_only_while_none_fits() {
    let mut harness = Harness::known(None, &[]);
    assert_eq!(harness.step_of(Some("issuer"), None), StepKind::Wait);
    harness.succeed(&["a", "b"]);
    let several = harness.step_of(Some("issuer"), None);
    assert_eq!(several, StepKind::Invalid(JwtFault::NoKeyId));
    assert!(!harness.is_due());
}

#[test]
fn a_wrong_signature_has_the_keys_fetched_again_as_seldom() {
    let mut harness = Harness::known(None, &["a"]);
    assert!(harness.state.suspect_keys(harness.now));
    assert!(harness.is_due());
    harness.succeed(&["a"]);
    assert!(!harness.state.suspect_keys(harness.now));
    assert!(!harness.is_due());
    harness.pass(UNKNOWN_KEY_INTERVAL);
    assert!(harness.state.suspect_keys(harness.now));
    harness.fail();
    assert!(
        !harness.state.suspect_keys(harness.now),
        "it is asked anyway"
    );
}

#[test]
fn a_key_that_is_withdrawn_verifies_nothing() {
    let mut harness = Harness::known(None, &["a", "b"]);
    harness.pass(INTERVAL);
    assert!(harness.succeed(&["b"]).has_withdrawn);
    assert_eq!(harness.step("b"), StepKind::Try);
    assert_eq!(harness.step("a"), StepKind::Wait);
    assert!(harness.succeed_as("other", &["b"]).has_withdrawn);
    assert_eq!(harness.step("b"), StepKind::Invalid(JwtFault::Issuer));
}

#[test]
fn keys_that_could_not_be_checked_for_so_many_intervals_are_forgotten() {
    let mut harness = Harness::known(Some(2), &["a"]);
    harness.pass(INTERVAL - Duration::from_secs(1));
    assert_eq!(harness.step("b"), StepKind::Wait);
    harness.fail();
    harness.pass(Duration::from_secs(1));
    let second = Duration::from_secs(1);
    let mut left = None;
    for after in 0..=INTERVAL.as_secs() {
        assert_eq!(harness.step("a"), StepKind::Try);
        if harness.fail().limit_reached {
            left = Some(after);
            break;
        }
        harness.pass(second);
    }
    assert_eq!(
        left,
        Some(INTERVAL.as_secs()),
        "one error counts per interval"
    );
    assert_eq!(harness.step("a"), StepKind::Unavailable);
    let wrong = harness.step_of(Some("x"), Some("a"));
    assert_eq!(wrong, StepKind::Invalid(JwtFault::Issuer));
    assert!(!harness.fail().limit_reached, "there is nothing left");
    harness.succeed(&["a"]);
    assert_eq!(harness.step("a"), StepKind::Try);
}

#[test]
fn an_answer_in_between_begins_the_count_anew() {
    let mut harness = Harness::known(Some(2), &["a"]);
    for _ in 0..5 {
        harness.pass(INTERVAL);
        assert!(!harness.fail().has_withdrawn);
        harness.pass(Duration::from_secs(1));
        harness.succeed(&["a"]);
    }
    let mut harness = Harness::known(None, &["a"]);
    for _ in 0..100 {
        harness.pass(INTERVAL);
        assert!(!harness.fail().has_withdrawn);
    }
    assert_eq!(harness.step("a"), StepKind::Try);
}
