//! The schemas of the responses that we accept.

use super::FieldType::{Array, Bool, Bytes, Int16, Int32, Int64, Int8, Records, String, Struct, Uuid};
use super::{MessageSchema, field, message};

pub(crate) static PRODUCE: MessageSchema = message("ProduceResponse", "9+", &[
    field("Responses", "0+", Array(&Struct(&[
        field("Name", "0-12", String),
        field("TopicId", "13+", Uuid),
        field("PartitionResponses", "0+", Array(&Struct(&[
            field("Index", "0+", Int32),
            field("ErrorCode", "0+", Int16),
            field("BaseOffset", "0+", Int64),
            field("LogAppendTimeMs", "2+", Int64),
            field("LogStartOffset", "5+", Int64),
            field("RecordErrors", "8+", Array(&Struct(&[
                field("BatchIndex", "8+", Int32),
                field("BatchIndexErrorMessage", "8+", String).nullable("8+"),
            ]))),
            field("ErrorMessage", "8+", String).nullable("8+"),
            field("CurrentLeader", "10+", Struct(&[
                field("LeaderId", "10+", Int32),
                field("LeaderEpoch", "10+", Int32),
            ])).tagged(0),
        ]))),
    ]))),
    field("ThrottleTimeMs", "1+", Int32),
    field("NodeEndpoints", "10+", Array(&Struct(&[
        field("NodeId", "10+", Int32),
        field("Host", "10+", String),
        field("Port", "10+", Int32),
        field("Rack", "10+", String).nullable("10+"),
    ]))).tagged(0),
]);

pub(crate) static FETCH: MessageSchema = message("FetchResponse", "12+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("ErrorCode", "7+", Int16),
    field("SessionId", "7+", Int32),
    field("Responses", "0+", Array(&Struct(&[
        field("Topic", "0-12", String),
        field("TopicId", "13+", Uuid),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("ErrorCode", "0+", Int16),
            field("HighWatermark", "0+", Int64),
            field("LastStableOffset", "4+", Int64),
            field("LogStartOffset", "5+", Int64),
            field("DivergingEpoch", "12+", Struct(&[
                field("Epoch", "12+", Int32),
                field("EndOffset", "12+", Int64),
            ])).tagged(0),
            field("CurrentLeader", "12+", Struct(&[
                field("LeaderId", "12+", Int32),
                field("LeaderEpoch", "12+", Int32),
            ])).tagged(1),
            field("SnapshotId", "12+", Struct(&[
                field("EndOffset", "0+", Int64),
                field("Epoch", "0+", Int32),
            ])).tagged(2),
            field("AbortedTransactions", "4+", Array(&Struct(&[
                field("ProducerId", "4+", Int64),
                field("FirstOffset", "4+", Int64),
            ]))).nullable("4+"),
            field("PreferredReadReplica", "11+", Int32),
            field("Records", "0+", Records).nullable("0+"),
        ]))),
    ]))),
    field("NodeEndpoints", "16+", Array(&Struct(&[
        field("NodeId", "16+", Int32),
        field("Host", "16+", String),
        field("Port", "16+", Int32),
        field("Rack", "16+", String).nullable("16+"),
    ]))).tagged(0),
]);

pub(crate) static LIST_OFFSETS: MessageSchema = message("ListOffsetsResponse", "6+", &[
    field("ThrottleTimeMs", "2+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("ErrorCode", "0+", Int16),
            field("Timestamp", "1+", Int64),
            field("Offset", "1+", Int64),
            field("LeaderEpoch", "4+", Int32),
        ]))),
    ]))),
]);

pub(crate) static METADATA: MessageSchema = message("MetadataResponse", "9+", &[
    field("ThrottleTimeMs", "3+", Int32),
    field("Brokers", "0+", Array(&Struct(&[
        field("NodeId", "0+", Int32),
        field("Host", "0+", String),
        field("Port", "0+", Int32),
        field("Rack", "1+", String).nullable("1+"),
    ]))),
    field("ClusterId", "2+", String).nullable("2+"),
    field("ControllerId", "1+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("ErrorCode", "0+", Int16),
        field("Name", "0+", String).nullable("12+"),
        field("TopicId", "10+", Uuid),
        field("IsInternal", "1+", Bool),
        field("Partitions", "0+", Array(&Struct(&[
            field("ErrorCode", "0+", Int16),
            field("PartitionIndex", "0+", Int32),
            field("LeaderId", "0+", Int32),
            field("LeaderEpoch", "7+", Int32),
            field("ReplicaNodes", "0+", Array(&Int32)),
            field("IsrNodes", "0+", Array(&Int32)),
            field("OfflineReplicas", "5+", Array(&Int32)),
        ]))),
        field("TopicAuthorizedOperations", "8+", Int32),
    ]))),
    field("ClusterAuthorizedOperations", "8-10", Int32),
    field("ErrorCode", "13+", Int16),
]);

