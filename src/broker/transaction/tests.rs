use ResponseError::{
    ConcurrentTransactions, InvalidProducerIdMapping, InvalidTxnState, ProducerFenced,
    TransactionAbortable,
};

use super::EndProtocol::{BumpsEpoch, KeepsEpoch};
use super::TransactionResult::{Abort, Commit};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(15);
const P: PartitionOfId = (Uuid::nil(), 0);

fn producer(id: i64, epoch: i16) -> ProducerEpoch {
    ProducerEpoch { id, epoch }
}

/// Producer 5 with epoch 0 and an open transaction.
fn ongoing() -> (TransactionMetadata, Instant) {
    let now = Instant::now();
    let mut txn = TransactionMetadata::new(5, now);
    let first = txn.init(None, TIMEOUT, BumpsEpoch, now, || 6);
    assert_eq!(first, Ok(producer(5, 0)));
    txn.add(producer(5, 0), &BTreeSet::from([P]), now).unwrap();
    (txn, now)
}

fn init(
    txn: &mut TransactionMetadata,
    expected: Option<ProducerEpoch>,
) -> Result<ProducerEpoch, ResponseError> {
    txn.init(expected, TIMEOUT, BumpsEpoch, Instant::now(), || 6)
}

fn end(
    txn: &mut TransactionMetadata,
    by: ProducerEpoch,
    result: TransactionResult,
    protocol: EndProtocol,
) -> Result<ProducerEpoch, ResponseError> {
    txn.end(by, result, protocol, Instant::now(), || 6)
}

#[test]
fn an_end_of_version_2_raises_the_epoch_and_its_markers_carry_that() {
    let (mut txn, now) = ongoing();
    assert_eq!(
        end(&mut txn, producer(5, 0), Commit, BumpsEpoch),
        Ok(producer(5, 1))
    );
    let ended = txn.complete().unwrap();
    assert_eq!((ended.producer, ended.result), (producer(5, 1), Commit));
    assert_eq!(ended.partitions, BTreeSet::from([P]));
    // The next one under the old epoch is a zombie's.
    let added = txn.add(producer(5, 0), &BTreeSet::from([P]), now);
    assert_eq!(added, Err(ProducerFenced));
    assert_eq!(txn.add(producer(5, 1), &BTreeSet::from([P]), now), Ok(()));
}

#[test]
fn an_end_that_is_asked_for_again_is_answered_as_the_first_time() {
    let (mut txn, _) = ongoing();
    let by = producer(5, 0);
    end(&mut txn, by, Commit, BumpsEpoch).unwrap();
    assert_eq!(
        end(&mut txn, by, Commit, BumpsEpoch),
        Err(ConcurrentTransactions)
    );
    txn.complete();
    assert_eq!(end(&mut txn, by, Commit, BumpsEpoch), Ok(producer(5, 1)));
    assert_eq!(end(&mut txn, by, Abort, BumpsEpoch), Err(InvalidTxnState));
    // Under the new epoch it is the end of a transaction that has not begun.
    assert_eq!(
        end(&mut txn, producer(5, 1), Commit, BumpsEpoch),
        Err(InvalidTxnState)
    );
    assert_eq!(
        end(&mut txn, producer(5, 1), Abort, BumpsEpoch),
        Ok(producer(5, 2))
    );
    assert_eq!(
        end(&mut txn, producer(5, 0), Abort, BumpsEpoch),
        Err(ProducerFenced)
    );
}

#[test]
fn while_markers_are_due_either_end_is_to_be_asked_for_later() {
    for protocol in [KeepsEpoch, BumpsEpoch] {
        let (mut txn, _) = ongoing();
        let by = producer(5, 0);
        end(&mut txn, by, Commit, protocol).unwrap();
        for result in [Commit, Abort] {
            let again = end(&mut txn, by, result, protocol);
            assert_eq!(again, Err(ConcurrentTransactions), "{protocol:?}");
        }
        txn.complete();
        assert_eq!(end(&mut txn, by, Abort, protocol), Err(InvalidTxnState));
    }
}

