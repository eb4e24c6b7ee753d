//! One queue and one partition's log, with faults between them: what is acknowledged is in
//! the log, once and in order.

use super::*;

#[test]
fn whatever_fails_acknowledged_records_are_there_once_and_in_order() {
    let mut total = Outcomes::default();
    for seed in 1..=3000 {
        let outcomes = Simulation::new(seed).run();
        total.acknowledged += outcomes.acknowledged;
        total.refused += outcomes.refused;
        total.unknown += outcomes.unknown;
    }
    println!("{total:?}");
    assert!(total.acknowledged > 50_000 && total.refused > 5_000 && total.unknown > 1_000);
}

/// How many records ended how.
#[derive(Debug, Default)]
struct Outcomes {
    acknowledged: u32,
    refused: u32,
    unknown: u32,
}

/// A partition's log with Kafka's check of producer epochs and sequences.
#[derive(Default)]
struct SimulatedLog {
    records: Vec<u32>,
    /// The producer, and the sequence that it is to send next.
    producer: Option<(ProducerIdAndEpoch, i32)>,
    /// The last five batches: first sequence, number of records, first offset.
    recent: VecDeque<(i32, u32, i64)>,
}

impl SimulatedLog {
    fn append(&mut self, sent: &SendableBatch<NumberedRecords>) -> BatchResult {
        let count = sent.records.count();
        if let Some((known, next)) = self.producer
            && known.id == sent.producer_id.id
        {
            if sent.producer_id.epoch < known.epoch {
                return BatchResult::Fenced;
            }
            if sent.producer_id.epoch == known.epoch {
                let same = |&&(s, c, _): &&(i32, u32, i64)| s == sent.base_sequence && c == count;
                if let Some(&(_, _, offset)) = self.recent.iter().find(same) {
                    return appended(offset);
                }
                if sent.base_sequence != next {
                    return BatchResult::OutOfOrder;
                }
            } else if sent.base_sequence != 0 {
                return BatchResult::OutOfOrder;
            } else {
                self.recent.clear();
            }
        }
        let offset = self.records.len() as i64;
        self.records.extend(&sent.records.0);
        let next = increment_sequence(sent.base_sequence, count);
        self.producer = Some((sent.producer_id, next));
        self.recent.push_back((sent.base_sequence, count, offset));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        appended(offset)
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// One partition, one connection at a time.
struct Simulation {
    seed: u64,
    dice: Dice,
    /// The only fault is that responses are lost.
    loses_responses: bool,
    /// One request in so many meets a given fault.
    fault_odds: u64,
    /// The topic is deleted and created again, which the producer learns later. Requests by
    /// name reach whichever is there; by id, only the one that they were meant for.
    is_recreated: bool,
    test: TestQueue,
    log: SimulatedLog,
    deleted: Vec<SimulatedLog>,
    /// How many of the deletions the producer has learnt of.
    learnt: usize,
    deliveries: Vec<DeliveryFuture>,
    /// Requests on their way to the broker, and for which of the topics they are meant.
    requests: VecDeque<(usize, SendableBatch<NumberedRecords>)>,
    /// Responses on their way back.
    responses: VecDeque<(SendableBatch<NumberedRecords>, BatchResult)>,
    leader: BrokerId,
    leader_epoch: i32,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut test = TestQueue::new();
        if seed.is_multiple_of(14) {
            test.naming = TopicNaming::ById;
        }
        Self {
            seed,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            loses_responses: seed.is_multiple_of(2),
            fault_odds: 10 + seed % 50,
            is_recreated: seed.is_multiple_of(7),
            test,
            log: SimulatedLog::default(),
            deleted: Vec::new(),
            learnt: 0,
            deliveries: Vec::new(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            leader: ONE,
            leader_epoch: 1,
        }
    }

    fn run(mut self) -> Outcomes {
        let mut steps = 0;
        loop {
            let calm = steps > 300;
            steps += 1;
            assert!(steps < 5_000, "does not come to rest, seed {}", self.seed);
            if calm && self.test.queue.is_empty() {
                break;
            }
            self.step(calm);
        }
        self.check_logs();
        self.check_deliveries()
    }

    /// `calm`: no more records, and no more faults.
    fn step(&mut self, calm: bool) {
        match self.dice.roll(if calm { 60 } else { 100 }) {
            0..20 if !calm => {
                let count = 1 + self.dice.roll(6) as u32;
                self.deliveries.extend(self.test.batch(count));
            }
            0..35 => {
                if let Some(sent) = self.test.try_take(self.leader) {
                    self.requests.push_back((self.learnt, sent));
                }
            }
            35..50 => {
                if let Some((topic, sent)) = self.requests.pop_front() {
                    let result = match self.reaches(topic) {
                        true => self.handle_request(&sent, calm),
                        false => NOT_APPENDED, // UNKNOWN_TOPIC_ID
                    };
                    self.responses.push_back((sent, result));
                }
            }
            50..58 => {
                if let Some((sent, result)) = self.responses.pop_front() {
                    self.test.complete(sent, result);
                }
            }
            58..60 => {
                let time = Duration::from_millis(self.dice.roll(1500));
                self.test.advance(time);
            }
            60..75 => {}
            75..80 => self.break_connection(),
            80..82 => {
                self.leader = if self.leader == ONE { TWO } else { ONE };
                self.leader_epoch += 1;
                self.test.set_leader(self.leader, self.leader_epoch);
            }
            82..84 => {
                let time = Duration::from_secs(self.dice.roll(80));
                self.test.advance(time);
            }
            84 if self.is_recreated => self.deleted.push(std::mem::take(&mut self.log)),
            _ => {}
        }
        self.update_producer(calm);
    }

    /// What the producer's tasks do beside sending.
    fn update_producer(&mut self, calm: bool) {
        if self.learnt < self.deleted.len() && (calm || self.dice.roll(20) == 0) {
            self.learnt = self.deleted.len();
            self.test.queue.topic_recreated(&mut self.test.finished);
        }
        self.test.results();
        let new_producer_id = &mut self.test.new_producer_id;
        if self.test.queue.needs_producer_id(*new_producer_id) {
            let id = new_producer_id.map_or(1, |last| last.id + 1);
            *new_producer_id = Some(ProducerIdAndEpoch { id, epoch: 0 });
        }
    }

    /// Whether a request that was meant for that topic reaches the one that is there.
    fn reaches(&self, topic: usize) -> bool {
        self.test.naming == TopicNaming::ByName || topic == self.deleted.len()
    }

    fn handle_request(&mut self, sent: &SendableBatch<NumberedRecords>, calm: bool) -> BatchResult {
        let fault = if calm {
            99
        } else {
            self.dice.roll(self.fault_odds)
        };
        let result = match fault {
            0..5 if self.loses_responses => match self.log.append(sent) {
                BatchResult::Appended(_) => MAYBE_APPENDED,
                refused => refused,
            },
            _ if self.loses_responses => self.log.append(sent),
            0 => NOT_APPENDED,
            1 => BatchResult::Fatal(rejected()),
            2 => BatchResult::OutOfOrder,
            // The fault comes after the append, or before it.
            3 | 4 => {
                self.log.append(sent);
                MAYBE_APPENDED
            }
            5 => MAYBE_APPENDED,
            6 => BatchResult::UnknownError {
                message: "?".into(),
            },
            7 => BatchResult::Corrupt {
                code: 2,
                message: "crc".into(),
            },
            _ if sent.records.count() > 4 => BatchResult::TooLarge,
            _ => match sent.records.0.iter().position(is_invalid) {
                Some(invalid) => BatchResult::InvalidRecords {
                    errors: match self.dice.roll(2) {
                        0 => vec![(invalid as u32, "invalid".into())],
                        _ => vec![],
                    },
                    code: 87,
                    message: "invalid".into(),
                },
                None => self.log.append(sent),
            },
        };
        match result {
            // Must not be said of a batch that is in the log.
            BatchResult::OutOfOrder => self.log.append(sent),
            other => other,
        }
    }

    /// Some requests arrive, no more responses do.
    fn break_connection(&mut self) {
        let arrived = self.dice.roll(self.requests.len() as u64 + 1) as usize;
        for (topic, sent) in self.requests.iter().take(arrived) {
            let is_acceptable = sent.records.count() <= 4 && !sent.records.0.iter().any(is_invalid);
            if self.reaches(*topic) && is_acceptable {
                self.log.append(sent);
            }
        }
        for (sent, _) in self.responses.drain(..) {
            self.test.complete(sent, MAYBE_APPENDED);
        }
        for (_, sent) in self.requests.drain(..) {
            self.test.complete(sent, MAYBE_APPENDED);
        }
    }

    /// No record is there twice, and all are in order.
    fn check_logs(&self) {
        for log in self.deleted.iter().chain([&self.log]) {
            let mut records = log.records.clone();
            // A new log takes any first sequence: where topics are named, it may be that of a
            // request that was not the first one on its way.
            if self.is_recreated && self.test.naming == TopicNaming::ByName {
                records.sort_unstable();
            }
            assert!(
                records.is_sorted_by(|a, b| a < b),
                "twice or out of order, seed {}: {:?}",
                self.seed,
                log.records
            );
        }
    }

    /// Every record has its result, and the result is true.
    fn check_deliveries(&self) -> Outcomes {
        let seed = self.seed;
        let mut outcomes = Outcomes::default();
        for (record, delivery) in (0u32..).zip(&self.deliveries) {
            let is_there = self.log.records.contains(&record);
            let was_at = |offset: i64| {
                let at = |log: &SimulatedLog| log.records.get(offset as usize) == Some(&record);
                at(&self.log) || self.deleted.iter().any(at)
            };
            match delivery.try_result() {
                None => panic!("record {record} has no result, seed {seed}"),
                Some(Ok(metadata)) => {
                    outcomes.acknowledged += 1;
                    assert!(was_at(metadata.offset), "record {record}, seed {seed}");
                }
                Some(Err(error)) if error.outcome_unknown() => outcomes.unknown += 1,
                Some(Err(error)) => {
                    outcomes.refused += 1;
                    assert!(!is_there, "record {record}: {error}, seed {seed}");
                }
            }
        }
        outcomes
    }
}

/// The broker accepts no such record.
fn is_invalid(record: &u32) -> bool {
    record % 13 == 5
}
