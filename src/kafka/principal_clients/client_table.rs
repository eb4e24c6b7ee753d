//! Which users have a client, and since when nobody uses one. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::sasl::Credentials;

/// The clients of users, by name and password.
#[derive(Debug)]
pub(super) struct ClientTable<C> {
    clients_max: usize,
    /// How long a client that nobody uses is kept.
    idle_max: Duration,
    entries: HashMap<Credentials, TableEntry<C>>,
}

#[derive(Debug)]
struct TableEntry<C> {
    client: C,
    /// Tells it from former clients of the same credentials.
    number: u64,
    leases: usize,
    /// Since when there is no lease.
    idle_since: Instant,
}

/// Until when a client is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientUse {
    /// As long as it is used.
    InUse,
    IdleUntil(Instant),
    /// It is kept no longer.
    Removed,
}

impl<C: Clone> ClientTable<C> {
    pub(super) fn new(clients_max: usize, idle_max: Duration) -> Self {
        Self {
            clients_max,
            idle_max,
            entries: HashMap::new(),
        }
    }

    /// Counts one more who uses the client, if there is one.
    pub(super) fn lease(&mut self, credentials: &Credentials) -> Option<C> {
        let entry = self.entries.get_mut(credentials)?;
        entry.leases += 1;
        Some(entry.client.clone())
    }

    /// Counts one more of those who use a client already.
    pub(super) fn add_lease(&mut self, credentials: &Credentials, number: u64) {
        if let Some(entry) = self.entry(credentials, number) {
            entry.leases += 1;
        }
    }

    /// One who used that client is done; whether it was the last.
    pub(super) fn release(&mut self, credentials: &Credentials, number: u64, now: Instant) -> bool {
        let Some(entry) = self.entry(credentials, number) else {
            return false;
        };
        entry.leases -= 1;
        entry.idle_since = now;
        entry.leases == 0
    }

    /// Whether another client may be added.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.clients_max || self.entries.values().any(|e| e.leases == 0)
    }

    /// Adds a client, in place of the one that has been idle for longest where there are enough;
    /// `false` when all are in use.
    pub(super) fn insert(
        &mut self,
        credentials: Credentials,
        client: C,
        number: u64,
        now: Instant,
    ) -> bool {
        if self.entries.len() >= self.clients_max {
            let idle = self.entries.iter().filter(|(_, entry)| entry.leases == 0);
            let oldest = idle.min_by_key(|(_, entry)| entry.idle_since);
            let Some((oldest, _)) = oldest else {
                return false;
            };
            let oldest = oldest.clone();
            self.entries.remove(&oldest);
        }
        let entry = TableEntry {
            client,
            number,
            leases: 0,
            idle_since: now,
        };
        self.entries.insert(credentials, entry);
        true
    }

    pub(super) fn client_use(&self, credentials: &Credentials, number: u64) -> ClientUse {
        match self.entries.get(credentials) {
            Some(entry) if entry.number != number => ClientUse::Removed,
            Some(entry) if entry.leases > 0 => ClientUse::InUse,
            Some(entry) => ClientUse::IdleUntil(entry.idle_since + self.idle_max),
            None => ClientUse::Removed,
        }
    }

    /// Forgets a client; those who use it keep it.
    pub(super) fn remove(&mut self, credentials: &Credentials, number: u64) {
        if self.entry(credentials, number).is_some() {
            self.entries.remove(credentials);
        }
    }

    /// Forgets a client that has been idle for long enough.
    pub(super) fn remove_idle(&mut self, credentials: &Credentials, number: u64, now: Instant) {
        if matches!(self.client_use(credentials, number), ClientUse::IdleUntil(at) if at <= now) {
            self.entries.remove(credentials);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &C> {
        self.entries.values().map(|entry| &entry.client)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, credentials: &Credentials, number: u64) -> Option<&mut TableEntry<C>> {
        let entry = self.entries.get_mut(credentials);
        entry.filter(|entry| entry.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secret::Secret;

    const IDLE_MAX: Duration = Duration::from_secs(300);

    fn credentials(username: &str, password: &str) -> Credentials {
        Credentials {
            username: username.to_owned(),
            password: Secret::new(password),
        }
    }

    #[test]
    fn a_client_belongs_to_one_user_and_one_password() {
        let (mut table, now) = (ClientTable::new(9, IDLE_MAX), Instant::now());
        assert!(table.insert(credentials("alice", "right"), 'a', 1, now));
        assert_eq!(table.lease(&credentials("alice", "right")), Some('a'));
        assert_eq!(table.lease(&credentials("alice", "wrong")), None);
        assert_eq!(table.lease(&credentials("bob", "right")), None);
    }

    #[test]
    fn a_client_is_kept_while_it_is_used_and_for_five_minutes_after() {
        let (mut table, now) = (ClientTable::new(9, IDLE_MAX), Instant::now());
        let alice = credentials("alice", "a");
        table.insert(alice.clone(), 'a', 1, now);
        table.lease(&alice);
        table.lease(&alice);
        assert!(!table.release(&alice, 1, now));
        assert_eq!(table.client_use(&alice, 1), ClientUse::InUse);
        table.remove_idle(&alice, 1, now + IDLE_MAX * 2);
        assert!(table.release(&alice, 1, now + IDLE_MAX));
        let until = now + IDLE_MAX * 2;
        assert_eq!(table.client_use(&alice, 1), ClientUse::IdleUntil(until));
        table.remove_idle(&alice, 1, until - Duration::from_millis(1));
        assert_eq!(table.len(), 1);
        table.remove_idle(&alice, 1, until);
        assert_eq!(table.client_use(&alice, 1), ClientUse::Removed);
    }

    #[test]
    fn beyond_the_limit_a_new_client_takes_the_place_of_the_one_that_is_idle_for_longest() {
        let (mut table, now) = (ClientTable::new(2, IDLE_MAX), Instant::now());
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| credentials(name, "x"));
        table.insert(alice.clone(), 'a', 1, now);
        table.insert(bob.clone(), 'b', 2, now + Duration::from_secs(1));
        assert!(table.has_room());
        assert!(table.insert(carol.clone(), 'c', 3, now));
        assert_eq!(table.lease(&alice), None);
        assert_eq!(
            (table.lease(&bob), table.lease(&carol)),
            (Some('b'), Some('c'))
        );
        assert!(!table.has_room());
        assert!(!table.insert(alice.clone(), 'a', 4, now));
        table.release(&bob, 2, now);
        assert!(table.insert(alice, 'a', 5, now));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn what_ends_late_does_not_count_for_the_next_client_of_the_same_credentials() {
        let (mut table, now) = (ClientTable::new(9, IDLE_MAX), Instant::now());
        let alice = credentials("alice", "a");
        table.insert(alice.clone(), 'a', 1, now);
        table.lease(&alice);
        table.remove(&alice, 1);
        table.insert(alice.clone(), 'b', 2, now);
        assert_eq!(table.lease(&alice), Some('b'));
        assert!(!table.release(&alice, 1, now));
        table.remove(&alice, 1);
        assert_eq!(table.client_use(&alice, 2), ClientUse::InUse);
    }
}
