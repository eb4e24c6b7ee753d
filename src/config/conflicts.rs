//! Values that are sound alone and contradict each other: one line for each such case.

use std::net::SocketAddr;

use super::keys::{ClientSection, KEY_PREFIX};
use super::provenance::Provenance;
use super::server_ssl::overlap;
use super::{Config, ServerConfig};

/// Whose port the admin server would need too, if it is one's.
pub(super) fn admin_port_fault(server: &ServerConfig) -> Option<String> {
    let admin = server.admin_address()?;
    let plain = SocketAddr::new(server.bind_interface, server.port);
    let tls = SocketAddr::new(
        server.ssl.bind_interface,
        server.ssl.port.unwrap_or_default(),
    );
    let taken = [
        ("server.port", (!server.ssl.only).then_some(plain)),
        ("server.ssl.port", server.ssl.is_enabled().then_some(tls)),
    ];
    let is_taken = |other: &Option<SocketAddr>| other.is_some_and(|other| overlap(admin, other));
    let (key, _) = taken.into_iter().find(|(_, other)| is_taken(other))?;
    let port = admin.port();
    Some(format!(
        "{port} is {KEY_PREFIX}{key} too: the admin server needs a port of its own"
    ))
}

/// Entries cannot be in the topic of the sessions: each would take the other's records for garbage.
pub(super) fn state_topic_fault(config: &Config) -> Option<String> {
    let [sessions, limits] = config.state_topics();
    (sessions == limits).then(|| {
        format!(
            "{limits:?} is the session topic \
             ({KEY_PREFIX}session-handler.session-state-topic-name) too: each needs one of its own"
        )
    })
}

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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_admin_server_listens_where_the_server_does_unless_something_else_is_said() {
        let mut server = ServerConfig::default();
        assert_eq!(server.admin_address(), None);
        server.admin.enabled = true;
        server.bind_interface = Ipv4Addr::LOCALHOST.into();
        let address = |server: &ServerConfig| server.admin_address().unwrap().to_string();
        assert_eq!(address(&server), "127.0.0.1:9078");
        server.ssl.only = true;
        assert_eq!(address(&server), "0.0.0.0:9078");
        server.admin.bind_interface = Some(Ipv4Addr::new(10, 0, 0, 1).into());
        server.admin.port = 1;
        assert_eq!(address(&server), "10.0.0.1:1");
    }

    #[test]
    fn a_port_that_the_server_has_is_not_free_for_the_admin_server() {
        let mut server = ServerConfig::default();
        server.admin.port = server.port;
        assert_eq!(admin_port_fault(&server), None);
        server.admin.enabled = true;
        let fault = admin_port_fault(&server).unwrap();
        assert!(fault.contains("server.port too"), "{fault}");
        server.ssl.port = Some(8443);
        server.admin.port = 8443;
        let fault = admin_port_fault(&server).unwrap();
        assert!(fault.contains("server.ssl.port too"), "{fault}");
        server.admin.port = 0;
        assert_eq!(admin_port_fault(&server), None);
    }
}