pub(crate) static OFFSET_COMMIT: MessageSchema = message("OffsetCommitResponse", "8+", &[
    field("ThrottleTimeMs", "3+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0-9", String),
        field("TopicId", "10+", Uuid),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("ErrorCode", "0+", Int16),
        ]))),
    ]))),
]);

pub(crate) static OFFSET_FETCH: MessageSchema = message("OffsetFetchResponse", "6+", &[
    field("ThrottleTimeMs", "3+", Int32),
    field("Topics", "0-7", Array(&Struct(&[
        field("Name", "0-7", String),
        field("Partitions", "0-7", Array(&Struct(&[
            field("PartitionIndex", "0-7", Int32),
            field("CommittedOffset", "0-7", Int64),
            field("CommittedLeaderEpoch", "5-7", Int32),
            field("Metadata", "0-7", String).nullable("0-7"),
            field("ErrorCode", "0-7", Int16),
        ]))),
    ]))),
    field("ErrorCode", "2-7", Int16),
    field("Groups", "8+", Array(&Struct(&[
        field("GroupId", "8+", String),
        field("Topics", "8+", Array(&Struct(&[
            field("Name", "8-9", String),
            field("TopicId", "10+", Uuid),
            field("Partitions", "8+", Array(&Struct(&[
                field("PartitionIndex", "8+", Int32),
                field("CommittedOffset", "8+", Int64),
                field("CommittedLeaderEpoch", "8+", Int32),
                field("Metadata", "8+", String).nullable("8+"),
                field("ErrorCode", "8+", Int16),
            ]))),
        ]))),
        field("ErrorCode", "8+", Int16),
    ]))),
]);

pub(crate) static FIND_COORDINATOR: MessageSchema = message("FindCoordinatorResponse", "3+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("ErrorCode", "0-3", Int16),
    field("ErrorMessage", "1-3", String).nullable("1-3"),
    field("NodeId", "0-3", Int32),
    field("Host", "0-3", String),
    field("Port", "0-3", Int32),
    field("Coordinators", "4+", Array(&Struct(&[
        field("Key", "4+", String),
        field("NodeId", "4+", Int32),
        field("Host", "4+", String),
        field("Port", "4+", Int32),
        field("ErrorCode", "4+", Int16),
        field("ErrorMessage", "4+", String).nullable("4+"),
    ]))),
]);

pub(crate) static JOIN_GROUP: MessageSchema = message("JoinGroupResponse", "6+", &[
    field("ThrottleTimeMs", "2+", Int32),
    field("ErrorCode", "0+", Int16),
    field("GenerationId", "0+", Int32),
    field("ProtocolType", "7+", String).nullable("7+"),
    field("ProtocolName", "0+", String).nullable("7+"),
    field("Leader", "0+", String),
    field("SkipAssignment", "9+", Bool),
    field("MemberId", "0+", String),
    field("Members", "0+", Array(&Struct(&[
        field("MemberId", "0+", String),
        field("GroupInstanceId", "5+", String).nullable("5+"),
        field("Metadata", "0+", Bytes),
    ]))),
]);

pub(crate) static HEARTBEAT: MessageSchema = message("HeartbeatResponse", "4+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("ErrorCode", "0+", Int16),
]);

pub(crate) static LEAVE_GROUP: MessageSchema = message("LeaveGroupResponse", "4+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("ErrorCode", "0+", Int16),
    field("Members", "3+", Array(&Struct(&[
        field("MemberId", "3+", String),
        field("GroupInstanceId", "3+", String).nullable("3+"),
        field("ErrorCode", "3+", Int16),
    ]))),
]);

pub(crate) static SYNC_GROUP: MessageSchema = message("SyncGroupResponse", "4+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("ErrorCode", "0+", Int16),
    field("ProtocolType", "5+", String).nullable("5+"),
    field("ProtocolName", "5+", String).nullable("5+"),
    field("Assignment", "0+", Bytes),
]);

pub(crate) static LIST_GROUPS: MessageSchema = message("ListGroupsResponse", "3+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("ErrorCode", "0+", Int16),
    field("Groups", "0+", Array(&Struct(&[
        field("GroupId", "0+", String),
        field("ProtocolType", "0+", String),
        field("GroupState", "4+", String),
        field("GroupType", "5+", String),
    ]))),
]);

