//! What a change of leader does to positions (KIP-320).

use super::*;

#[test]
fn a_position_of_an_older_epoch_is_validated_before_it_is_served() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut fresh = harness.cursor(50, 5);
    harness.tail_at(&mut fresh, 50);
    harness.push(served_by(50, 60, 5, 5));
    let mut old = harness.cursor(52, 3);
    assert!(harness.waits(&mut old), "although the tail_cache holds it");
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!(spec.validate_epoch, Some(3));
    let chunk = served_by(52, 60, 5, 5);
    harness.answer(
        spec,
        FetchOutcome::Chunk {
            chunk,
            readable_end: 60,
        },
    );
    harness.gets(&mut old, 50, 60);
}

#[test]
fn after_a_leader_change_the_end_of_the_tail_cache_is_validated_for_all() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    assert!(harness.waits(&mut a));
    assert!(harness.state.tail_removed());
    harness.state.set_leader_epoch(6);
    assert!(!harness.state.request_tail(), "not before it is validated");
    let handover = harness.state.start_handover_fetch().unwrap();
    assert_eq!(handover.validate_epoch, Some(5));
    harness.answer(
        handover,
        FetchOutcome::AtEnd {
            readable_end: 60,
            serving_epoch: 6,
        },
    );
    assert!(harness.state.request_tail());
    // A cursor that lagged meanwhile reads the same log, of which nothing was truncated.
    notify(harness.push(served_by(60, 61, 6, 6)).wake);
    harness.gets(&mut a, 60, 61);
}

#[test]
fn a_response_of_the_former_leader_validates_nothing() {
    let end = 60;
    let outcomes: [fn() -> FetchOutcome<TestChunk>; 3] = [
        || FetchOutcome::AtEnd {
            readable_end: 60,
            serving_epoch: 5,
        },
        || FetchOutcome::Chunk {
            chunk: served_by(60, 61, 5, 5),
            readable_end: 61,
        },
        || FetchOutcome::NoRoom {
            next_offset: 61,
            last_epoch: 5,
            readable_end: 61,
            serving_epoch: 5,
        },
    ];
    for outcome in outcomes {
        let mut harness = FetchStateHarness::new();
        harness.state.set_leader_epoch(5);
        let mut a = harness.cursor(50, 5);
        harness.tail_at(&mut a, 50);
        notify(harness.push(served_by(50, end, 5, 5)).wake);
        harness.gets(&mut a, 50, end);
        assert!(harness.waits(&mut a));
        harness.state.tail_removed();
        let handover = harness.state.start_handover_fetch().unwrap();
        assert_eq!(
            handover.validate_epoch, None,
            "the epoch of the leader that it was read from"
        );
        harness.state.set_leader_epoch(6);
        harness.answer(handover, outcome());
        assert!(!harness.state.request_tail(), "not before it is validated");
        let _ = harness.next(&mut a);
        assert_eq!(
            harness.state.start_handover_fetch().unwrap().validate_epoch,
            Some(5)
        );
    }
}

#[test]
fn a_tail_cache_that_was_replaced_before_its_validation_leaves_each_cursor_to_validate() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    let mut b = harness.cursor(50, 5);
    harness.gets(&mut b, 50, 60);
    assert!(harness.waits(&mut a));
    harness.state.tail_removed();
    harness.state.set_leader_epoch(6);
    // The new leader's log is shorter: for a cursor that reads there, it ends before the tail cache.
    let mut c = harness.cursor(40, 6);
    assert!(harness.waits(&mut c));
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(
        spec,
        FetchOutcome::AtEnd {
            readable_end: 40,
            serving_epoch: 6,
        },
    );
    assert!(harness.waits(&mut c));
    // And grows past the offset of the others.
    notify(harness.handover(served_by(40, 70, 6, 6)).wake);
    harness.gets(&mut c, 40, 70);
    assert!(harness.waits(&mut b), "another record may be there now");
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!((spec.offset, spec.validate_epoch), (60, Some(5)));
}

#[test]
fn a_tail_cache_without_chunks_is_validated_as_well() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    harness.state.tail_removed();
    assert!(harness.waits(&mut a));
    harness.state.set_leader_epoch(6);
    assert_eq!(
        harness.state.start_handover_fetch().unwrap().validate_epoch,
        Some(5)
    );
}

#[test]
fn truncation_is_reported_to_each_cursor_for_its_own_position() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    assert!(harness.waits(&mut a));
    harness.state.tail_removed();
    harness.state.set_leader_epoch(6);
    let handover = harness.state.start_handover_fetch().unwrap();
    let error = FetchError::Truncated {
        tp: TopicPartition::new("t", 0),
        offset: 60,
        to: FetchPosition {
            offset: 55,
            leader_epoch: 5,
        },
    };
    harness.answer(handover, FetchOutcome::Failed(error.clone()));
    assert!(a.wake.take());
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!((spec.offset, spec.validate_epoch), (60, Some(5)));
    harness.answer(spec, FetchOutcome::Failed(error.clone()));
    assert!(matches!(harness.next(&mut a), NextChunk::Failed(e) if e == error));
}

#[test]
fn a_tail_cache_that_is_dropped_before_its_validation_leaves_each_cursor_to_validate() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    harness.state.set_leader_epoch(6);
    assert!(
        !harness.state.tail_removed(),
        "no cursor waits: the tail_cache is dropped"
    );
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!((spec.offset, spec.validate_epoch), (60, Some(5)));
}

#[test]
fn a_position_beyond_the_end_of_the_tail_cache_is_not_validated_with_it() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    let mut b = harness.cursor(40, 5);
    assert!(harness.waits(&mut b));
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(
        spec,
        FetchOutcome::Chunk {
            chunk: served_by(40, 70, 5, 5),
            readable_end: 70,
        },
    );
    harness.gets(&mut b, 40, 70);
    assert!(harness.state.tail_removed());
    harness.state.set_leader_epoch(6);
    // The log was truncated to 60, after the end of the tail cache.
    let handover = harness.state.start_handover_fetch().unwrap();
    assert_eq!((handover.offset, handover.validate_epoch), (50, Some(5)));
    harness.answer(
        handover,
        FetchOutcome::Chunk {
            chunk: served_by(50, 80, 6, 6),
            readable_end: 80,
        },
    );
    harness.gets(&mut a, 50, 80);
    assert!(harness.waits(&mut b), "its record may be another one");
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!((spec.offset, spec.validate_epoch), (70, Some(5)));
}

#[test]
fn after_a_chunk_of_the_former_leader_the_position_is_validated() {
    let mut harness = FetchStateHarness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(0, 5);
    let mut b = harness.cursor(0, 5);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    let fetch = |harness: &mut FetchStateHarness, epoch| {
        let spec = harness.state.start_fetch().unwrap();
        harness.answer(
            spec,
            FetchOutcome::Chunk {
                chunk: served_by(0, 10, 5, epoch),
                readable_end: 100,
            },
        );
        spec.validate_epoch
    };
    fetch(&mut harness, 5);
    harness.gets(&mut b, 0, 10);
    harness.state.set_leader_epoch(6);
    assert!(harness.waits(&mut a));
    // The one that is prefetched comes after it.
    assert_eq!(fetch(&mut harness, 6), Some(5));
    harness.gets(&mut a, 0, 10);
    assert!(harness.waits(&mut a));
    let specs: Vec<_> = std::iter::from_fn(|| harness.state.start_fetch()).collect();
    assert!(
        specs.iter().all(|spec| spec.validate_epoch == Some(5)),
        "{specs:?}"
    );
}
