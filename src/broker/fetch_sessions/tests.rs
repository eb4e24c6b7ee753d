use bytes::Bytes;

use super::*;

fn wanted(partition: i32, offset: i64) -> FetchPartitionRequest {
    FetchPartitionRequest {
        topic: StrBytes::from_static_str("t"),
        topic_id: Uuid::nil(),
        partition,
        offset,
        leader_epoch: -1,
        last_epoch: -1,
        max_bytes: 1,
    }
}

fn session_request(
    session_id: i32,
    epoch: i32,
    wanted: Vec<FetchPartitionRequest>,
) -> FetchSessionRequest {
    FetchSessionRequest {
        session_id,
        epoch,
        with_ids: false,
        wanted,
        forgotten: Vec::new(),
    }
}

fn result(partition: i32, high_watermark: i64, records: &'static [u8]) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(high_watermark)
        .with_log_start_offset(0)
        .with_records(Some(Bytes::from_static(records)))
}

fn partitions(fetch_context: &FetchContext) -> Vec<(i32, i64)> {
    fetch_context
        .wanted
        .iter()
        .map(|w| (w.partition, w.offset))
        .collect()
}

fn sessions(slots: usize) -> (FetchSessionCache, Instant) {
    (
        FetchSessionCache::new(slots, 10, Duration::from_secs(120), 7),
        Instant::now(),
    )
}

/// A session that wants partitions 0, 1 and 2, which are all empty.
fn begun() -> (FetchSessionCache, i32, Instant) {
    let (mut sessions, now) = sessions(10);
    let fetch_context = sessions
        .open(
            session_request(0, 0, (0..3).map(|p| wanted(p, 0)).collect()),
            now,
        )
        .unwrap();
    let (id, said) = sessions.close(
        fetch_context,
        (0..3).map(|p| result(p, 0, b"")).collect(),
        now,
    );
    assert_eq!(said.len(), 3);
    assert_ne!(id, 0);
    (sessions, id, now)
}

#[test]
fn only_news_is_told_and_the_served_partition_goes_last() {
    let (mut sessions, id, now) = begun();
    let fetch_context = sessions.open(session_request(id, 1, vec![]), now).unwrap();
    assert_eq!(partitions(&fetch_context), [(0, 0), (1, 0), (2, 0)]);
    let results = vec![result(0, 0, b""), result(1, 5, b"x"), result(2, 0, b"")];
    let (_, said) = sessions.close(fetch_context, results, now);
    assert_eq!(
        said.iter().map(|(w, _)| w.partition).collect::<Vec<_>>(),
        [1]
    );

    let fetch_context = sessions
        .open(session_request(id, 2, vec![wanted(1, 5)]), now)
        .unwrap();
    assert_eq!(partitions(&fetch_context), [(0, 0), (2, 0), (1, 5)]);
    let results = vec![result(0, 0, b""), result(2, 9, b""), result(1, 5, b"")];
    let (_, said) = sessions.close(fetch_context, results, now);
    assert_eq!(
        said.iter().map(|(w, _)| w.partition).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn an_error_is_in_each_response_and_so_is_its_end() {
    let (mut sessions, id, now) = begun();
    for (epoch, code, included) in [(1, 6, 1), (2, 6, 1), (3, 0, 1), (4, 0, 0)] {
        let fetch_context = sessions
            .open(session_request(id, epoch, vec![]), now)
            .unwrap();
        let failing = result(0, 0, b"").with_error_code(code);
        let results = vec![failing, result(1, 0, b""), result(2, 0, b"")];
        assert_eq!(
            sessions.close(fetch_context, results, now).1.len(),
            included
        );
    }
}

#[test]
fn forgotten_partitions_are_gone_and_an_empty_session_ends() {
    let (mut sessions, id, now) = begun();
    let mut forget = session_request(id, 1, vec![]);
    forget.forgotten = vec![wanted(0, 0), wanted(2, 0)];
    let fetch_context = sessions.open(forget, now).unwrap();
    assert_eq!(partitions(&fetch_context), [(1, 0)]);
    let mut forget = session_request(id, 2, vec![]);
    forget.forgotten = vec![wanted(1, 0)];
    sessions.open(forget, now).unwrap();
    assert_eq!(sessions.len(), 0);
}

#[test]
fn a_wrong_id_epoch_or_way_to_name_topics_is_an_error() {
    let (mut sessions, id, now) = begun();
    let mut error = |session_request| sessions.open(session_request, now).unwrap_err();
    let unknown = error(session_request(id + 1, 1, vec![]));
    assert_eq!(unknown, ResponseError::FetchSessionIdNotFound);
    let epoch = error(session_request(id, 2, vec![]));
    assert_eq!(epoch, ResponseError::InvalidFetchSessionEpoch);
    let mut ids = session_request(id, 1, vec![]);
    ids.with_ids = true;
    assert_eq!(error(ids), ResponseError::FetchSessionTopicIdError);
    // and none of that harmed the session
    sessions.open(session_request(id, 1, vec![]), now).unwrap();
}

#[test]
fn no_more_partitions_are_remembered_than_the_limit() {
    let (mut sessions, id, now) = begun();
    let mut begin = |wanted: Vec<FetchPartitionRequest>| {
        let results = wanted.iter().map(|w| result(w.partition, 0, b""));
        let results = results.collect();
        let fetch_context = sessions.open(session_request(0, 0, wanted), now).unwrap();
        sessions.close(fetch_context, results, now).0
    };
    // There are three already.
    assert_eq!(begin((0..8).map(|n| wanted(n, 0)).collect()), 0);
    let mut nameless = wanted(0, 0);
    nameless.topic = StrBytes::from_string("t".repeat(250));
    assert_eq!(begin(vec![nameless]), 0);
    assert_ne!(begin((0..7).map(|n| wanted(n, 0)).collect()), 0);
    let error = sessions.open(session_request(id, 1, vec![wanted(7, 0)]), now);
    assert_eq!(error.unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert_eq!(sessions.len(), 1);
}

#[test]
fn the_final_epoch_ends_the_session_and_epoch_zero_replaces_it() {
    let (mut sessions, id, now) = begun();
    let fetch_context = sessions
        .open(session_request(id, 0, vec![wanted(0, 0)]), now)
        .unwrap();
    let (other, _) = sessions.close(fetch_context, vec![result(0, 0, b"")], now);
    assert_ne!(other, id);
    assert_eq!(sessions.len(), 1);
    let fetch_context = sessions
        .open(session_request(other, -1, vec![wanted(0, 0)]), now)
        .unwrap();
    assert_eq!(
        sessions
            .close(fetch_context, vec![result(0, 0, b"")], now)
            .0,
        0
    );
    assert_eq!(sessions.len(), 0);
}

#[test]
fn a_full_cache_evicts_only_what_is_idle() {
    let (mut sessions, now) = sessions(1);
    let mut begin = |now| {
        let fetch_context = sessions
            .open(session_request(0, 0, vec![wanted(0, 0)]), now)
            .unwrap();
        sessions
            .close(fetch_context, vec![result(0, 0, b"")], now)
            .0
    };
    let first = begin(now);
    assert_ne!(first, 0);
    assert_eq!(begin(now + Duration::from_secs(119)), 0);
    let second = begin(now + Duration::from_secs(120));
    assert!(second != 0 && second != first);
}
