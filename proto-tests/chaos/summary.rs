//! What happened in a run, for whoever reads the output of a failure, or compares versions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::history::{ChaosHistory, SendResult};

/// A few lines of text.
pub(super) fn summary(history: &ChaosHistory, caught_up: Duration) -> String {
    let sent_at = history.logs.values().flat_map(BTreeMap::values);
    let sent_at = sent_at.map(|record| record.sent_at);
    let received_at = history.deliveries.iter().map(|record| record.at);
    let delays = delays(history);
    let delay = |part: f64| {
        let at = delays.len().saturating_sub(1) as f64 * part;
        delays.get(at as usize).copied().unwrap_or_default()
    };
    let groups = || history.groups.values();
    let gap = groups().map(|group| group.heartbeat_gap_max).max();
    let mut lines = vec![
        format!("sent: {:?}", send_results(history)),
        format!(
            "written, by when sent, per 10 s: {:?}",
            per_ten_seconds(sent_at)
        ),
        format!("received, per 10 s: {:?}", per_ten_seconds(received_at)),
        format!(
            "from sending to receiving: {:.1?} (median), {:.1?} (99 %), {:.1?} (longest)",
            delay(0.5),
            delay(0.99),
            delay(1.0)
        ),
        format!(
            "partitions assigned: {}; sessions expired: {}; longest gap between heartbeats: {:.1?}",
            groups().map(|group| group.ownerships.len()).sum::<usize>(),
            groups().map(|group| group.expired).sum::<usize>(),
            gap.unwrap_or_default()
        ),
        format!("caught up {caught_up:.1?} after the faults ended"),
    ];
    let refusals = history.refusals.iter();
    lines.extend(refusals.map(|(refusal, times)| format!("refused {times} times: {refusal}")));
    lines.join("\n")
}

fn send_results(history: &ChaosHistory) -> BTreeMap<&str, usize> {
    let mut results = BTreeMap::new();
    for record in &history.sent {
        let result = match &record.result {
            SendResult::Acknowledged { .. } => "acknowledged",
            SendResult::Failed(error) => error,
            SendResult::Unknown => "unknown",
            SendResult::Unanswered => "unanswered",
        };
        *results.entry(result).or_default() += 1;
    }
    results
}

/// How long each record took to each group, the shortest first.
fn delays(history: &ChaosHistory) -> Vec<Duration> {
    let mut first: BTreeMap<_, Duration> = BTreeMap::new();
    for record in &history.deliveries {
        let log = history.logs.get(&record.tp);
        let Some(logged) = log.and_then(|log| log.get(&record.offset)) else {
            continue;
        };
        let delay = record.at.saturating_sub(logged.sent_at);
        let place = (&record.group, &record.tp, record.offset);
        first.entry(place).or_insert(delay);
    }
    let mut delays: Vec<Duration> = first.into_values().collect();
    delays.sort_unstable();
    delays
}

fn per_ten_seconds(times: impl Iterator<Item = Duration>) -> Vec<usize> {
    let mut counts = Vec::new();
    for time in times {
        let at = time.as_secs() as usize / 10;
        counts.resize(counts.len().max(at + 1), 0);
        counts[at] += 1;
    }
    counts
}
