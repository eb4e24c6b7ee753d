use std::time::Duration;

use tokio::time::advance;

use super::client_buckets::DEBTS_MAX;
use super::*;

fn quotas(per_second: u32) -> ClientQuotas {
    let mut config = Config::default();
    config.producer_limits.default_messages_per_second = per_second;
    config.consumer_limits.default_messages_per_second = per_second;
    for limits in [&mut config.producer_limits, &mut config.consumer_limits] {
        let unlimited = ClientLimit {
            messages_per_second: Some(0),
            max_connections: None,
            batch_size: Some(7),
        };
        limits.specific.insert("unlimited".to_owned(), unlimited);
    }
    ClientQuotas::new(&config)
}

/// How long so many records wait.
fn wait_of(quota: &RecordQuota, records: usize) -> Duration {
    let reserved = quota.reserve(records);
    let wait = reserved.at() - Instant::now();
    reserved.take();
    wait
}

#[tokio::test(start_paused = true)]
async fn the_sockets_of_a_client_share_its_quota_and_others_do_not_wait_for_them() {
    let quotas = quotas(10);
    let (alice, bob) = (Arc::from("alice"), Arc::from("bob"));
    let first = quotas
        .of_client(Some(&alice), Some("c"), &Arc::default())
        .unwrap();
    let second = quotas
        .of_client(Some(&alice), Some("c"), &Arc::default())
        .unwrap();
    assert_eq!(wait_of(&first, 10), Duration::ZERO);
    assert_eq!(wait_of(&second, 1), Duration::from_millis(100));
    assert_eq!(wait_of(&first, 1), Duration::from_millis(200));
    for (user, client_id) in [
        (Some(&alice), Some("d")),
        (Some(&bob), Some("c")),
        (None, Some("c")),
        (None, None),
        (None, None),
    ] {
        let other = quotas.of_client(user, client_id, &Arc::default()).unwrap();
        assert_eq!(wait_of(&other, 10), Duration::ZERO, "{client_id:?}");
    }
    let mut group = quotas.of_group(Some(&alice), "c", &Arc::default()).unwrap();
    assert_eq!(group.available(Instant::now()), 1);
}

#[test]
fn a_client_without_a_limit_has_no_quota_and_a_field_that_its_entry_lacks_is_the_default() {
    let quotas = quotas(10);
    assert!(
        quotas
            .of_client(None, Some("unlimited"), &Arc::default())
            .is_none()
    );
    assert!(
        quotas
            .of_group(None, "unlimited", &Arc::default())
            .is_none()
    );
    assert_eq!(quotas.batch_size("unlimited"), Some(7));
    assert_eq!(quotas.batch_size("another"), None);
}

