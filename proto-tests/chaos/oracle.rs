//! What must be true of a run, whatever went wrong in it. Pure.
//!
//! | promise | violations |
//! |---|---|
//! | acknowledged is in the log, once, in the order sent | `Lost`, `Misplaced`, `Duplicated`, `Reordered` |
//! | an error other than `unknown_outcome` is not in the log | `WrittenAllTheSame` |
//! | every record is answered | `Unanswered` |
//! | a group gets every record, none is skipped | `Skipped`, `Unread`, `WrongRecord` |
//! | a partition has one owner, but for one session timeout | `TwoOwners` |
//! | brokers that go away close nothing | `ClosedByServer` |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use kafka_client::TopicPartition;

use super::history::{
    ChaosHistory, GroupRun, LoggedRecord, Ownership, RecordId, SendResult, SentRecord, ServerClose,
};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChaosViolation {
    /// Acknowledged, and not in the log.
    Lost { id: RecordId, topic: String },
    /// Acknowledged at an offset that has another record.
    Misplaced {
        id: RecordId,
        tp: TopicPartition,
        offset: i64,
    },
    /// In the log more than once.
    Duplicated { id: RecordId, topic: String },
    /// Behind a record that the same connection sent later.
    Reordered { id: RecordId, tp: TopicPartition },
    /// Its client was reported that it is not in the log.
    WrittenAllTheSame { id: RecordId, reported: String },
    /// Its client was reported nothing.
    Unanswered { id: RecordId, topic: String },
    /// Never delivered to the group, though it committed what is behind them.
    Skipped(GroupOffsetRange),
    /// Not delivered to the group until the deadline, long after the last fault.
    Unread(GroupOffsetRange),
    /// Delivered as what the log does not have there.
    WrongRecord {
        client: String,
        tp: TopicPartition,
        offset: i64,
    },
    /// Two clients got new records of a partition for longer than a session timeout.
    TwoOwners(DoubleOwnership),
    /// The server ended a connection.
    ClosedByServer(ServerClose),
}

/// Neighbouring offsets of a partition, as a group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupOffsetRange {
    pub(super) group: String,
    pub(super) tp: TopicPartition,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// Two clients of a group that had one partition at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DoubleOwnership {
    pub(super) group: String,
    pub(super) tp: TopicPartition,
    /// To whom it was assigned, and since when it received records.
    pub(super) owner: String,
    pub(super) since: Duration,
    /// Who else received records, and when the newest of these was sent.
    pub(super) other: String,
    pub(super) until: Duration,
}

/// Every broken promise of a run.
pub(super) fn check(history: &ChaosHistory) -> Vec<ChaosViolation> {
    let mut violations = Vec::new();
    check_produced(history, &mut violations);
    check_order(history, &mut violations);
    for (group, run) in &history.groups {
        check_delivered(history, group, run, &mut violations);
        check_owners(history, group, run, &mut violations);
    }
    check_content(history, &mut violations);
    let closes = history.closes.iter().cloned();
    violations.extend(closes.map(ChaosViolation::ClosedByServer));
    violations
}

/// What clients were reported of their records against what is in the logs.
fn check_produced(history: &ChaosHistory, violations: &mut Vec<ChaosViolation>) {
    let mut places: HashMap<RecordId, Vec<(&TopicPartition, i64)>> = HashMap::new();
    for (tp, log) in &history.logs {
        for (offset, record) in log {
            places.entry(record.id).or_default().push((tp, *offset));
        }
    }
    for SentRecord { id, topic, result } in &history.sent {
        let (id, topic) = (*id, topic.clone());
        let places = places.get(&id).map_or(&[][..], Vec::as_slice);
        match result {
            SendResult::Acknowledged { .. } if places.is_empty() => {
                violations.push(ChaosViolation::Lost { id, topic });
                continue;
            }
            SendResult::Acknowledged { partition, offset } => {
                let tp = TopicPartition::new(topic.as_str(), *partition);
                let there = |place: &(&TopicPartition, i64)| {
                    *place.0 == tp && (place.1 == *offset || *offset == -1)
                };
                if !places.iter().any(there) {
                    let offset = *offset;
                    violations.push(ChaosViolation::Misplaced { id, tp, offset });
                }
            }
            SendResult::Failed(reported) if !places.is_empty() => {
                let reported = reported.clone();
                violations.push(ChaosViolation::WrittenAllTheSame { id, reported });
            }
            SendResult::Unanswered => {
                let topic = topic.clone();
                violations.push(ChaosViolation::Unanswered { id, topic });
            }
            SendResult::Failed(_) | SendResult::Unknown => {}
        }
        if places.len() > 1 {
            violations.push(ChaosViolation::Duplicated { id, topic });
        }
    }
}

