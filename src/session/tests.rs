use super::*;

/// Sessions without brokers: what is written is acknowledged at once, in order.
fn sessions() -> Sessions {
    let sessions = Sessions::new(&Config::default());
    let shared = Arc::clone(&sessions.shared);
    shared.with_node(|node| {
        node.begin_load(0);
        node.loaded(Instant::now());
    });
    tokio::spawn(async move {
        let mut end = 0;
        loop {
            while let Some(record) = take_write(&shared) {
                shared.with_node(|node| node.acked(record, end, Instant::now()));
                end += 1;
            }
            shared.work.notified().await;
        }
    });
    sessions
}

fn take_write(shared: &SessionsShared) -> Option<record::SessionRecord> {
    lock(&shared.state).outbox.pop_front()
}

/// For a topic with so many partitions.
async fn acquire(
    sessions: &Sessions,
    client_id: &str,
    partitions: usize,
) -> Result<PlacePermit, AdmissionError> {
    let handle = Arc::default();
    let topics = [("t".into(), partitions)];
    sessions
        .acquire_group_permit("g", (None, client_id), &topics, &handle)
        .await
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_client_id_is_refused_while_the_first_client_answers() {
    let sessions = sessions();
    let first = acquire(&sessions, "a", 2).await.unwrap();
    let handle = Arc::clone(&first.handle);
    let answering = tokio::spawn(async move {
        handle.wake.notified().await;
        assert_eq!(handle.take_signal(), Some(SocketSignal::Probe));
        handle.client_alive.notify_waiters();
    });
    let begun = Instant::now();
    let second = acquire(&sessions, "a", 2).await.unwrap_err();
    assert!(matches!(second, AdmissionError::DuplicateClientId { .. }));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    answering.await.unwrap();
    assert_eq!(first.handle.take_signal(), None);
}

/// That there is one is none of the other user's business.
#[tokio::test(start_paused = true)]
async fn the_same_client_id_of_another_user_is_another_client() {
    let sessions = sessions();
    let topics = [("t".into(), 3)];
    let mut permits = Vec::new();
    for user in [None, Some("alice"), Some("bob")] {
        let user = user.map(Arc::from);
        let handle = Arc::default();
        let permit = sessions.acquire_group_permit("g", (user.as_ref(), "a"), &topics, &handle);
        permits.push(permit.await.unwrap());
    }
    for permit in &permits {
        assert_eq!(
            permit.handle.take_signal(),
            None,
            "nobody was asked for a sign of life"
        );
    }
    let full = acquire(&sessions, "b", 3).await.unwrap_err();
    assert!(
        matches!(full, AdmissionError::GroupFull { sockets: 3, .. }),
        "{full:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_socket_is_evicted_and_its_client_id_is_free() {
    let sessions = sessions();
    let first = acquire(&sessions, "a", 1).await.unwrap();
    let begun = Instant::now();
    let second = acquire(&sessions, "a", 1).await.unwrap();
    assert_eq!(begun.elapsed(), PROBE_TIMEOUT);
    assert_eq!(first.handle.take_signal(), Some(SocketSignal::Evict));
    // The old permit does not take the new one with it.
    drop(first);
    assert_eq!(second.handle.take_signal(), None);
    assert_eq!(sessions.placed_sockets(), 1);
    let full = acquire(&sessions, "b", 1).await.unwrap_err();
    assert!(matches!(full, AdmissionError::GroupFull { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_client_id_is_free_as_soon_as_its_permit_is_released() {
    let sessions = sessions();
    let first = acquire(&sessions, "a", 1).await.unwrap();
    let begun = Instant::now();
    let coming = tokio::spawn({
        let sessions = sessions.clone();
        async move { acquire(&sessions, "a", 1).await }
    });
    first.handle.wake.notified().await;
    first.release();
    assert!(coming.await.unwrap().is_ok());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_refused_its_first_socket_leaves_nothing() {
    let sessions = sessions();
    let refused = acquire(&sessions, "a", 0).await.unwrap_err();
    assert!(matches!(refused, AdmissionError::GroupFull { .. }));
    assert_eq!(sessions.placed_sockets(), 0);
    let _b = acquire(&sessions, "b", 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_sockets_of_all_users_that_are_meant_are_closed_and_those_that_have_not_are_waited_for()
{
    let sessions = sessions();
    let mut permits = Vec::new();
    for (user, client, instance) in [
        (None, "p", Some("1")),
        (Some("alice"), "p", Some("1")),
        (Some("alice"), "p", Some("2")),
        (None, "q", Some("1")),
    ] {
        let (user, handle) = (user.map(Arc::from), Arc::default());
        let client = (Some(client), instance);
        permits.push(sessions.list_producer(client, user.as_ref(), ("t".into(), 1), &handle));
    }
    let instance = SocketSelector::Producer {
        client_id: "p".to_owned(),
        instance_id: Some("1".to_owned()),
    };
    let closing = tokio::spawn({
        let (sessions, instance) = (sessions.clone(), instance.clone());
        async move { sessions.evict(&instance).await }
    });
    permits[1].handle.wake.notified().await;
    let signals = permits.iter().map(|permit| permit.handle.take_signal());
    let close = Some(SocketSignal::CloseByAdmin);
    assert_eq!(signals.collect::<Vec<_>>(), [close, close, None, None]);
    permits.remove(1);
    tokio::task::yield_now().await;
    assert!(!closing.is_finished());
    permits.remove(0);
    let closed = closing.await.unwrap().unwrap();
    assert_eq!(closed.len(), 2);
    let gone = sessions.evict(&instance).await.unwrap_err();
    assert_eq!(gone, EvictionError::NotFound);
    let listed = sessions.open_sockets().unwrap();
    let mut listed: Vec<_> = listed
        .iter()
        .map(|s| (s.client_id(), s.principal()))
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, [(Some("p"), Some("alice")), (Some("q"), None)]);
}
