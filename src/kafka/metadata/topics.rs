//! Which topics the next Metadata request asks for, and the errors that responses had for them.
//! Sans-I/O, but for the clock that says when a topic was last used.
//!
//! ```text
//! request_update_for(), a waiter ─▶ asked for ─▶ note_results(): gone, if twice unknown
//!                                       │
//!                                       └──────▶ expire(): unused for metadata.max.idle.ms
//! ```
//!
//! # Topics without ids
//! Brokers before 2.8 give topics no ids. Whether a name is another topic's by now follows from
//! what responses say:
//! - a topic that they do not know is forgotten, and one that is described again is another;
//! - a description that takes back what was known (a lower leader epoch, fewer partitions) comes
//!   from a broker that lags behind, or is of another topic: when it is still so after
//!   `CONTRADICTION_TIMEOUT`, the topic is forgotten. Until then those who want it described anew
//!   wait;
//! - where one response does not know the topic, or a broker that had a partition of it denies to,
//!   the next response decides: a new topic begins with leader epoch 0, and every election raises
//!   it.
//!
//! An update is full, or partial: it asks only for the topics that somebody waits for (as KIP-526
//! does). The lookup of one topic costs what one topic costs, however many are in use.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::MetadataResponse;
use tokio::time::Instant;

use super::snapshot::{ClusterSnapshot, TopicError, TopicMetadata, TopicResult};

/// A topic that nobody used for so long is not asked for any more
/// (`metadata.max.idle.ms`).
const METADATA_MAX_IDLE: Duration = Duration::from_secs(5 * 60);
/// How long a broker's metadata may lag behind another's.
const CONTRADICTION_TIMEOUT: Duration = Duration::from_secs(3);

/// What the next Metadata request is about.
#[derive(Debug, Default)]
pub(super) struct TopicsOfInterest {
    topics: HashMap<Arc<str>, TopicInterest>,
    /// Somebody needs the response to a request that is yet to be sent, about all topics.
    full_requested: bool,
    /// Topics about which somebody needs the response to a request that is yet to be sent.
    requested: HashSet<Arc<str>>,
    /// Updates that were begun so far.
    updates: u64,
}

/// One request for metadata.
#[derive(Clone, Debug)]
pub(crate) struct MetadataUpdate {
    /// Counts up from 1.
    pub(crate) number: u64,
    /// The topics to ask for.
    pub(crate) topics: Vec<Arc<str>>,
    /// Whether these are all that are in use.
    pub(crate) is_full: bool,
    /// The response is about the cluster as it was then, or later.
    pub(crate) begun_at: Instant,
}

/// Who needs a topic, when it was last described, and the error it has had since.
#[derive(Debug)]
struct TopicInterest {
    waiters: usize,
    last_used: Instant,
    /// When the request began whose response last described the topic.
    last_refreshed: Option<Instant>,
    error: Option<RepeatedError>,
    /// When a broker denied to know the topic; the next response decides.
    doubted_at: Option<Instant>,
}

/// The same error in the last responses.
#[derive(Clone, Copy, Debug)]
struct RepeatedError {
    error: TopicError,
    /// The last update that met it.
    update: u64,
    /// How many in a row did.
    times: u32,
    /// When the request began whose response met it first.
    since: Instant,
}

impl MetadataUpdate {
    /// Whether it asks for nothing but an answer.
    pub(crate) fn is_probe(&self) -> bool {
        !self.is_full && self.topics.is_empty()
    }
}

impl TopicInterest {
    fn new() -> Self {
        Self {
            waiters: 0,
            last_used: Instant::now(),
            last_refreshed: None,
            error: None,
            doubted_at: None,
        }
    }
}

impl TopicsOfInterest {
    /// Requests a full update; the number of the first one that has not begun.
    pub(super) fn request_update(&mut self) -> u64 {
        self.full_requested = true;
        self.updates + 1
    }

    /// Requests a full update that asks for this topic too.
    pub(super) fn request_update_for(&mut self, topic: &str) {
        match self.topics.get_mut(topic) {
            Some(interest) => interest.last_used = Instant::now(),
            None => {
                self.topics.insert(topic.into(), TopicInterest::new());
            }
        }
        self.full_requested = true;
    }