/// The records of one connection stand in each log in the order sent.
fn check_order(history: &ChaosHistory, violations: &mut Vec<ChaosViolation>) {
    for (tp, log) in &history.logs {
        let mut newest: HashMap<u32, u32> = HashMap::new();
        for LoggedRecord { id, .. } in log.values() {
            let newest = newest.entry(id.connection).or_insert(id.sequence);
            if id.sequence < *newest {
                let (id, tp) = (*id, tp.clone());
                violations.push(ChaosViolation::Reordered { id, tp });
            }
            *newest = id.sequence.max(*newest);
        }
    }
}

/// Every offset of every partition was delivered to some client of the group.
fn check_delivered(
    history: &ChaosHistory,
    group: &str,
    run: &GroupRun,
    violations: &mut Vec<ChaosViolation>,
) {
    let mut delivered: BTreeMap<&TopicPartition, BTreeSet<i64>> = BTreeMap::new();
    for record in history.deliveries.iter().filter(|d| d.group == *group) {
        delivered
            .entry(&record.tp)
            .or_default()
            .insert(record.offset);
    }
    for (tp, committed) in &run.committed {
        let delivered = delivered.remove(tp).unwrap_or_default();
        let log = history.logs.get(tp);
        let missing = log.into_iter().flat_map(BTreeMap::keys);
        let missing = missing.filter(|offset| !delivered.contains(offset));
        let mut ranges: Vec<(bool, GroupOffsetRange)> = Vec::new();
        for &offset in missing {
            let skipped = committed.is_some_and(|committed| offset < committed);
            match ranges.last_mut() {
                Some((same, range)) if *same == skipped && range.last + 1 == offset => {
                    range.last = offset;
                }
                _ => ranges.push((
                    skipped,
                    GroupOffsetRange {
                        group: group.to_owned(),
                        tp: tp.clone(),
                        first: offset,
                        last: offset,
                    },
                )),
            }
        }
        violations.extend(ranges.into_iter().map(|(skipped, range)| match skipped {
            true => ChaosViolation::Skipped(range),
            false => ChaosViolation::Unread(range),
        }));
    }
}

/// No two clients of a group get new records of a partition for longer than a session.
///
/// A client has fetched a record between the time when it was sent and the time when the
/// client received it. A client that owned the partition at no time in between, while another
/// owned it when the record was sent, is a second owner; and for longer than is allowed if the
/// first had received records for a session timeout by then.
fn check_owners(
    history: &ChaosHistory,
    group: &str,
    run: &GroupRun,
    violations: &mut Vec<ChaosViolation>,
) {
    let deliveries = || history.deliveries.iter().filter(|d| d.group == *group);
    let mut found: Vec<DoubleOwnership> = Vec::new();
    for record in deliveries() {
        let log = history.logs.get(&record.tp);
        let Some(logged) = log.and_then(|log| log.get(&record.offset)) else {
            continue;
        };
        let sent_at = logged.sent_at;
        let of_partition = || run.ownerships.iter().filter(|owned| owned.tp == record.tp);
        let might_own = |owned: &Ownership| {
            owned.client == record.client
                && owned.from <= record.at
                && owned.to.is_none_or(|to| to >= sent_at)
        };
        if of_partition().any(might_own) {
            continue;
        }
        let owns_then =
            |owned: &&Ownership| owned.from < sent_at && owned.to.is_none_or(|to| to > sent_at);
        let Some(owner) = of_partition().find(owns_then) else {
            continue;
        };
        let mut of_owner = deliveries()
            .filter(|d| d.tp == owner.tp && d.client == owner.client && d.at >= owner.from);
        let Some(since) = of_owner.next().map(|first| first.at) else {
            continue;
        };
        if since + history.session_timeout >= sent_at {
            continue;
        }
        let known = found.iter_mut().find(|known| {
            known.tp == record.tp && known.other == record.client && known.since == since
        });
        match known {
            Some(known) => known.until = known.until.max(sent_at),
            None => found.push(DoubleOwnership {
                group: group.to_owned(),
                tp: record.tp.clone(),
                owner: owner.client.clone(),
                since,
                other: record.client.clone(),
                until: sent_at,
            }),
        }
    }
    violations.extend(found.into_iter().map(ChaosViolation::TwoOwners));
}

