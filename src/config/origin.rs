//! Who set what, for faults that show only when values meet: each other, or the system.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use super::Config;
use super::fault::{Fault, Source, Told};
use super::properties::Section;

/// The source of every key that was given.
#[derive(Clone, Debug, Default)]
pub struct Origin(BTreeMap<String, Source>);

impl Origin {
    pub(super) fn of<'a>(given: impl Iterator<Item = (&'a String, &'a Source)>) -> Self {
        Self(given.map(|(k, s)| (k.clone(), s.clone())).collect())
    }

    /// The fault of an address that cannot be listened on.
    pub fn listen_fault(&self, address: SocketAddr, error: &io::Error) -> Fault {
        let (key, flag) = match error.kind() {
            io::ErrorKind::AddrNotAvailable => ("server.bind-interface", "--bind-interface"),
            _ => ("server.port", "--port (0 takes a free one)"),
        };
        Fault::Listen {
            key: self.key(key),
            address,
            reason: error.to_string(),
            flag,
        }
    }

    fn key(&self, key: &str) -> Told {
        Told {
            key: key.to_owned(),
            from: self.0.get(key).cloned(),
        }
    }

    /// A Java property: under its section, else under all clients, else under `own`.
    fn property(&self, section: Section, name: &str, own: Option<&str>) -> Told {
        let all = format!("{}{name}", Section::All.prefix());
        let mut keys = vec![format!("{}{name}", section.prefix()), all.clone()];
        keys.extend(own.map(str::to_owned));
        let given = keys.iter().find(|key| self.0.contains_key(*key));
        self.key(given.unwrap_or(&all))
    }
}

/// Looks for values that cannot all be.
pub(super) fn conflicts(
    config: &mut Config,
    origin: &Origin,
    faults: &mut Vec<Fault>,
    notices: &mut Vec<String>,
) {
    let consumer = &config.consumer;
    if consumer.heartbeat_interval >= consumer.session_timeout {
        let told = |name| origin.property(Section::Consumer, name, None);
        faults.push(Fault::Conflict(format!(
            "{}, {}, must be less than {}, {}",
            told("heartbeat.interval.ms"),
            consumer.heartbeat_interval.as_millis(),
            told("session.timeout.ms"),
            consumer.session_timeout.as_millis()
        )));
    }
    let (request, linger) = (config.client.request_timeout, config.producer.linger);
    if config.producer.delivery_timeout >= request + linger {
        return;
    }
    let own = Some("producer.delivery-timeout-ms");
    let delivery = origin.property(Section::Producer, "delivery.timeout.ms", own);
    let request_told = origin.property(Section::All, "request.timeout.ms", None);
    let linger_told = origin.property(Section::Producer, "linger.ms", None);
    let sum = format!(
        "{request_told}, {}, plus {linger_told}, {}",
        request.as_millis(),
        linger.as_millis()
    );
    if delivery.from.is_none() {
        // So does Java: only a value that was chosen is worth a refusal.
        config.producer.delivery_timeout = request + linger;
        notices.push(format!("delivery.timeout.ms is raised to {sum}"));
        return;
    }
    faults.push(Fault::Conflict(format!(
        "{delivery}, {}, must be at least {sum}",
        config.producer.delivery_timeout.as_millis()
    )));
}
