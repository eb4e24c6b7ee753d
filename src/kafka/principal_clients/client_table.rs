//! Which users have a client, and since when nobody uses one. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::sasl::{Credentials, TokenIdentity, UserCredentials};

/// Whose a client is: who has it in common shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ClientKey {
    Password(Credentials),
    Token(TokenIdentity),
}

impl From<&UserCredentials> for ClientKey {
    fn from(credentials: &UserCredentials) -> Self {
        match credentials {
            UserCredentials::Password(credentials) => Self::Password(credentials.clone()),
            UserCredentials::Token(token) => Self::Token(token.identity),
        }
    }
}

/// The clients of users. `C` is a handle.
#[derive(Debug)]
pub(super) struct ClientTable<C> {
    clients_max: usize,
    /// How long a client that nobody uses is kept.
    idle_max: Duration,
    /// By what is never given twice: a key may have had a client before.
    entries: HashMap<u64, TableEntry<C>>,
    numbers: HashMap<ClientKey, u64>,
}

#[derive(Debug)]
struct TableEntry<C> {
    client: C,
    key: ClientKey,
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
            numbers: HashMap::new(),
        }
    }

    /// The client, if there is one.
    pub(super) fn get(&self, key: &ClientKey) -> Option<&C> {
        let entry = self.entries.get(self.numbers.get(key)?);
        entry.map(|entry| &entry.client)
    }

    /// Counts one more who uses the client, if there is one.
    pub(super) fn lease(&mut self, key: &ClientKey) -> Option<C> {
        let entry = self.entries.get_mut(self.numbers.get(key)?)?;
        entry.leases += 1;
        Some(entry.client.clone())
    }

    /// Counts one more of those who use a client already.
    pub(super) fn add_lease(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.leases += 1;
        }
    }

    /// One who used that client is done; whether it was the last.
    pub(super) fn release(&mut self, number: u64, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&number) else {
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
    /// `false` when all are in use. The key must have none.
    pub(super) fn insert(&mut self, key: ClientKey, client: C, number: u64, now: Instant) -> bool {
        if self.entries.len() >= self.clients_max {
            let idle = self.entries.iter().filter(|(_, entry)| entry.leases == 0);
            let oldest = idle.min_by_key(|(_, entry)| entry.idle_since);
            let Some((&oldest, _)) = oldest else {
                return false;
            };
            self.remove(oldest);
        }
        self.numbers.insert(key.clone(), number);
        let entry = TableEntry {
            client,
            key,
            leases: 0,
            idle_since: now,
        };
        self.entries.insert(number, entry);
        true
    }

    /// A client is that of another key from now on: whoever comes with the former one gets another.
    /// If that key has a client itself, nobody else gets this one.
    pub(super) fn change_key(&mut self, number: u64, key: ClientKey) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        if self.numbers.get(&entry.key) == Some(&number) {
            self.numbers.remove(&entry.key);
        }
        entry.key = key.clone();
        self.numbers.entry(key).or_insert(number);
    }

    pub(super) fn client_use(&self, number: u64) -> ClientUse {
        match self.entries.get(&number) {
            Some(entry) if entry.leases > 0 => ClientUse::InUse,
            // Nobody can come back to it.
            Some(entry) if self.numbers.get(&entry.key) != Some(&number) => {
                ClientUse::IdleUntil(entry.idle_since)
            }
            Some(entry) => ClientUse::IdleUntil(entry.idle_since + self.idle_max),
            None => ClientUse::Removed,
        }
    }

    /// Forgets a client; those who use it keep it.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number)
            && self.numbers.get(&entry.key) == Some(&number)
        {
            self.numbers.remove(&entry.key);
        }
    }

    /// Forgets a client that has been idle for long enough.
    pub(super) fn remove_idle(&mut self, number: u64, now: Instant) {
        if matches!(self.client_use(number), ClientUse::IdleUntil(at) if at <= now) {
            self.remove(number);
        }
    }

    /// Forgets a client unless it is used.
    pub(super) fn remove_unused(&mut self, number: u64) {
        if matches!(self.client_use(number), ClientUse::IdleUntil(_)) {
            self.remove(number);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &C> {
        self.entries.values().map(|entry| &entry.client)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secret::Secret;

    const IDLE_MAX: Duration = Duration::from_secs(300);

    fn credentials(username: &str, password: &str) -> ClientKey {
        ClientKey::Password(Credentials {
            username: username.to_owned(),
            password: Secret::new(password),
        })
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
        assert!(!table.release(1, now));
        assert_eq!(table.client_use(1), ClientUse::InUse);
        table.remove_idle(1, now + IDLE_MAX * 2);
        table.remove_unused(1);
        assert!(table.release(1, now + IDLE_MAX));
        let until = now + IDLE_MAX * 2;
        assert_eq!(table.client_use(1), ClientUse::IdleUntil(until));
        table.remove_idle(1, until - Duration::from_millis(1));
        assert_eq!(table.len(), 1);
        table.remove_idle(1, until);
        assert_eq!(table.client_use(1), ClientUse::Removed);
        assert_eq!((table.len(), table.lease(&alice)), (0, None));
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
        table.release(2, now);
        assert!(table.insert(alice, 'a', 5, now));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn what_ends_late_does_not_count_for_the_next_client_of_the_same_credentials() {
        let (mut table, now) = (ClientTable::new(9, IDLE_MAX), Instant::now());
        let alice = credentials("alice", "a");
        table.insert(alice.clone(), 'a', 1, now);
        table.lease(&alice);
        table.remove(1);
        table.insert(alice.clone(), 'b', 2, now);
        assert_eq!(table.lease(&alice), Some('b'));
        assert!(!table.release(1, now));
        table.remove(1);
        assert_eq!(table.client_use(2), ClientUse::InUse);
    }

    #[test]
    fn a_client_whose_key_changes_is_that_of_the_new_one_unless_that_has_one() {
        let (mut table, now) = (ClientTable::new(9, IDLE_MAX), Instant::now());
        let [old, new, taken] = [1, 2, 3].map(|n| ClientKey::Token(TokenIdentity([n; 32])));
        table.insert(old.clone(), 'a', 1, now);
        table.lease(&old);
        table.change_key(1, new.clone());
        assert_eq!((table.get(&old), table.get(&new)), (None, Some(&'a')));
        table.insert(taken.clone(), 'b', 2, now);
        table.change_key(1, taken.clone());
        assert_eq!((table.get(&new), table.get(&taken)), (None, Some(&'b')));
        // It counts, but nobody can come back to it.
        assert_eq!((table.len(), table.client_use(1)), (2, ClientUse::InUse));
        assert!(table.release(1, now));
        assert_eq!(table.client_use(1), ClientUse::IdleUntil(now));
        table.remove_idle(1, now);
        assert_eq!(table.client_use(1), ClientUse::Removed);
        assert_eq!(table.get(&taken), Some(&'b'));
    }
}
