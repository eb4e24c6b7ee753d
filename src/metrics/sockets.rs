//! What is counted of sockets.

use runtime::counters::{Counter, Gauge};

use super::topics::TopicTable;
use crate::codec::socket_error::SocketErrorCode;

/// The close codes that are counted apart (RFC 6455, section 7.4.1, and IANA's registry).
const CLOSE_CODES: [u16; 13] = [
    1000,
    1001,
    1002,
    1003,
    1005,
    NO_CLOSE_FRAME,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
];
/// That of a connection that ended without a close frame.
pub(crate) const NO_CLOSE_FRAME: u16 = 1006;
/// The statuses of refusals that are counted apart.
const STATUSES: [u16; 8] = [400, 401, 403, 426, 429, 500, 501, 503];
/// The label of those that are not.
const OTHER_CODES: &str = "other";

/// What is counted of the sockets of both endpoints.
#[derive(Debug)]
pub(crate) struct SocketMetrics {
    produce: EndpointMetrics,
    consume: EndpointMetrics,
    /// Per topic.
    pub(crate) topics: TopicTable,
    /// Records that were answered with an error, by [`SocketErrorCode`].
    produce_errors: [Counter; SocketErrorCode::ALL.len()],
    /// Records whose acks are not sent.
    pub(crate) pending_acks: Gauge,
}

/// What is counted of one endpoint's sockets.
#[derive(Debug, Default)]
pub(crate) struct EndpointMetrics {
    pub(crate) open: Gauge,
    pub(crate) opened: Counter,
    /// By code; last those of other codes.
    closed: [Counter; CLOSE_CODES.len() + 1],
    /// By status; last those of other statuses.
    refused: [Counter; STATUSES.len() + 1],
}

impl SocketMetrics {
    /// So many topics get counters of their own.
    pub(crate) fn new(topics_max: usize) -> Self {
        Self {
            produce: EndpointMetrics::default(),
            consume: EndpointMetrics::default(),
            topics: TopicTable::new(topics_max),
            produce_errors: Default::default(),
            pending_acks: Gauge::default(),
        }
    }

    /// Of the endpoint with that path.
    pub(crate) fn endpoint(&self, path: &str) -> &EndpointMetrics {
        match path {
            "/socket/in" => &self.produce,
            _ => &self.consume,
        }
    }

    /// Both endpoints, by their labels.
    pub(crate) fn endpoints(&self) -> [(&'static str, &EndpointMetrics); 2] {
        [("in", &self.produce), ("out", &self.consume)]
    }

    /// A record was answered with an error.
    pub(crate) fn record_failed(&self, code: SocketErrorCode) {
        self.produce_errors[code as usize].increment();
    }

    /// Each code that a record may be answered with, and how often one was.
    pub(crate) fn produce_errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let codes = SocketErrorCode::ALL.into_iter();
        let of_records = codes.filter(|code| code.is_of_produced_records());
        of_records.map(|code| (code.name(), self.produce_errors[code as usize].get()))
    }
}

impl EndpointMetrics {
    /// A socket was opened.
    pub(crate) fn socket_opened(&self) {
        self.opened.increment();
        self.open.add(1);
    }

    /// A socket was closed with that code.
    pub(crate) fn socket_closed(&self, code: u16) {
        let known = CLOSE_CODES.iter().position(|known| *known == code);
        self.closed[known.unwrap_or(CLOSE_CODES.len())].increment();
        self.open.add(-1);
    }

    /// A request for a socket was refused with that status.
    pub(crate) fn socket_refused(&self, status: u16) {
        let known = STATUSES.iter().position(|known| *known == status);
        self.refused[known.unwrap_or(STATUSES.len())].increment();
    }

    /// How many were closed, by code.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        by_label(&CLOSE_CODES, &self.closed)
    }

    /// How many were refused, by status.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        by_label(&STATUSES, &self.refused)
    }
}

fn by_label<'a>(
    codes: &'a [u16],
    counters: &'a [Counter],
) -> impl Iterator<Item = (String, u64)> + 'a {
    let labels = codes.iter().map(u16::to_string);
    let labels = labels.chain([OTHER_CODES.to_owned()]);
    labels.zip(counters.iter().map(Counter::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_clients_make_up_count_together() {
        let metrics = EndpointMetrics::default();
        metrics.socket_opened();
        for code in [1000, 4000, 4999, 1000] {
            metrics.socket_closed(code);
        }
        metrics.socket_refused(418);
        let count = |label: &str| metrics.closed().find(|(code, _)| code == label).unwrap().1;
        assert_eq!(count("1000"), 2);
        assert_eq!(count(OTHER_CODES), 2);
        let refused: Vec<_> = metrics.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refused, [(OTHER_CODES.to_owned(), 1)]);
    }
}