#[test]
fn connections_are_those_of_the_entry_and_otherwise_the_default() {
    let mut config = Config::default();
    config.producer_limits.default_max_connections = 3;
    config.consumer_limits.default_max_connections = 4;
    let one = ClientLimit {
        max_connections: Some(1),
        ..ClientLimit::default()
    };
    for limits in [&mut config.producer_limits, &mut config.consumer_limits] {
        limits.specific.insert("one".to_owned(), one);
    }
    let quotas = ClientQuotas::new(&config);
    let of_clients = [Some("one"), Some("c"), None].map(|id| quotas.max_connections_of_client(id));
    assert_eq!(of_clients, [1, 3, 3]);
    assert_eq!(quotas.max_connections_of_group("one"), 1);
    assert_eq!(quotas.max_connections_of_group("g"), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_and_not_taken_is_given_back() {
    let quotas = quotas(10);
    let quota = quotas.of_client(None, Some("c"), &Arc::default()).unwrap();
    drop(quota.reserve(1_000));
    assert_eq!(wait_of(&quota, 10), Duration::ZERO);
    let mut one = quotas.of_group(None, "g", &Arc::default()).unwrap();
    let mut other = quotas.of_group(None, "g", &Arc::default()).unwrap();
    let now = Instant::now();
    for _ in 0..9 {
        assert_eq!(one.available(now), 1);
        one.consume(1);
    }
    assert_eq!(one.available(now), 1);
    assert_eq!(other.available(now), 0);
    other.give_back();
    one.give_back();
    assert_eq!(other.available(now), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_finds_what_it_has_left_of_its_quota() {
    let quotas = quotas(10);
    let first = quotas.of_client(None, Some("c"), &Arc::default()).unwrap();
    wait_of(&first, 30);
    drop(first);
    let again = quotas.of_client(None, Some("c"), &Arc::default()).unwrap();
    assert_eq!(wait_of(&again, 1), Duration::from_millis(2_100));
    drop(again);
    advance(Duration::from_millis(3_100)).await;
    drop(quotas.of_client(None, Some("d"), &Arc::default()));
    assert!(lock(&quotas.0.buckets).keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_debts_of_clients_without_a_socket_are_bounded() {
    let quotas = quotas(1);
    for client in 0..DEBTS_MAX + 5 {
        let quota = quotas
            .of_client(None, Some(&format!("c{client}")), &Arc::default())
            .unwrap();
        wait_of(&quota, 100 + client);
    }
    let buckets = lock(&quotas.0.buckets);
    let keys = buckets.keys();
    assert_eq!(keys.len(), DEBTS_MAX);
    assert!(!keys.contains(&&QuotaKey::Client(None, "c4".into())));
}

#[tokio::test(start_paused = true)]
async fn a_group_reads_as_many_records_as_its_rate_says_however_many_sockets_it_has() {
    let quotas = quotas(100);
    let mut sockets: Vec<_> = (0..4)
        .map(|_| quotas.of_group(None, "g", &Arc::default()).unwrap())
        .collect();
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(10) {
        for socket in &mut sockets {
            let permits = socket.available(Instant::now());
            socket.consume(permits);
            sent += permits;
        }
        advance(Duration::from_millis(1)).await;
    }
    assert!((1_090..=1_100).contains(&sent), "{sent}");
}

/// Quotas that change, with the default of so many records.
fn dynamic_quotas(per_second: u32) -> ClientQuotas {
    let mut config = Config::default();
    config.dynamic_limits.enabled = true;
    config.producer_limits.default_messages_per_second = per_second;
    config.consumer_limits.default_messages_per_second = per_second;
    ClientQuotas::new(&config)
}

/// Gives `c` a dynamic entry, or takes it away.
fn set(quotas: &ClientQuotas, clients: LimitedClients, per_second: Option<u32>) {
    let id = LimitedId {
        clients,
        id: "c".into(),
    };
    let entry = per_second.map(|per_second| ClientLimit {
        messages_per_second: Some(per_second),
        ..ClientLimit::default()
    });
    quotas.set_dynamic([(&id, entry)]);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_had_no_limit_follows_one_that_its_client_gets() {
    let quotas = dynamic_quotas(0);
    let wake = Arc::default();
    let quota = quotas.of_client(None, Some("c"), &wake).unwrap();
    let mut group = quotas.of_group(None, "c", &Arc::default()).unwrap();
    assert!(!quota.is_limited() && !wake.take());
    assert_eq!(group.available(Instant::now()), usize::MAX);
    set(&quotas, LimitedClients::Producers, Some(10));
    assert!(quota.is_limited() && wake.take());
    assert_eq!(wait_of(&quota, 10), Duration::ZERO, "it starts full");
    assert_eq!(wait_of(&quota, 1), Duration::from_millis(100));
    assert_eq!(
        group.available(Instant::now()),
        usize::MAX,
        "a group is no client"
    );
    set(&quotas, LimitedClients::Groups, Some(10));
    assert_eq!(group.available(Instant::now()), 1);
    set(&quotas, LimitedClients::Groups, None);
    assert_eq!(group.available(Instant::now()), usize::MAX);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_is_woken_by_another_limit_and_reserves_anew() {
    let quotas = dynamic_quotas(1);
    let wakes: [Arc<WakeSignal>; 3] = Default::default();
    let quota = quotas.of_client(None, Some("c"), &wakes[0]).unwrap();
    let _same = quotas.of_client(None, Some("c"), &wakes[1]).unwrap();
    let _other = quotas.of_client(None, Some("d"), &wakes[2]).unwrap();
    wait_of(&quota, 1_000);
    let reserved = quota.reserve(1);
    assert_eq!(reserved.at() - Instant::now(), Duration::from_secs(1_000));
    set(&quotas, LimitedClients::Producers, Some(1));
    assert!(!reserved.is_void(), "it is the limit that there is");
    set(&quotas, LimitedClients::Producers, Some(2));
    assert!(reserved.is_void());
    assert_eq!(
        wakes.each_ref().map(|wake| wake.take()),
        [true, true, false]
    );
    // What is given back was of the former bucket.
    drop(reserved);
    assert_eq!(wait_of(&quota, 2), Duration::ZERO);
    assert_eq!(wait_of(&quota, 1), Duration::from_millis(500));
    set(&quotas, LimitedClients::Producers, Some(0));
    assert_eq!(wait_of(&quota, 1_000), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_waits_for_its_turn_goes_on_at_once_when_its_limit_is_raised() {
    let quotas = dynamic_quotas(1);
    let mut group = quotas.of_group(None, "c", &Arc::default()).unwrap();
    let now = Instant::now();
    for records in [1, 0] {
        assert_eq!(group.available(now), records);
        group.consume(records);
    }
    assert_eq!(group.next_permit_at(), now + Duration::from_secs(1));
    set(&quotas, LimitedClients::Groups, Some(1_000));
    assert_eq!(group.available(now), 100, "a tenth of a second's records");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_while_a_client_is_away_forgets_what_it_had_left() {
    let quotas = dynamic_quotas(1);
    wait_of(
        &quotas.of_client(None, Some("c"), &Arc::default()).unwrap(),
        100,
    );
    wait_of(
        &quotas.of_client(None, Some("d"), &Arc::default()).unwrap(),
        100,
    );
    set(&quotas, LimitedClients::Producers, Some(5));
    let back = |id| quotas.of_client(None, Some(id), &Arc::default()).unwrap();
    assert_eq!(wait_of(&back("c"), 5), Duration::ZERO);
    assert_eq!(wait_of(&back("d"), 1), Duration::from_secs(100));
}
