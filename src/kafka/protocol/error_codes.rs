//! Where the error codes stand in a response.

use kafka_protocol::messages;

/// A response that says what went wrong, as a whole or of its parts.
pub trait ErrorCodes {
    /// Calls `note` with each error code in it that is not 0.
    fn for_each_error(&self, note: &mut dyn FnMut(i16));
}

/// The paths to the codes in each response.
macro_rules! error_codes {
    ($($response:ident: $($($field:ident).+),+;)*) => {$(
        impl ErrorCodes for messages::$response {
            fn for_each_error(&self, note: &mut dyn FnMut(i16)) {
                $(note_each!(self, note, $($field).+);)+
            }
        }
    )*};
}

macro_rules! note_each {
    ($part:expr, $note:ident, $code:ident) => {
        if $part.$code != 0 {
            $note($part.$code);
        }
    };
    ($part:expr, $note:ident, $list:ident . $($field:ident).+) => {
        for part in &$part.$list {
            note_each!(part, $note, $($field).+);
        }
    };
}

error_codes! {
    ProduceResponse: responses.partition_responses.error_code;
    FetchResponse: error_code, responses.partitions.error_code;
    MetadataResponse: topics.error_code, topics.partitions.error_code;
    ListOffsetsResponse: topics.partitions.error_code;
    OffsetCommitResponse: topics.partitions.error_code;
    OffsetFetchResponse:
        error_code, topics.partitions.error_code,
        groups.error_code, groups.topics.partitions.error_code;
    FindCoordinatorResponse: error_code, coordinators.error_code;
    JoinGroupResponse: error_code;
    SyncGroupResponse: error_code;
    HeartbeatResponse: error_code;
    LeaveGroupResponse: error_code, members.error_code;
    ListGroupsResponse: error_code;
    DescribeGroupsResponse: groups.error_code;
    ConsumerGroupDescribeResponse: groups.error_code;
    OffsetDeleteResponse: error_code, topics.partitions.error_code;
    InitProducerIdResponse: error_code;
    AddPartitionsToTxnResponse:
        error_code,
        results_by_topic_v3_and_below.results_by_partition.partition_error_code,
        results_by_transaction.topic_results.results_by_partition.partition_error_code;
    EndTxnResponse: error_code;
    OffsetForLeaderEpochResponse: topics.partitions.error_code;
    CreateTopicsResponse: topics.error_code;
    DescribeConfigsResponse: results.error_code;
    DescribeClusterResponse: error_code;
    ApiVersionsResponse: error_code;
    SaslHandshakeResponse: error_code;
    SaslAuthenticateResponse: error_code;
}
