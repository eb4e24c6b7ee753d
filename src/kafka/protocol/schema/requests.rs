//! The schemas of the requests that the in-memory broker accepts.

use kafka_protocol::messages::ApiKey;

use super::FieldType::{Array, Bool, Bytes, Int8, Int16, Int32, Int64, Records, String, Struct, Uuid};
use super::{FieldSchema, MessageSchema, field, message};

/// The schema of the requests of an API, of those that are accepted.
pub fn request_schema(api: ApiKey) -> Option<&'static MessageSchema> {
    Some(match api {
        ApiKey::Produce => &PRODUCE,
        ApiKey::Fetch => &FETCH,
        ApiKey::ListOffsets => &LIST_OFFSETS,
        ApiKey::Metadata => &METADATA,
        ApiKey::OffsetCommit => &OFFSET_COMMIT,
        ApiKey::OffsetFetch => &OFFSET_FETCH,
        ApiKey::FindCoordinator => &FIND_COORDINATOR,
        ApiKey::JoinGroup => &JOIN_GROUP,
        ApiKey::Heartbeat => &HEARTBEAT,
        ApiKey::LeaveGroup => &LEAVE_GROUP,
        ApiKey::SyncGroup => &SYNC_GROUP,
        ApiKey::DescribeGroups => &DESCRIBE_GROUPS,
        ApiKey::ListGroups => &LIST_GROUPS,
        ApiKey::ApiVersions => &API_VERSIONS,
        ApiKey::CreateTopics => &CREATE_TOPICS,
        ApiKey::DeleteTopics => &DELETE_TOPICS,
        ApiKey::DeleteRecords => &DELETE_RECORDS,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID,
        ApiKey::AddPartitionsToTxn => &ADD_PARTITIONS_TO_TXN,
        ApiKey::EndTxn => &END_TXN,
        ApiKey::DescribeTransactions => &DESCRIBE_TRANSACTIONS,
        ApiKey::ListTransactions => &LIST_TRANSACTIONS,
        ApiKey::OffsetForLeaderEpoch => &OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeConfigs => &DESCRIBE_CONFIGS,
        ApiKey::CreatePartitions => &CREATE_PARTITIONS,
        ApiKey::DeleteGroups => &DELETE_GROUPS,
        ApiKey::DescribeCluster => &DESCRIBE_CLUSTER,
        ApiKey::OffsetDelete => &OFFSET_DELETE,
        _ => return None,
    })
}

/// What precedes every request, in the versions of the header. Version 2 adds tagged
/// fields, of which none is defined.
pub static REQUEST_HEADER: &[FieldSchema] = &[
    field("RequestApiKey", "0+", Int16),
    field("RequestApiVersion", "0+", Int16),
    field("CorrelationId", "0+", Int32),
    field("ClientId", "1+", String).nullable("1+"),
];

static PRODUCE: MessageSchema = message("ProduceRequest", "9+", &[
    field("TransactionalId", "3+", String).nullable("3+"),
    field("Acks", "0+", Int16),
    field("TimeoutMs", "0+", Int32),
    field("TopicData", "0+", Array(&Struct(&[
        field("Name", "0-12", String),
        field("TopicId", "13+", Uuid),
        field("PartitionData", "0+", Array(&Struct(&[
            field("Index", "0+", Int32),
            field("Records", "0+", Records).nullable("0+"),
        ]))),
    ]))),
]);

static FETCH: MessageSchema = message("FetchRequest", "12+", &[
    field("ClusterId", "12+", String).nullable("12+").tagged(0),
    field("ReplicaId", "0-14", Int32),
    field("ReplicaState", "15+", Struct(&[
        field("ReplicaId", "15+", Int32),
        field("ReplicaEpoch", "15+", Int64),
    ])).tagged(1),
    field("MaxWaitMs", "0+", Int32),
    field("MinBytes", "0+", Int32),
    field("MaxBytes", "3+", Int32),
    field("IsolationLevel", "4+", Int8),
    field("SessionId", "7+", Int32),
    field("SessionEpoch", "7+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Topic", "0-12", String),
        field("TopicId", "13+", Uuid),
        field("Partitions", "0+", Array(&Struct(&[
            field("Partition", "0+", Int32),
            field("CurrentLeaderEpoch", "9+", Int32),
            field("FetchOffset", "0+", Int64),
            field("LastFetchedEpoch", "12+", Int32),
            field("LogStartOffset", "5+", Int64),
            field("PartitionMaxBytes", "0+", Int32),
            field("ReplicaDirectoryId", "17+", Uuid).tagged(0),
            field("HighWatermark", "18+", Int64).tagged(1),
        ]))),
    ]))),
    field("ForgottenTopicsData", "7+", Array(&Struct(&[
        field("Topic", "7-12", String),
        field("TopicId", "13+", Uuid),
        field("Partitions", "7+", Array(&Int32)),
    ]))),
    field("RackId", "11+", String),
]);

