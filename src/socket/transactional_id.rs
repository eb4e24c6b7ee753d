//! The `transactional.id` of a client's producer: the same on every node, and no other client's.

/// Whose a client is, beside its `clientId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientOwner<'a> {
    /// Nobody's in particular.
    None,
    /// That Kafka user's, under whose credentials its records are written.
    User(&'a str),
    /// That of the subject of its token; its records are written under the proxy's credentials.
    Subject(&'a str),
}

/// What the transactional id of a client is: `<prefix>`, then owner, client and instance, as far as
/// there are any, with dashes between them: `wsproxy-User:alice-orders-1`.
///
/// Who has the id of a producer fences it, so no client may be called so that it has another's: what
/// separates the parts is percent-encoded within them. That the owner comes first lets an ACL with a
/// prefixed pattern give each user the ids that are his.
pub(super) fn transactional_id(
    prefix: &str,
    owner: ClientOwner<'_>,
    client_id: &str,
    instance_id: Option<&str>,
) -> String {
    let mut id = prefix.to_owned();
    let owner = match owner {
        ClientOwner::None => None,
        ClientOwner::User(user) => Some(("User:", user)),
        ClientOwner::Subject(subject) => Some(("sub:", subject)),
    };
    if let Some((kind, name)) = owner {
        id.push_str(kind);
        push_encoded(&mut id, name);
        id.push('-');
    }
    push_encoded(&mut id, client_id);
    if let Some(instance_id) = instance_id {
        id.push('-');
        push_encoded(&mut id, instance_id);
    }
    id
}

fn push_encoded(id: &mut String, part: &str) {
    for char in part.chars() {
        match char {
            '-' => id.push_str("%2D"),
            ':' => id.push_str("%3A"),
            '%' => id.push_str("%25"),
            char => id.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_names_prefix_owner_client_and_instance() {
        let id = |owner, instance| transactional_id("wsproxy-", owner, "pay-1", instance);
        let bob = ClientOwner::User("bob");
        assert_eq!(id(ClientOwner::None, None), "wsproxy-pay%2D1");
        assert_eq!(id(ClientOwner::None, Some("a")), "wsproxy-pay%2D1-a");
        assert_eq!(id(bob, None), "wsproxy-User:bob-pay%2D1");
        assert_eq!(id(bob, Some("a")), "wsproxy-User:bob-pay%2D1-a");
        let subject = ClientOwner::Subject("bob");
        assert_eq!(id(subject, None), "wsproxy-sub:bob-pay%2D1");
    }

    #[test]
    fn no_client_has_that_of_another() {
        let names = [
            "a", "b", "a-b", "a-", "-b", "-", "a%2Db", "User:a", "User:a-b",
        ];
        let optional = || [None].into_iter().chain(names.map(Some));
        let users = names.map(ClientOwner::User).into_iter();
        let owners = users.chain(names.map(ClientOwner::Subject));
        let mut ids = HashSet::new();
        let mut count = 0;
        for owner in owners.chain([ClientOwner::None]) {
            for client in names {
                for instance in optional() {
                    ids.insert(transactional_id("p-", owner, client, instance));
                    count += 1;
                }
            }
        }
        assert_eq!(ids.len(), count);
    }
}
