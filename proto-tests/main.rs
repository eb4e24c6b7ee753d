//! Behaviour tests: through real sockets, as users and other Kafka clients see us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod admission;
mod autobahn;
mod bad_input;
mod both_directions;
mod broker_failures;
mod broker_faults;
mod broker_hostile;
mod cli;
mod cluster_ids;
mod embedded_broker;
mod fetch;
mod first_minute;
mod fuzz_heads;
mod group_commits;
mod group_coordinators;
mod group_faults;
mod group_positions;
mod group_races;
mod group_topic_ids;
mod groups;
mod hostile;
mod http_heads;
mod kafka_connection;
mod kafka_schemas;
mod latest_start;
mod layers;
mod log_lines;
mod many_sockets;
mod mixed_group;
mod panics;
mod produce_faults;
mod produce_kafka;
mod readme;
mod real_kafka;
mod record_java;
mod recreated_topics;
mod refusals;
mod service_unit;
mod shutdown;
mod slow_clients;
mod socket_in;
mod socket_out;
mod static_binary;
mod support;