/// Delivered is what stands at that offset in the log.
fn check_content(history: &ChaosHistory, violations: &mut Vec<ChaosViolation>) {
    for record in &history.deliveries {
        let log = history.logs.get(&record.tp);
        let logged = log.and_then(|log| log.get(&record.offset));
        if logged.map(|logged| logged.id) != Some(record.id) {
            violations.push(ChaosViolation::WrongRecord {
                client: record.client.clone(),
                tp: record.tp.clone(),
                offset: record.offset,
            });
        }
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connection, self.sequence)
    }
}

impl fmt::Display for GroupOffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            tp,
            first,
            last,
        } = self;
        write!(f, "group {group}, {tp}, offsets {first} to {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::DeliveredRecord;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tp() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn id(sequence: u32) -> RecordId {
        RecordId {
            connection: 1,
            sequence,
        }
    }

    fn owned(client: &str, from: u32, to: Option<u32>) -> Ownership {
        Ownership {
            client: client.to_owned(),
            tp: tp(),
            from: SECOND * from,
            to: to.map(|to| SECOND * to),
        }
    }

    /// Records 0 to 9, sent at second 0 to 9, acknowledged, received by `a` half a second
    /// later, all committed.
    fn flawless() -> ChaosHistory {
        let sent = (0..10).map(|n| SentRecord {
            id: id(n),
            topic: "t".to_owned(),
            result: SendResult::Acknowledged {
                partition: 0,
                offset: n.into(),
            },
        });
        let log = (0..10).map(|n| {
            let sent_at = SECOND * n;
            (n.into(), LoggedRecord { id: id(n), sent_at })
        });
        let group = GroupRun {
            committed: BTreeMap::from([(tp(), Some(10))]),
            ownerships: vec![owned("a", 0, None)],
            ..GroupRun::default()
        };
        ChaosHistory {
            session_timeout: SECOND * 3,
            sent: sent.collect(),
            logs: BTreeMap::from([(tp(), log.collect())]),
            deliveries: (0..10).map(|n| delivery("a", n)).collect(),
            groups: BTreeMap::from([("g".to_owned(), group)]),
            ..ChaosHistory::default()
        }
    }

    fn delivery(client: &str, n: u32) -> DeliveredRecord {
        DeliveredRecord {
            group: "g".to_owned(),
            client: client.to_owned(),
            tp: tp(),
            offset: n.into(),
            id: id(n),
            at: SECOND * n + SECOND / 2,
        }
    }

    /// What is found in a run that is flawless but for `change`.
    fn found(change: impl FnOnce(&mut ChaosHistory)) -> Vec<ChaosViolation> {
        let mut history = flawless();
        change(&mut history);
        check(&history)
    }

    fn log(history: &mut ChaosHistory) -> &mut BTreeMap<i64, LoggedRecord> {
        history.logs.get_mut(&tp()).unwrap()
    }

    fn group(history: &mut ChaosHistory) -> &mut GroupRun {
        history.groups.get_mut("g").unwrap()
    }

    fn range(first: i64, last: i64) -> GroupOffsetRange {
        GroupOffsetRange {
            group: "g".to_owned(),
            tp: tp(),
            first,
            last,
        }
    }

    #[test]
    fn a_flawless_run_has_no_violation() {
        assert_eq!(found(|_| ()), []);
    }

    #[test]
    fn an_acknowledged_record_that_is_not_in_the_log_is_lost() {
        let lost = found(|history| {
            log(history).remove(&9);
            history.deliveries.pop();
            group(history).committed.insert(tp(), Some(9));
        });
        let topic = "t".to_owned();
        assert_eq!(lost, [ChaosViolation::Lost { id: id(9), topic }]);
    }

    #[test]
    fn an_acknowledged_record_stands_at_its_offset_or_at_any_if_none_was_told() {
        let reported = |offset| {
            found(move |history| {
                let partition = 0;
                history.sent[4].result = SendResult::Acknowledged { partition, offset };
            })
        };
        let misplaced = ChaosViolation::Misplaced {
            id: id(4),
            tp: tp(),
            offset: 5,
        };
        assert_eq!(reported(5), [misplaced]);
        assert_eq!(reported(-1), []);
    }

    #[test]
    fn a_record_that_stands_twice_in_the_log_is_a_duplicate_even_if_its_outcome_is_unknown() {
        let twice = found(|history| {
            let again = log(history)[&9];
            log(history).insert(10, again);
            history.sent[9].result = SendResult::Unknown;
            history.deliveries.push(DeliveredRecord {
                id: id(9),
                ..delivery("a", 10)
            });
        });
        let topic = "t".to_owned();
        assert_eq!(twice, [ChaosViolation::Duplicated { id: id(9), topic }]);
    }

    #[test]
    fn records_of_one_connection_out_of_the_order_sent_are_found() {
        let swapped = found(|history| {
            let log = log(history);
            let (third, fourth) = (log[&3], log[&4]);
            log.extend([(3, fourth), (4, third)]);
            for (sent, delivered) in [(3, 4), (4, 3)] {
                history.sent[sent].result = SendResult::Unknown;
                history.deliveries[delivered].id = id(sent as u32);
            }
        });
        let reordered = ChaosViolation::Reordered {
            id: id(3),
            tp: tp(),
        };
        assert_eq!(swapped, [reordered]);
    }

    #[test]
    fn a_record_whose_client_was_told_a_failure_must_not_be_in_the_log() {
        let reported = |result: SendResult| found(move |history| history.sent[4].result = result);
        let failed = SendResult::Failed("timed_out".to_owned());
        let written = ChaosViolation::WrittenAllTheSame {
            id: id(4),
            reported: "timed_out".to_owned(),
        };
        assert_eq!(reported(failed), [written]);
        assert_eq!(reported(SendResult::Unknown), []);
    }

    #[test]
    fn a_record_without_an_answer_is_found() {
        let silent = found(|history| history.sent[4].result = SendResult::Unanswered);
        let topic = "t".to_owned();
        assert_eq!(silent, [ChaosViolation::Unanswered { id: id(4), topic }]);
    }

    #[test]
    fn what_a_group_never_got_is_skipped_below_its_commit_and_unread_behind_it() {
        let missing = found(|history| {
            let missing = [3, 4, 6, 8, 9];
            history.deliveries.retain(|d| !missing.contains(&d.offset));
            group(history).committed.insert(tp(), Some(8));
        });
        let skipped = [range(3, 4), range(6, 6)].map(ChaosViolation::Skipped);
        let unread = [ChaosViolation::Unread(range(8, 9))];
        assert_eq!(missing, [&skipped[..], &unread].concat());
    }

    #[test]
    fn a_partition_that_nobody_reads_is_unread() {
        let idle = found(|history| {
            history.deliveries.clear();
            group(history).committed.insert(tp(), None);
            group(history).ownerships.clear();
        });
        assert_eq!(idle, [ChaosViolation::Unread(range(0, 9))]);
    }

    #[test]
    fn what_is_delivered_as_another_record_is_found() {
        let wrong = found(|history| history.deliveries[4].id = id(99));
        let (client, tp) = ("a".to_owned(), tp());
        let offset = 4;
        assert_eq!(wrong, [ChaosViolation::WrongRecord { client, tp, offset }]);
    }

    #[test]
    fn a_client_that_reads_on_longer_than_a_session_after_another_got_its_partition_is_found() {
        // `b` has the partition from second 2 on; `a` goes on to get every new record.
        let both = |ends: u32| {
            found(move |history| {
                group(history).ownerships = vec![owned("a", 0, Some(1)), owned("b", 2, None)];
                history.deliveries.extend((2..10).map(|n| delivery("b", n)));
                history
                    .deliveries
                    .retain(|d| d.client == "b" || d.offset <= ends.into());
            })
        };
        assert_eq!(both(5), []);
        let two = DoubleOwnership {
            group: "g".to_owned(),
            tp: tp(),
            owner: "b".to_owned(),
            since: SECOND * 2 + SECOND / 2,
            other: "a".to_owned(),
            until: SECOND * 9,
        };
        assert_eq!(both(9), [ChaosViolation::TwoOwners(two)]);
    }

    #[test]
    fn a_client_that_reads_on_while_the_owner_does_not_begin_is_no_second_owner() {
        let late = found(|history| {
            group(history).ownerships = vec![owned("a", 0, Some(1)), owned("b", 2, None)];
        });
        assert_eq!(late, []);
    }

    #[test]
    fn an_owner_may_get_what_was_sent_while_another_had_the_partition() {
        let after_another = found(|history| {
            group(history).ownerships = vec![owned("b", 0, Some(8)), owned("a", 9, None)];
            for record in &mut history.deliveries {
                record.at = SECOND * 10;
            }
        });
        assert_eq!(after_another, []);
    }

    #[test]
    fn a_connection_that_the_server_ended_is_found() {
        let close = ServerClose {
            client: "a".to_owned(),
            at: SECOND,
            reason: "1011".to_owned(),
        };
        let closed = found(|history| history.closes.push(close.clone()));
        assert_eq!(closed, [ChaosViolation::ClosedByServer(close)]);
    }
}
