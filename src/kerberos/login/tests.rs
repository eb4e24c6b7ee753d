//! One login for all, and what happens to it.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::exchanges::tests::LoginFiles;
use crate::fake::{FakeKdc, ListeningKdc};
use crate::messages::message_type::{AS_REP, ERROR, TGS_REP};

/// Beyond what anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn login(files: &LoginFiles, port: u16, renewal: TicketRenewal) -> KeytabLogin {
    let settings = LoginSettings {
        principal: "alice".to_owned(),
        keytab: files.keytab(),
        service: "kafka".to_owned(),
        conf: files.conf(&[("TEST", port)], ""),
        renewal,
    };
    KeytabLogin::new(settings).expect("a login")
}

#[tokio::test]
async fn all_connections_share_a_login_and_a_ticket() {
    let files = LoginFiles::new();
    let kdc = ListeningKdc::start(FakeKdc::new(&files.key)).await;
    let login = login(&files, kdc.port, TicketRenewal::default());
    let begun = join_all((0..20).map(|_| login.begin("B-1"))).await;
    let tokens = begun.iter().map(|context| {
        let context = context.as_ref().expect("a context");
        context.first_token().reveal().to_vec()
    });
    let mut tokens: Vec<_> = tokens.collect();
    assert_eq!(kdc.answered(), [ERROR, AS_REP, TGS_REP]);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 20);
    // No time is told twice.
    let times = [(); 100].map(|()| login.next_time());
    assert!(times.is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn a_kdc_that_is_away_is_not_asked_by_everybody() {
    let files = LoginFiles::new();
    let kdc = ListeningKdc::start(FakeKdc::new(&files.key)).await;
    let away = login(&files, kdc.port, TicketRenewal::default());
    lock(&kdc.kdc).clients.clear();
    let faults = join_all((0..20).map(|_| away.begin("b-1"))).await;
    assert!(faults.iter().all(Result::is_err));
    // The first one that did is heard by all.
    assert_eq!(kdc.answered(), [ERROR]);
    let shown = format!("{away:?}");
    assert!(shown.contains("alice"), "{shown}");
}

#[tokio::test]
async fn a_tgt_that_the_kdc_does_not_take_any_more_is_followed_by_another_login() {
    let files = LoginFiles::new();
    let kdc = ListeningKdc::start(FakeKdc::new(&files.key)).await;
    let login = login(&files, kdc.port, TicketRenewal::default());
    login.begin("b-1").await.expect("a context").refused();
    lock(&kdc.kdc).refuses_tgt = true;
    login.begin("b-1").await.expect_err("it takes none");
    assert_eq!(
        kdc.answered(),
        [ERROR, AS_REP, TGS_REP, ERROR, ERROR, AS_REP, ERROR]
    );
    lock(&kdc.kdc).refuses_tgt = false;
    login.begin("b-1").await.expect("a context");
    assert_eq!(kdc.answered(), [TGS_REP]);
}

#[tokio::test]
async fn tickets_are_renewed_while_nobody_waits_for_them() {
    let files = LoginFiles::new();
    let mut fake = FakeKdc::new(&files.key);
    fake.lifetime = Duration::from_secs(5);
    let kdc = ListeningKdc::start(fake).await;
    // A second after they are given.
    let renewal = TicketRenewal {
        factor: 0.0,
        jitter: 0.0,
        min_period: Duration::ZERO,
    };
    let login = Arc::new(login(&files, kdc.port, renewal));
    login.begin("b-1").await.expect("a context");
    kdc.answered();
    let renewing = Arc::clone(&login);
    let renewing = tokio::spawn(async move { renewing.keep_fresh().await });
    let renewed = async {
        let mut answered = Vec::new();
        let mut changes = login.changed.subscribe();
        while !(answered.contains(&AS_REP) && answered.contains(&TGS_REP)) {
            changes.changed().await.expect("it lives");
            answered.extend(kdc.answered());
        }
    };
    timeout(LONG, renewed).await.expect("both are renewed");
    renewing.abort();
}