pub(crate) static DESCRIBE_GROUPS: MessageSchema = message("DescribeGroupsResponse", "5+", &[
    field("ThrottleTimeMs", "1+", Int32),
    field("Groups", "0+", Array(&Struct(&[
        field("ErrorCode", "0+", Int16),
        field("ErrorMessage", "6+", String).nullable("6+"),
        field("GroupId", "0+", String),
        field("GroupState", "0+", String),
        field("ProtocolType", "0+", String),
        field("ProtocolData", "0+", String),
        field("Members", "0+", Array(&Struct(&[
            field("MemberId", "0+", String),
            field("GroupInstanceId", "4+", String).nullable("4+"),
            field("ClientId", "0+", String),
            field("ClientHost", "0+", String),
            field("MemberMetadata", "0+", Bytes),
            field("MemberAssignment", "0+", Bytes),
        ]))),
        field("AuthorizedOperations", "3+", Int32),
    ]))),
]);

pub(crate) static CONSUMER_GROUP_DESCRIBE: MessageSchema = message("ConsumerGroupDescribeResponse", "0+", &[
    field("ThrottleTimeMs", "0+", Int32),
    field("Groups", "0+", Array(&Struct(&[
        field("ErrorCode", "0+", Int16),
        field("ErrorMessage", "0+", String).nullable("0+"),
        field("GroupId", "0+", String),
        field("GroupState", "0+", String),
        field("GroupEpoch", "0+", Int32),
        field("AssignmentEpoch", "0+", Int32),
        field("AssignorName", "0+", String),
        field("Members", "0+", Array(&Struct(&[
            field("MemberId", "0+", String),
            field("InstanceId", "0+", String).nullable("0+"),
            field("RackId", "0+", String).nullable("0+"),
            field("MemberEpoch", "0+", Int32),
            field("ClientId", "0+", String),
            field("ClientHost", "0+", String),
            field("SubscribedTopicNames", "0+", Array(&String)),
            field("SubscribedTopicRegex", "0+", String).nullable("0+"),
            field("Assignment", "0+", Struct(&[
                field("TopicPartitions", "0+", Array(&Struct(&[
                    field("TopicId", "0+", Uuid),
                    field("TopicName", "0+", String),
                    field("Partitions", "0+", Array(&Int32)),
                ]))),
            ])),
            field("TargetAssignment", "0+", Struct(&[
                field("TopicPartitions", "0+", Array(&Struct(&[
                    field("TopicId", "0+", Uuid),
                    field("TopicName", "0+", String),
                    field("Partitions", "0+", Array(&Int32)),
                ]))),
            ])),
            field("MemberType", "1+", Int8),
        ]))),
        field("AuthorizedOperations", "0+", Int32),
    ]))),
]);

pub(crate) static OFFSET_DELETE: MessageSchema = message("OffsetDeleteResponse", "none", &[
    field("ErrorCode", "0+", Int16),
    field("ThrottleTimeMs", "0+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("ErrorCode", "0+", Int16),
        ]))),
    ]))),
]);

pub(crate) static API_VERSIONS: MessageSchema = message("ApiVersionsResponse", "3+", &[
    field("ErrorCode", "0+", Int16),
    field("ApiKeys", "0+", Array(&Struct(&[
        field("ApiKey", "0+", Int16),
        field("MinVersion", "0+", Int16),
        field("MaxVersion", "0+", Int16),
    ]))),
    field("ThrottleTimeMs", "1+", Int32),
    field("SupportedFeatures", "3+", Array(&Struct(&[
        field("Name", "3+", String),
        field("MinVersion", "3+", Int16),
        field("MaxVersion", "3+", Int16),
    ]))).tagged(0),
    field("FinalizedFeaturesEpoch", "3+", Int64).tagged(1),
    field("FinalizedFeatures", "3+", Array(&Struct(&[
        field("Name", "3+", String),
        field("MaxVersionLevel", "3+", Int16),
        field("MinVersionLevel", "3+", Int16),
    ]))).tagged(2),
    field("ZkMigrationReady", "3+", Bool).tagged(3),
]);

pub(crate) static CREATE_TOPICS: MessageSchema = message("CreateTopicsResponse", "5+", &[
    field("ThrottleTimeMs", "2+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Name", "0+", String),
        field("TopicId", "7+", Uuid),
        field("ErrorCode", "0+", Int16),
        field("ErrorMessage", "1+", String).nullable("0+"),
        field("TopicConfigErrorCode", "5+", Int16).tagged(0),
        field("NumPartitions", "5+", Int32),
        field("ReplicationFactor", "5+", Int16),
        field("Configs", "5+", Array(&Struct(&[
            field("Name", "5+", String),
            field("Value", "5+", String).nullable("5+"),
            field("ReadOnly", "5+", Bool),
            field("ConfigSource", "5+", Int8),
            field("IsSensitive", "5+", Bool),
        ]))).nullable("5+"),
    ]))),
]);

