//! When tickets are used, asked for, renewed and let go.

use std::time::UNIX_EPOCH;

use secret::SecretBytes;

use super::*;
use crate::crypto::{EncryptionType, KerberosKey};

const SECOND: Duration = Duration::from_secs(1);

fn state() -> TicketState {
    let backoff = ExponentialBackoff::new(SECOND, 10 * SECOND);
    TicketState::new(TicketRenewal::default(), backoff)
}

fn name(text: &str) -> KerberosPrincipal {
    KerberosPrincipal::parse(text, Some("TEST")).expect(text)
}

fn new(server: &str, seconds: u32) -> NewTicket {
    NewTicket {
        ticket: Arc::new(IssuedTicket {
            client: name("alice"),
            server: name(server),
            encoded: SecretBytes::default(),
            session_key: KerberosKey::random(EncryptionType::Aes128Sha1),
            ends_at: UNIX_EPOCH,
        }),
        lifetime: seconds * SECOND,
    }
}

fn fault(text: &str) -> TicketFault {
    TicketFault {
        message: text.into(),
        place: "krb5.conf",
    }
}

#[test]
fn a_ticket_is_used_until_it_expires_and_renewed_before_if_it_was_used() {
    let (mut state, start) = (state(), Instant::now());
    let at = |seconds| start + seconds * SECOND;
    let broker = name("kafka/b");
    assert_eq!(state.step(&broker, start), TicketStep::Ask);
    assert_eq!((state.tgt(start), state.next_renewal()), (None, None));
    let (tgt, ticket) = (new("krbtgt/TEST", 1000), new("kafka/b", 100));
    state.logged_in(tgt.clone(), start, 0.0);
    state.issued(broker.clone(), ticket.clone(), false, (start, 0.0));
    assert_eq!(state.step(&broker, at(99)), TicketStep::Use(ticket.ticket));
    assert_eq!(state.next_renewal(), Some(at(80)));
    assert_eq!(state.due(at(79)), None);
    let due = DueRenewal::Ticket(broker.clone());
    assert_eq!(state.due(at(80)), Some(due));
    let renewed = new("kafka/b", 100);
    state.issued(broker.clone(), renewed, true, (at(80), 0.0));
    // Nobody has used it since.
    assert_eq!(state.due(at(160)), None);
    assert_eq!(state.step(&broker, at(160)), TicketStep::Ask);
    assert_eq!(state.next_renewal(), Some(at(800)));
    assert_eq!(state.due(at(800)), Some(DueRenewal::Login));
    assert_eq!(state.left(&DueRenewal::Login, at(900)), Some(100 * SECOND));
    assert_eq!(state.tgt(at(999)), Some(tgt.ticket));
    assert_eq!(state.tgt(at(1000)), None);
}

#[test]
fn a_failure_is_that_of_all_until_a_wait_is_over_and_good_tickets_are_used_meanwhile() {
    let (mut state, start) = (state(), Instant::now());
    let at = |seconds| start + seconds * SECOND;
    let (held, other) = (name("kafka/b"), name("kafka/c"));
    let ticket = new("kafka/b", 100);
    state.issued(held.clone(), ticket.clone(), false, (start, 0.0));
    assert!(state.failed(fault("down"), at(80)));
    assert!(!state.failed(fault("down"), at(80)));
    assert_eq!(state.step(&held, at(80)), TicketStep::Use(ticket.ticket));
    assert_eq!(state.step(&other, at(80)), TicketStep::Fail(fault("down")));
    assert_eq!(state.due(at(80)), None);
    assert_eq!(state.step(&other, at(83)), TicketStep::Ask);
    // What was used is not let go.
    assert_eq!(state.due(at(83)), Some(DueRenewal::Ticket(held.clone())));
    state.logged_in(new("krbtgt/TEST", 1000), at(83), 0.0);
    assert_eq!(state.step(&other, at(83)), TicketStep::Ask);
    state.renewal_refused(&held, at(83));
    assert_eq!(state.due(at(84)), None);
}

#[test]
fn a_ticket_that_a_broker_has_refused_is_not_used_again() {
    let (mut state, start) = (state(), Instant::now());
    let broker = name("kafka/b");
    let (ticket, older) = (new("kafka/b", 100), new("kafka/b", 100));
    state.issued(broker.clone(), ticket.clone(), false, (start, 0.0));
    state.refused(&broker, &older.ticket);
    assert_eq!(
        state.step(&broker, start),
        TicketStep::Use(Arc::clone(&ticket.ticket))
    );
    state.refused(&broker, &ticket.ticket);
    assert_eq!(state.step(&broker, start), TicketStep::Ask);
}

#[test]
fn a_login_is_kept_for_the_least_period_unless_the_ticket_ends_before() {
    let renewal = TicketRenewal::default();
    let after = |lifetime, unit| {
        let after = renewal.after(lifetime * SECOND, renewal.min_period, unit);
        after.as_secs_f64()
    };
    assert_eq!(after(36_000, 0.0), 28_800.0);
    assert_eq!(after(36_000, 1.0), 30_600.0);
    assert_eq!(after(70, 0.0), 60.0);
    assert_eq!(after(50, 0.0), 40.0);
    assert_eq!(after(0, 0.0), 1.0);
    assert!(!format!("{:?}", new("kafka/b", 1)).contains("bytes: ["));
}