static LIST_OFFSETS: MessageSchema = message("ListOffsetsRequest", "6+", &[
    field("ReplicaId", "0+", Int32),
    field("IsolationLevel", "2+", Int8),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("CurrentLeaderEpoch", "4+", Int32),
            field("Timestamp", "0+", Int64),
        ]))),
    ]))),
    field("TimeoutMs", "10+", Int32),
]);

static METADATA: MessageSchema = message("MetadataRequest", "9+", &[
    field("Topics", "0+", Array(&Struct(&[
        field("TopicId", "10+", Uuid),
        field("Name", "0+", String).nullable("10+"),
    ]))).nullable("1+"),
    field("AllowAutoTopicCreation", "4+", Bool),
    field("IncludeClusterAuthorizedOperations", "8-10", Bool),
    field("IncludeTopicAuthorizedOperations", "8+", Bool),
]);

static OFFSET_COMMIT: MessageSchema = message("OffsetCommitRequest", "8+", &[
    field("GroupId", "0+", String),
    field("GenerationIdOrMemberEpoch", "1+", Int32),
    field("MemberId", "1+", String),
    field("GroupInstanceId", "7+", String).nullable("7+"),
    field("RetentionTimeMs", "2-4", Int64),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0-9", String),
        field("TopicId", "10+", Uuid),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("CommittedOffset", "0+", Int64),
            field("CommittedLeaderEpoch", "6+", Int32),
            field("CommittedMetadata", "0+", String).nullable("0+"),
        ]))),
    ]))),
]);

static OFFSET_FETCH: MessageSchema = message("OffsetFetchRequest", "6+", &[
    field("GroupId", "0-7", String),
    field("Topics", "0-7", Array(&Struct(&[
        field("Name", "0-7", String),
        field("PartitionIndexes", "0-7", Array(&Int32)),
    ]))).nullable("2-7"),
    field("Groups", "8+", Array(&Struct(&[
        field("GroupId", "8+", String),
        field("MemberId", "9+", String).nullable("9+"),
        field("MemberEpoch", "9+", Int32),
        field("Topics", "8+", Array(&Struct(&[
            field("Name", "8-9", String),
            field("TopicId", "10+", Uuid),
            field("PartitionIndexes", "8+", Array(&Int32)),
        ]))).nullable("8+"),
    ]))),
    field("RequireStable", "7+", Bool),
]);

static FIND_COORDINATOR: MessageSchema = message("FindCoordinatorRequest", "3+", &[
    field("Key", "0-3", String),
    field("KeyType", "1+", Int8),
    field("CoordinatorKeys", "4+", Array(&String)),
]);

static JOIN_GROUP: MessageSchema = message("JoinGroupRequest", "6+", &[
    field("GroupId", "0+", String),
    field("SessionTimeoutMs", "0+", Int32),
    field("RebalanceTimeoutMs", "1+", Int32),
    field("MemberId", "0+", String),
    field("GroupInstanceId", "5+", String).nullable("5+"),
    field("ProtocolType", "0+", String),
    field("Protocols", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Metadata", "0+", Bytes),
    ]))),
    field("Reason", "8+", String).nullable("8+"),
]);

static HEARTBEAT: MessageSchema = message("HeartbeatRequest", "4+", &[
    field("GroupId", "0+", String),
    field("GenerationId", "0+", Int32),
    field("MemberId", "0+", String),
    field("GroupInstanceId", "3+", String).nullable("3+"),
]);

static LEAVE_GROUP: MessageSchema = message("LeaveGroupRequest", "4+", &[
    field("GroupId", "0+", String),
    field("MemberId", "0-2", String),
    field("Members", "3+", Array(&Struct(&[
        field("MemberId", "3+", String),
        field("GroupInstanceId", "3+", String).nullable("3+"),
        field("Reason", "5+", String).nullable("5+"),
    ]))),
]);

static SYNC_GROUP: MessageSchema = message("SyncGroupRequest", "4+", &[
    field("GroupId", "0+", String),
    field("GenerationId", "0+", Int32),
    field("MemberId", "0+", String),
    field("GroupInstanceId", "3+", String).nullable("3+"),
    field("ProtocolType", "5+", String).nullable("5+"),
    field("ProtocolName", "5+", String).nullable("5+"),
    field("Assignments", "0+", Array(&Struct(&[
        field("MemberId", "0+", String),
        field("Assignment", "0+", Bytes),
    ]))),
]);

static DESCRIBE_GROUPS: MessageSchema = message("DescribeGroupsRequest", "5+", &[
    field("Groups", "0+", Array(&String)),
    field("IncludeAuthorizedOperations", "3+", Bool),
]);

static LIST_GROUPS: MessageSchema = message("ListGroupsRequest", "3+", &[
    field("StatesFilter", "4+", Array(&String)),
    field("TypesFilter", "5+", Array(&String)),
]);

static API_VERSIONS: MessageSchema = message("ApiVersionsRequest", "3+", &[
    field("ClientSoftwareName", "3+", String),
    field("ClientSoftwareVersion", "3+", String),
    field("ClusterId", "5+", String).nullable("5+"),
    field("NodeId", "5+", Int32),
]);