pub(crate) static DESCRIBE_CONFIGS: MessageSchema = message("DescribeConfigsResponse", "4+", &[
    field("ThrottleTimeMs", "0+", Int32),
    field("Results", "0+", Array(&Struct(&[
        field("ErrorCode", "0+", Int16),
        field("ErrorMessage", "0+", String).nullable("0+"),
        field("ResourceType", "0+", Int8),
        field("ResourceName", "0+", String),
        field("Configs", "0+", Array(&Struct(&[
            field("Name", "0+", String),
            field("Value", "0+", String).nullable("0+"),
            field("ReadOnly", "0+", Bool),
            field("ConfigSource", "1+", Int8),
            field("IsSensitive", "0+", Bool),
            field("Synonyms", "1+", Array(&Struct(&[
                field("Name", "1+", String),
                field("Value", "1+", String).nullable("0+"),
                field("Source", "1+", Int8),
            ]))),
            field("ConfigType", "3+", Int8),
            field("Documentation", "3+", String).nullable("0+"),
        ]))),
    ]))),
]);

pub(crate) static INIT_PRODUCER_ID: MessageSchema = message("InitProducerIdResponse", "2+", &[
    field("ThrottleTimeMs", "0+", Int32),
    field("ErrorCode", "0+", Int16),
    field("ProducerId", "0+", Int64),
    field("ProducerEpoch", "0+", Int16),
    field("OngoingTxnProducerId", "6+", Int64),
    field("OngoingTxnProducerEpoch", "6+", Int16),
]);

pub(crate) static ADD_PARTITIONS_TO_TXN: MessageSchema = message("AddPartitionsToTxnResponse", "3+", &[
    field("ThrottleTimeMs", "0+", Int32),
    field("ErrorCode", "4+", Int16),
    field("ResultsByTransaction", "4+", Array(&Struct(&[
        field("TransactionalId", "4+", String),
        field("TopicResults", "4+", Array(&Struct(&[
            field("Name", "0+", String),
            field("ResultsByPartition", "0+", Array(&Struct(&[
                field("PartitionIndex", "0+", Int32),
                field("PartitionErrorCode", "0+", Int16),
            ]))),
        ]))),
    ]))),
    field("ResultsByTopicV3AndBelow", "0-3", Array(&Struct(&[
        field("Name", "0+", String),
        field("ResultsByPartition", "0+", Array(&Struct(&[
            field("PartitionIndex", "0+", Int32),
            field("PartitionErrorCode", "0+", Int16),
        ]))),
    ]))),
]);

pub(crate) static END_TXN: MessageSchema = message("EndTxnResponse", "3+", &[
    field("ThrottleTimeMs", "0+", Int32),
    field("ErrorCode", "0+", Int16),
    field("ProducerId", "5+", Int64),
    field("ProducerEpoch", "5+", Int16),
]);

pub(crate) static OFFSET_FOR_LEADER_EPOCH: MessageSchema = message("OffsetForLeaderEpochResponse", "4+", &[
    field("ThrottleTimeMs", "2+", Int32),
    field("Topics", "0+", Array(&Struct(&[
        field("Topic", "0+", String),
        field("Partitions", "0+", Array(&Struct(&[
            field("ErrorCode", "0+", Int16),
            field("Partition", "0+", Int32),
            field("LeaderEpoch", "1+", Int32),
            field("EndOffset", "0+", Int64),
        ]))),
    ]))),
]);

pub(crate) static DESCRIBE_CLUSTER: MessageSchema = message("DescribeClusterResponse", "0+", &[
    field("ThrottleTimeMs", "0+", Int32),
    field("ErrorCode", "0+", Int16),
    field("ErrorMessage", "0+", String).nullable("0+"),
    field("EndpointType", "1+", Int8),
    field("ClusterId", "0+", String),
    field("ControllerId", "0+", Int32),
    field("Brokers", "0+", Array(&Struct(&[
        field("BrokerId", "0+", Int32),
        field("Host", "0+", String),
        field("Port", "0+", Int32),
        field("Rack", "0+", String).nullable("0+"),
        field("IsFenced", "2+", Bool),
    ]))),
    field("ClusterAuthorizedOperations", "0+", Int32),
]);

pub(crate) static SASL_HANDSHAKE: MessageSchema = message("SaslHandshakeResponse", "none", &[
    field("ErrorCode", "0+", Int16),
    field("Mechanisms", "0+", Array(&String)),
]);

pub(crate) static SASL_AUTHENTICATE: MessageSchema = message("SaslAuthenticateResponse", "2+", &[
    field("ErrorCode", "0+", Int16),
    field("ErrorMessage", "0+", String).nullable("0+"),
    field("AuthBytes", "0+", Bytes),
    field("SessionLifetimeMs", "1+", Int64),
]);