#[test]
fn an_end_of_version_1_keeps_the_epoch() {
    let (mut txn, _) = ongoing();
    let by = producer(5, 0);
    assert_eq!(end(&mut txn, by, Abort, KeepsEpoch), Ok(by));
    assert_eq!(
        end(&mut txn, by, Abort, KeepsEpoch),
        Err(ConcurrentTransactions)
    );
    assert_eq!(txn.complete().unwrap().producer, by);
    assert_eq!(end(&mut txn, by, Abort, KeepsEpoch), Ok(by));
    assert_eq!(end(&mut txn, by, Commit, KeepsEpoch), Err(InvalidTxnState));
    assert_eq!(
        end(&mut txn, producer(5, 1), Abort, KeepsEpoch),
        Err(ProducerFenced)
    );
    assert_eq!(
        end(&mut txn, producer(4, 0), Abort, KeepsEpoch),
        Err(InvalidProducerIdMapping)
    );
}

#[test]
fn a_newer_producer_aborts_the_open_transaction_and_fences_the_older_one() {
    let (mut txn, now) = ongoing();
    assert_eq!(init(&mut txn, None), Err(ConcurrentTransactions));
    assert_eq!(init(&mut txn, None), Err(ConcurrentTransactions));
    let ended = txn.complete().unwrap();
    assert_eq!((ended.producer, ended.result), (producer(5, 1), Abort));
    // Raised by two, as a real broker does it.
    assert_eq!(init(&mut txn, None), Ok(producer(5, 2)));
    let added = txn.add(producer(5, 0), &BTreeSet::from([P]), now);
    assert_eq!(added, Err(ProducerFenced));
    assert_eq!(
        end(&mut txn, producer(5, 0), Abort, BumpsEpoch),
        Err(ProducerFenced)
    );
    assert_eq!(init(&mut txn, Some(producer(5, 0))), Err(ProducerFenced));
}

#[test]
fn a_producer_that_continues_with_its_epoch_gets_the_next_one_once() {
    let now = Instant::now();
    let mut txn = TransactionMetadata::new(5, now);
    init(&mut txn, None).unwrap();
    assert_eq!(init(&mut txn, Some(producer(5, 0))), Ok(producer(5, 1)));
    // The answer was lost.
    assert_eq!(init(&mut txn, Some(producer(5, 0))), Ok(producer(5, 1)));
    assert_eq!(init(&mut txn, Some(producer(9, 0))), Err(ProducerFenced));
}

#[test]
fn a_new_producer_id_follows_on_the_last_epoch() {
    let (mut txn, now) = ongoing();
    txn.producer.epoch = EPOCH_LAST;
    let last = producer(5, EPOCH_LAST);
    assert_eq!(end(&mut txn, last, Commit, BumpsEpoch), Ok(producer(6, 0)));
    let early = txn.add(producer(6, 0), &BTreeSet::from([P]), now);
    assert_eq!(early, Err(ConcurrentTransactions));
    assert_eq!(txn.complete().unwrap().producer, producer(5, i16::MAX));
    assert_eq!(end(&mut txn, last, Commit, BumpsEpoch), Ok(producer(6, 0)));
    assert_eq!(txn.add(producer(6, 0), &BTreeSet::from([P]), now), Ok(()));
    assert_eq!(
        end(&mut txn, last, Commit, BumpsEpoch),
        Err(InvalidProducerIdMapping)
    );

    let mut txn = TransactionMetadata::new(5, now);
    txn.producer.epoch = EPOCH_LAST;
    assert_eq!(init(&mut txn, Some(last)), Ok(producer(6, 0)));
    assert_eq!(init(&mut txn, Some(last)), Ok(producer(6, 0)));
}

#[test]
fn only_partitions_that_were_added_are_in_the_transaction() {
    let (txn, _) = ongoing();
    assert_eq!(txn.verify(producer(5, 0), &P), Ok(()));
    let other = (Uuid::nil(), 1);
    assert_eq!(
        txn.verify(producer(5, 0), &other),
        Err(TransactionAbortable)
    );
    assert_eq!(txn.verify(producer(5, 1), &P), Err(ProducerFenced));
}

#[test]
fn after_a_time_out_the_abort_of_its_own_producer_is_answered() {
    let (mut txn, now) = ongoing();
    txn.expire(BumpsEpoch, now + TIMEOUT / 2);
    assert_eq!(txn.phase(), TransactionPhase::Ongoing);
    txn.expire(BumpsEpoch, now + TIMEOUT);
    assert_eq!(txn.complete().unwrap().producer, producer(5, 1));
    assert_eq!(
        end(&mut txn, producer(5, 0), Commit, BumpsEpoch),
        Err(InvalidTxnState)
    );
    assert_eq!(
        end(&mut txn, producer(5, 0), Abort, BumpsEpoch),
        Ok(producer(5, 1))
    );
}