    /// Requests an update about these topics, which have waiters; its number.
    pub(super) fn request_topics<'a>(&mut self, topics: impl Iterator<Item = &'a Arc<str>>) -> u64 {
        self.requested.extend(topics.cloned());
        self.updates + 1
    }

    /// Has the next response decide whether the topic is still the one that it was.
    pub(super) fn doubt(&mut self, topic: &Arc<str>, now: Instant) {
        if let Some(interest) = self.topics.get_mut(topic) {
            interest.doubted_at = Some(now);
            self.requested.insert(Arc::clone(topic));
        }
    }

    /// Whether one of these topics may be another one of its name by now.
    pub(super) fn are_doubted(&self, names: &[Arc<str>]) -> bool {
        let doubted = |name| {
            self.topics
                .get(name)
                .is_some_and(|topic| topic.doubted_at.is_some())
        };
        names.iter().any(doubted)
    }

    pub(super) fn is_full_update_requested(&self) -> bool {
        self.full_requested
    }

    pub(super) fn are_topics_requested(&self) -> bool {
        !self.requested.is_empty()
    }

    /// Begins an update: a full one, unless only topics are requested, or nothing but them
    /// may be asked for now.
    pub(super) fn begin_update(&mut self, may_be_full: bool, now: Instant) -> MetadataUpdate {
        self.updates += 1;
        let requested = std::mem::take(&mut self.requested);
        let is_full = requested.is_empty() || self.full_requested && may_be_full;
        let topics = if is_full {
            self.full_requested = false;
            self.topics.keys().cloned().collect()
        } else {
            requested.into_iter().collect()
        };
        MetadataUpdate {
            number: self.updates,
            topics,
            is_full,
            begun_at: now,
        }
    }

    /// Begins an update that asks for nothing but an answer, unless something is requested.
    pub(super) fn begin_probe(&mut self, may_be_full: bool, now: Instant) -> MetadataUpdate {
        if self.full_requested || !self.requested.is_empty() {
            return self.begin_update(may_be_full, now);
        }
        self.updates += 1;
        MetadataUpdate {
            number: self.updates,
            topics: Vec::new(),
            is_full: false,
            begun_at: now,
        }
    }

    pub(super) fn add_waiter(&mut self, topic: &Arc<str>) {
        self.topics
            .entry(Arc::clone(topic))
            .or_insert_with(TopicInterest::new)
            .waiters += 1;
    }

    pub(super) fn remove_waiter(&mut self, topic: &str) {
        if let Some(interest) = self.topics.get_mut(topic) {
            interest.waiters -= 1;
            interest.last_used = Instant::now();
        }
    }

    /// Whether a response to a request that began after `asked_at` described the topic.
    pub(super) fn is_refreshed_after(&self, topic: &str, asked_at: Instant) -> bool {
        let last_refreshed = self.topics.get(topic).and_then(|t| t.last_refreshed);
        last_refreshed.is_some_and(|at| at > asked_at)
    }

    /// The error that the response of that update, or of a later one, had for a topic.
    pub(super) fn error_since(&self, topic: &str, update: u64) -> Option<TopicError> {
        let last = self.topics.get(topic)?.error?;
        (last.update >= update).then_some(last.error)
    }

    /// Notes that a response describes topics as they are known already.
    pub(super) fn note_confirmed(&mut self, response: &MetadataResponse, update: &MetadataUpdate) {
        for name in response
            .topics
            .iter()
            .filter_map(|topic| topic.name.as_ref())
        {
            if let Some(interest) = self.topics.get_mut(name.as_str()) {
                interest.error = None;
                interest.last_refreshed = Some(update.begun_at);
            }
        }
    }

    /// Notes what a response says of each topic, and forgets those that are gone.
    pub(super) fn note_results(
        &mut self,
        results: &[TopicResult],
        next: &mut ClusterSnapshot,
        update: &MetadataUpdate,
    ) {
        for (name, result) in results {
            let Some(interest) = self.topics.get_mut(name) else {
                continue;
            };
            let Err(error) = *result else {
                interest.error = None;
                interest.last_refreshed = Some(update.begun_at);
                let decides = |at: &mut Instant| update.begun_at > *at;
                if interest.doubted_at.take_if(decides).is_some()
                    && next.topic(name).is_some_and(|topic| topic.may_be_new())
                {
                    next.renew_incarnation(name);
                }
                continue;
            };
            let (times, since) = match interest.error {
                Some(before) if before.error == error => (before.times + 1, before.since),
                _ => (1, update.begun_at),
            };
            interest.error = Some(RepeatedError {
                error,
                update: update.number,
                times,
                since,
            });
            match error {
                TopicError::Contradictory => {
                    if update.begun_at >= since + CONTRADICTION_TIMEOUT {
                        next.topics.remove(name);
                        (interest.error, interest.doubted_at) = (None, None);
                        self.requested.insert(Arc::clone(name));
                    }
                }
                // A broker whose metadata lags may not know a topic yet: ask once more.
                TopicError::Unknown if times == 1 => {
                    interest.doubted_at = Some(update.begun_at);
                    self.requested.insert(Arc::clone(name));
                }
                // Those who wait ask by themselves.
                TopicError::Retriable => {}
                TopicError::Unknown | TopicError::NotAuthorized | TopicError::InvalidName => {
                    next.topics.remove(name);
                    interest.doubted_at = None;
                    if interest.waiters == 0 {
                        self.topics.remove(name);
                    }
                }
            }
        }
    }

    /// Forgets topics that nobody uses any more.
    pub(super) fn expire(
        &mut self,
        before: &ClusterSnapshot,
        next: &mut ClusterSnapshot,
        now: Instant,
    ) {
        self.topics.retain(|name, interest| {
            let topic = next.topics.get(name);
            if topic.is_some_and(|topic| is_in_use(topic, before.topics.get(name))) {
                interest.last_used = now;
            }
            let keep = interest.waiters > 0 || now < interest.last_used + METADATA_MAX_IDLE;
            if !keep {
                next.topics.remove(name);
            }
            keep
        });
    }
}

