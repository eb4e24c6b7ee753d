//! Properties of the Java clients that have no meaning here, and why.
//!
//! They never end the start: a file that the Java clients read is to work as it is. What
//! would weaken security or acknowledgements is not in this list.

/// The reason, and the properties that it is the reason for.
const IGNORED: &[(&str, &[&str])] = &[
    (
        "every socket brings its own",
        &[
            "enable.auto.commit",
            "group.id",
            "group.instance.id",
            "auto.offset.reset",
            "key.deserializer",
            "key.serializer",
            "value.deserializer",
            "value.serializer",
        ],
    ),
    (
        "every socket says it in isolationLevel, and reads uncommitted records otherwise",
        &["isolation.level"],
    ),
    (
        "decided by the proxy",
        &[
            "default.api.timeout.ms",
            "max.block.ms",
            "max.poll.records",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
            "socket.connection.setup.timeout.max.ms",
            "buffer.memory.allocation.strategy",
            "metadata.max.idle.ms",
            "rebalance.timeout.ms",
            "bootstrap.resolve.timeout.ms",
            "metadata.cluster.check.enable",
            "metadata.recovery.strategy",
            "metadata.recovery.rebootstrap.trigger.ms",
            "internal.leave.group.on.close",
            "internal.throw.on.fetch.stable.offset.unsupported",
        ],
    ),
    (
        "topics are never created on a look",
        &["allow.auto.create.topics"],
    ),
    (
        "topics are taken by name, never by pattern",
        &["exclude.internal.topics"],
    ),
    (
        "commits are made once a second",
        &["auto.commit.interval.ms"],
    ),
    (
        "set kafka-client.bootstrap-hosts",
        &["bootstrap.servers", "bootstrap.controllers"],
    ),
    ("checksums are always checked", &["check.crcs"]),
    ("every resolved address is tried", &["client.dns.lookup"]),
    (
        "there are no Java classes here",
        &[
            "interceptor.classes",
            "metric.reporters",
            "auto.include.jmx.reporter",
            "config.providers",
            "security.providers",
            "ssl.engine.factory.class",
            "principal.builder.class",
        ],
    ),
    (
        "metrics are not pushed to brokers",
        &["enable.metrics.push"],
    ),
    (
        "murmur2 for keys, sticky without, as Java's default",
        &[
            "partitioner.class",
            "partitioner.ignore.keys",
            "partitioner.adaptive.partitioning.enable",
            "partitioner.availability.timeout.ms",
            "partitioner.rack.aware",
        ],
    ),
    (
        "each codec has one level here",
        &[
            "compression.gzip.level",
            "compression.lz4.level",
            "compression.zstd.level",
        ],
    ),
    (
        "the producer is idempotent, without transactions",
        &[
            "transactional.id",
            "transaction.timeout.ms",
            "transaction.two.phase.commit.enable",
            "internal.auto.downgrade.txn.commit",
        ],
    ),
    ("group.protocol is classic", &["group.remote.assignor"]),
    (
        "there are no share groups here",
        &["share.acknowledgement.mode", "share.acquire.mode"],
    ),
    (
        "left to the kernel",
        &["receive.buffer.bytes", "send.buffer.bytes"],
    ),
    (
        "security.protocol is PLAINTEXT",
        &[
            "ssl.keystore.type",
            "ssl.keystore.key",
            "ssl.keystore.certificate.chain",
            "ssl.truststore.certificates",
            "ssl.protocol",
            "ssl.keymanager.algorithm",
            "ssl.trustmanager.algorithm",
            "ssl.secure.random.implementation",
            "ssl.client.auth",
        ],
    ),
];

/// Why a property of that name does nothing.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    // What a provider is configured with has names of its own choice.
    let name = match name.strip_prefix("config.providers.") {
        Some(_) => "config.providers",
        None => name,
    };
    let group = IGNORED.iter().find(|(_, names)| names.contains(&name));
    group.map(|(reason, _)| *reason)
}

/// All of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    IGNORED.iter().flat_map(|(_, names)| names.iter().copied())
}
