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
        .acquire_group_permit("g", (None, client_id), (&topics, 0), &handle)
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
        let permit =
            sessions.acquire_group_permit("g", (user.as_ref(), "a"), (&topics, 0), &handle);
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
        let producer = ProducerIdentity {
            instance_id: instance,
            principal: user.as_ref(),
            ..producing(client)
        };
        permits.push(producer_permit(&sessions, producer, &handle).await.unwrap());
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

fn producing(client_id: &str) -> ProducerIdentity<'_> {
    ProducerIdentity {
        client_id: Some(client_id),
        instance_id: None,
        principal: None,
        sharing: InstanceSharing::Any,
        max_connections: 0,
    }
}

async fn producer_permit(
    sessions: &Sessions,
    producer: ProducerIdentity<'_>,
    handle: &Arc<SocketHandle>,
) -> Result<PlacePermit, AdmissionError> {
    let topic = ("t".into(), 1);
    sessions
        .acquire_producer_permit(producer, topic, handle)
        .await
}

#[tokio::test(start_paused = true)]
async fn sockets_without_a_limit_and_transactional_ones_are_opened_while_the_log_is_not_there() {
    // Nothing is read, and nothing is written.
    let sessions = Sessions::new(&Config::default());
    let begun = Instant::now();
    let fencing = ProducerIdentity {
        sharing: InstanceSharing::Fencing,
        ..producing("p")
    };
    let handles: [Arc<SocketHandle>; 3] = Default::default();
    let mut permits = Vec::new();
    for (producer, handle) in [producing("p"), fencing, fencing].into_iter().zip(&handles) {
        permits.push(producer_permit(&sessions, producer, handle).await.unwrap());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // The second one fences the first, which is of this node.
    let signals = handles.each_ref().map(|handle| handle.take_signal());
    assert_eq!(signals, [None, Some(SocketSignal::Fence), None]);
    let limited = ProducerIdentity {
        max_connections: 2,
        ..producing("p")
    };
    let unavailable = producer_permit(&sessions, limited, &Arc::default()).await;
    let unavailable = unavailable.unwrap_err();
    assert!(matches!(
        unavailable,
        AdmissionError::Unavailable { of: "client", .. }
    ));
    assert_eq!(begun.elapsed(), CLAIM_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn the_next_socket_of_a_client_with_a_limit_is_refused_by_its_name_and_number() {
    let sessions = sessions();
    let limited = ProducerIdentity {
        max_connections: 2,
        ..producing("p")
    };
    let first = producer_permit(&sessions, limited, &Arc::default())
        .await
        .unwrap();
    let _second = producer_permit(&sessions, limited, &Arc::default())
        .await
        .unwrap();
    let third = producer_permit(&sessions, limited, &Arc::default()).await;
    let message = third.unwrap_err().to_string();
    let expected = "parameter clientId: \"p\" has 2 sockets over all nodes; allowed: 2 \
                    (max-connections of producer.limits)";
    assert_eq!(message, expected);
    // Who has no client id is a client of its own.
    let nameless = ProducerIdentity {
        client_id: None,
        max_connections: 1,
        ..limited
    };
    let _two = [
        producer_permit(&sessions, nameless, &Arc::default())
            .await
            .unwrap(),
        producer_permit(&sessions, nameless, &Arc::default())
            .await
            .unwrap(),
    ];
    drop(first);
    producer_permit(&sessions, limited, &Arc::default())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_connected_once_while_its_client_answers() {
    let sessions = sessions();
    let exclusive = ProducerIdentity {
        instance_id: Some("1"),
        sharing: InstanceSharing::Exclusive,
        ..producing("p")
    };
    let handle: Arc<SocketHandle> = Arc::default();
    let first = producer_permit(&sessions, exclusive, &handle)
        .await
        .unwrap();
    let answering = tokio::spawn(async move {
        handle.wake.notified().await;
        assert_eq!(handle.take_signal(), Some(SocketSignal::Probe));
        handle.client_alive.notify_waiters();
    });
    let second = producer_permit(&sessions, exclusive, &Arc::default()).await;
    let refused = AdmissionError::DuplicateInstance {
        client_id: "p".to_owned(),
        instance_id: "1".to_owned(),
    };
    assert_eq!(second.unwrap_err(), refused);
    answering.await.unwrap();
    // It answers no longer.
    let begun = Instant::now();
    producer_permit(&sessions, exclusive, &Arc::default())
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), PROBE_TIMEOUT);
    assert_eq!(first.handle.take_signal(), Some(SocketSignal::Evict));
}