/// Whether somebody read a topic since the last time, or holds on to it.
fn is_in_use(topic: &Arc<TopicMetadata>, before: Option<&Arc<TopicMetadata>>) -> bool {
    // One handle in each snapshot; one flag for each description, the same or not.
    let (handles, descriptions) = match before {
        Some(before) if Arc::ptr_eq(before, topic) => (2, 1),
        Some(_) => (1, 2),
        None => (1, 1),
    };
    let is_held =
        |before: &Arc<TopicMetadata>| !Arc::ptr_eq(before, topic) && Arc::strong_count(before) > 1;
    topic.used.swap(false, Ordering::Relaxed)
        || Arc::strong_count(topic) > handles
        || Arc::strong_count(&topic.used) > descriptions
        || before.is_some_and(is_held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{metadata_response, topic_metadata};

    fn update(number: u64) -> MetadataUpdate {
        MetadataUpdate {
            number,
            topics: vec!["t".into()],
            is_full: true,
            begun_at: Instant::now(),
        }
    }

    fn knowing_t() -> (TopicsOfInterest, ClusterSnapshot) {
        let response = metadata_response(&[], vec![topic_metadata("t", 1, &[(1, 1)])]);
        let (snapshot, _) = ClusterSnapshot::default().merge_with(&response);
        let mut topics = TopicsOfInterest::default();
        topics.topics.insert("t".into(), TopicInterest::new());
        (topics, snapshot)
    }

    /// Whether `t` is still asked for after an update at that time.
    fn is_kept(topics: &mut TopicsOfInterest, before: &ClusterSnapshot, now: Instant) -> bool {
        let mut next = before.clone();
        topics.expire(before, &mut next, now);
        assert_eq!(topics.topics.contains_key("t"), next.topic("t").is_some());
        next.topic("t").is_some()
    }

    #[test]
    fn a_topic_that_nobody_uses_is_forgotten() {
        let (mut topics, snapshot) = knowing_t();
        let start = Instant::now();
        // It was used when it was made.
        assert!(is_kept(&mut topics, &snapshot, start));
        assert!(is_kept(
            &mut topics,
            &snapshot,
            start + METADATA_MAX_IDLE / 2
        ));
        assert!(!is_kept(&mut topics, &snapshot, start + METADATA_MAX_IDLE));
    }

    #[test]
    fn a_topic_that_somebody_reads_holds_or_waits_for_stays() {
        let start = Instant::now();
        let (mut topics, snapshot) = knowing_t();
        assert!(is_kept(&mut topics, &snapshot, start));
        snapshot.topic("t").unwrap().mark_used();
        assert!(is_kept(&mut topics, &snapshot, start + METADATA_MAX_IDLE));

        let held = Arc::clone(snapshot.topic("t").unwrap());
        assert!(is_kept(
            &mut topics,
            &snapshot,
            start + 2 * METADATA_MAX_IDLE
        ));
        assert!(is_kept(
            &mut topics,
            &snapshot,
            start + 3 * METADATA_MAX_IDLE
        ));
        drop(held);
        assert!(!is_kept(
            &mut topics,
            &snapshot,
            start + 4 * METADATA_MAX_IDLE
        ));

        let (mut topics, snapshot) = knowing_t();
        snapshot
            .topic("t")
            .unwrap()
            .used
            .store(false, Ordering::Relaxed);
        topics.topics.get_mut("t").unwrap().waiters = 1;
        assert!(is_kept(
            &mut topics,
            &snapshot,
            start + 2 * METADATA_MAX_IDLE
        ));
    }

    #[test]
    fn an_old_description_that_somebody_holds_keeps_the_topic_too() {
        let (mut topics, snapshot) = knowing_t();
        let held = Arc::clone(snapshot.topic("t").unwrap());
        let start = Instant::now();
        let (next, _) = snapshot.merge_with(&metadata_response(
            &[],
            vec![topic_metadata("t", 1, &[(2, 2)])],
        ));
        drop(snapshot);
        assert!(is_kept(&mut topics, &next, start));
        assert!(is_kept(&mut topics, &next, start + METADATA_MAX_IDLE));
        drop(held);
        assert!(!is_kept(&mut topics, &next, start + 2 * METADATA_MAX_IDLE));
    }

    #[test]
    fn an_unknown_topic_is_forgotten_the_second_time() {
        let (mut topics, mut snapshot) = knowing_t();
        let results: &[TopicResult] = &[("t".into(), Err(TopicError::Unknown))];
        topics.note_results(results, &mut snapshot, &update(1));
        assert!(snapshot.topic("t").is_some());
        assert!(topics.are_topics_requested(), "it is confirmed at once");
        topics.note_results(results, &mut snapshot, &update(2));
        assert!(snapshot.topic("t").is_none());
        assert!(topics.topics.is_empty());
    }

    #[test]
    fn an_unknown_topic_that_the_next_response_knows_is_kept() {
        let (mut topics, mut snapshot) = knowing_t();
        topics.note_results(
            &[("t".into(), Err(TopicError::Unknown))],
            &mut snapshot,
            &update(1),
        );
        topics.note_results(&[("t".into(), Ok(()))], &mut snapshot, &update(2));
        topics.note_results(
            &[("t".into(), Err(TopicError::Unknown))],
            &mut snapshot,
            &update(3),
        );
        assert!(snapshot.topic("t").is_some());
    }

    /// The results of a response that describes `t` without an id, merged into `snapshot`.
    fn note_description(
        topics: &mut TopicsOfInterest,
        snapshot: &mut ClusterSnapshot,
        partitions: &[(i32, i32)],
        begun_at: Instant,
    ) {
        let response = metadata_response(&[], vec![topic_metadata("t", 0, partitions)]);
        let (mut next, results) = snapshot.merge_with(&response);
        let update = MetadataUpdate {
            begun_at,
            ..update(1)
        };
        topics.note_results(&results, &mut next, &update);
        *snapshot = next;
    }

    /// `t` without an id, as described at that time.
    fn knowing_t_without_id(
        partitions: &[(i32, i32)],
        at: Instant,
    ) -> (TopicsOfInterest, ClusterSnapshot) {
        let (mut topics, _) = knowing_t();
        let mut snapshot = ClusterSnapshot::default();
        note_description(&mut topics, &mut snapshot, partitions, at);
        (topics, snapshot)
    }

    #[test]
    fn what_a_broker_that_lags_behind_says_is_another_topic_if_it_goes_on_saying_so() {
        let start = Instant::now();
        let older = start + CONTRADICTION_TIMEOUT;
        for now in [&[(1, 2), (1, 4)][..], &[(1, 4)]] {
            let (mut topics, mut snapshot) = knowing_t_without_id(&[(1, 4), (1, 4)], start);
            let before = snapshot.topic("t").unwrap().identity();
            note_description(&mut topics, &mut snapshot, now, start);
            assert!(!topics.is_refreshed_after("t", start), "in doubt");
            // It is corrected: the broker did lag.
            note_description(&mut topics, &mut snapshot, &[(1, 4), (1, 4)], older);
            note_description(&mut topics, &mut snapshot, now, older);
            let same = snapshot.topic("t").unwrap().identity();
            assert!(!same.differs_from(before));
            let later = older + CONTRADICTION_TIMEOUT;
            note_description(&mut topics, &mut snapshot, now, later);
            assert!(snapshot.topic("t").is_none());
            assert!(topics.are_topics_requested());
            note_description(&mut topics, &mut snapshot, now, later);
            assert!(topics.is_refreshed_after("t", older));
            let topic = snapshot.topic("t").unwrap();
            assert!(topic.identity().differs_from(before));
            assert_eq!(topic.partitions.len(), now.len());
        }
    }

    #[test]
    fn a_topic_without_id_that_a_broker_denied_to_know_is_another_one_if_it_may_be_new() {
        let start = Instant::now();
        let later = start + Duration::from_millis(1);
        let t: Arc<str> = "t".into();
        // Denied by a leader, or in a metadata response.
        for by_leader in [true, false] {
            for (epoch, is_another) in [(0, true), (1, false), (-1, false)] {
                let (mut topics, mut snapshot) = knowing_t_without_id(&[(1, epoch)], start);
                let before = snapshot.topic("t").unwrap().identity();
                if by_leader {
                    topics.doubt(&t, start);
                } else {
                    let unknown: &[TopicResult] = &[("t".into(), Err(TopicError::Unknown))];
                    let begun_at = start;
                    let update = MetadataUpdate {
                        begun_at,
                        ..update(1)
                    };
                    topics.note_results(unknown, &mut snapshot, &update);
                }
                assert!(topics.are_doubted(&[Arc::clone(&t)]));
                // The request was sent before.
                note_description(&mut topics, &mut snapshot, &[(1, epoch)], start);
                let same = snapshot.topic("t").unwrap().identity();
                assert!(!same.differs_from(before));
                note_description(&mut topics, &mut snapshot, &[(1, epoch)], later);
                let now = snapshot.topic("t").unwrap().identity();
                assert_eq!(now.differs_from(before), is_another, "{epoch}");
                assert!(!topics.are_doubted(&[Arc::clone(&t)]));
            }
        }
    }

    #[test]
    fn the_lookup_of_a_topic_asks_for_that_topic_alone() {
        let mut topics = TopicsOfInterest::default();
        let now = Instant::now();
        let (t, u): (Arc<str>, Arc<str>) = ("t".into(), "u".into());
        topics.add_waiter(&t);
        topics.add_waiter(&u);
        let first = topics.begin_update(true, now);
        assert!(first.is_full, "the first one, and those by age, are full");
        assert_eq!(first.topics.len(), 2);
        assert_eq!(topics.request_topics([&t].into_iter()), 2);
        let second = topics.begin_update(true, now);
        assert_eq!((second.number, second.is_full), (2, false));
        assert_eq!(second.topics, [t]);
    }

    #[test]
    fn a_probe_asks_for_nothing_unless_something_is_requested() {
        let mut topics = TopicsOfInterest::default();
        let now = Instant::now();
        let t: Arc<str> = "t".into();
        topics.add_waiter(&t);
        let probe = topics.begin_probe(true, now);
        assert!(probe.is_probe() && probe.topics.is_empty());
        topics.request_topics([&t].into_iter());
        let lookup = topics.begin_probe(true, now);
        assert_eq!((lookup.is_probe(), lookup.topics), (false, vec![t]));
        topics.request_update();
        assert!(topics.begin_probe(true, now).is_full);
    }

    #[test]
    fn a_full_update_that_may_not_begin_yet_holds_up_no_partial_one() {
        let mut topics = TopicsOfInterest::default();
        let now = Instant::now();
        let t: Arc<str> = "t".into();
        topics.add_waiter(&t);
        topics.request_topics([&t].into_iter());
        topics.request_update();
        let partial = topics.begin_update(false, now);
        assert!(!partial.is_full);
        assert!(topics.is_full_update_requested());
        topics.request_topics([&t].into_iter());
        let both = topics.begin_update(true, now);
        assert!(both.is_full);
        assert!(!topics.is_full_update_requested() && !topics.are_topics_requested());
    }
}
