//! Behaviour tests: through real sockets, as users and other Kafka clients see us.