static CREATE_TOPICS: MessageSchema = message("CreateTopicsRequest", "5+", &[
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("NumPartitions", "0+", Int32),
        field("ReplicationFactor", "0+", Int16),
        field("Assignments", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("BrokerIds", "0+", Array(&Int32)),
        ]))),
        field("Configs", "0+", Array(&Struct(&[
            field("Name", "0+", String),
            field("Value", "0+", String).nullable("0+"),
        ]))),
    ]))),
    field("timeoutMs", "0+", Int32),
    field("validateOnly", "1+", Bool),
]);

static DELETE_TOPICS: MessageSchema = message("DeleteTopicsRequest", "4+", &[
    field("Topics", "6+", Array(&Struct(&[
        field("Name", "6+", String).nullable("6+"),
        field("TopicId", "6+", Uuid),
    ]))),
    field("TopicNames", "0-5", Array(&String)),
    field("TimeoutMs", "0+", Int32),
]);

static DELETE_RECORDS: MessageSchema = message("DeleteRecordsRequest", "2+", &[
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("Offset", "0+", Int64),
        ]))),
    ]))),
    field("TimeoutMs", "0+", Int32),
]);

static INIT_PRODUCER_ID: MessageSchema = message("InitProducerIdRequest", "2+", &[
    field("TransactionalId", "0+", String).nullable("0+"),
    field("TransactionTimeoutMs", "0+", Int32),
    field("ProducerId", "3+", Int64),
    field("ProducerEpoch", "3+", Int16),
    field("Enable2Pc", "6+", Bool),
    field("KeepPreparedTxn", "6+", Bool),
]);

static ADD_PARTITIONS_TO_TXN: MessageSchema = message("AddPartitionsToTxnRequest", "3+", &[
    field("Transactions", "4+", Array(&Struct(&[
        field("TransactionalId", "4+", String),
        field("ProducerId", "4+", Int64),
        field("ProducerEpoch", "4+", Int16),
        field("VerifyOnly", "4+", Bool),
        field("Topics", "4+", Array(&Struct(&[
            field("Name", "0+", String),
            field("Partitions", "0+", Array(&Int32)),
        ]))),
    ]))),
    field("V3AndBelowTransactionalId", "0-3", String),
    field("V3AndBelowProducerId", "0-3", Int64),
    field("V3AndBelowProducerEpoch", "0-3", Int16),
    field("V3AndBelowTopics", "0-3", Array(&Struct(&[
        field("Name", "0+", String),
        field("Partitions", "0+", Array(&Int32)),
    ]))),
]);

static END_TXN: MessageSchema = message("EndTxnRequest", "3+", &[
    field("TransactionalId", "0+", String),
    field("ProducerId", "0+", Int64),
    field("ProducerEpoch", "0+", Int16),
    field("Committed", "0+", Bool),
]);

static DESCRIBE_TRANSACTIONS: MessageSchema = message("DescribeTransactionsRequest", "0+", &[
    field("TransactionalIds", "0+", Array(&String)),
]);

static LIST_TRANSACTIONS: MessageSchema = message("ListTransactionsRequest", "0+", &[
    field("StateFilters", "0+", Array(&String)),
    field("ProducerIdFilters", "0+", Array(&Int64)),
    field("DurationFilter", "1+", Int64),
    field("TransactionalIdPattern", "2+", String).nullable("2+"),
]);

static OFFSET_FOR_LEADER_EPOCH: MessageSchema = message("OffsetForLeaderEpochRequest", "4+", &[
    field("ReplicaId", "3+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Topic", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("Partition", "0+", Int32),
            field("CurrentLeaderEpoch", "2+", Int32),
            field("LeaderEpoch", "0+", Int32),
        ]))),
    ]))),
]);

static DESCRIBE_CONFIGS: MessageSchema = message("DescribeConfigsRequest", "4+", &[
    field("Resources", "0+", Array(&Struct(&[
        field("ResourceType", "0+", Int8),
        field("ResourceName", "0+", String),
        field("ConfigurationKeys", "0+", Array(&String)).nullable("0+"),
    ]))),
    field("IncludeSynonyms", "1+", Bool),
    field("IncludeDocumentation", "3+", Bool),
]);

static CREATE_PARTITIONS: MessageSchema = message("CreatePartitionsRequest", "2+", &[
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Count", "0+", Int32),
        field("Assignments", "0+", Array(&Struct(&[
            field("BrokerIds", "0+", Array(&Int32)),
        ]))).nullable("0+"),
    ]))),
    field("TimeoutMs", "0+", Int32),
    field("ValidateOnly", "0+", Bool),
]);

static DELETE_GROUPS: MessageSchema = message("DeleteGroupsRequest", "2+", &[
    field("GroupsNames", "0+", Array(&String)),
]);

static OFFSET_DELETE: MessageSchema = message("OffsetDeleteRequest", "none", &[
    field("GroupId", "0+", String),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
        ]))),
    ]))),
]);

static DESCRIBE_CLUSTER: MessageSchema = message("DescribeClusterRequest", "0+", &[
    field("IncludeClusterAuthorizedOperations", "0+", Bool),
    field("EndpointType", "1+", Int8),
    field("IncludeFencedBrokers", "2+", Bool),
]);
