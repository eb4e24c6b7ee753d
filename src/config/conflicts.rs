//! Values that are sound alone and contradict each other: one line for each such case.

use super::Config;
use super::keys::ClientSection;
use super::provenance::Provenance;

/// The heartbeat interval must be less than the session time-out, as Kafka demands.
pub(super) fn heartbeat_conflict(config: &Config, provenance: &Provenance) -> Option<String> {
    let consumer = &config.consumer;
    if consumer.heartbeat_interval < consumer.session_timeout {
        return None;
    }
    let of_property = |name| provenance.of_property(ClientSection::Consumer, name, None);
    Some(format!(
        "{}, {}, must be less than {}, {}",
        of_property("heartbeat.interval.ms"),
        consumer.heartbeat_interval.as_millis(),
        of_property("session.timeout.ms"),
        consumer.session_timeout.as_millis()
    ))
}

/// The delivery time-out must have room for the linger time and one request.
///
/// A default is raised, with a notice, as in Java; a value that was given is refused.
pub(super) fn raise_delivery_timeout(
    config: &mut Config,
    provenance: &Provenance,
) -> Result<Option<String>, String> {
    let request = config.producer.requests.request_timeout;
    let request = request.unwrap_or(config.client.request_timeout);
    let linger = config.producer.linger;
    if config.producer.delivery_timeout >= request + linger {
        return Ok(None);
    }
    let producer_property =
        |name, own_key| provenance.of_property(ClientSection::Producer, name, own_key);
    let delivery = producer_property("delivery.timeout.ms", Some("producer.delivery-timeout-ms"));
    let minimum = format!(
        "{}, {}, plus {}, {}",
        producer_property("request.timeout.ms", None),
        request.as_millis(),
        producer_property("linger.ms", None),
        linger.as_millis()
    );
    if delivery.from.is_none() {
        config.producer.delivery_timeout = request + linger;
        return Ok(Some(format!("delivery.timeout.ms is raised to {minimum}")));
    }
    Err(format!(
        "{delivery}, {}, must be at least {minimum}",
        config.producer.delivery_timeout.as_millis()
    ))
}
