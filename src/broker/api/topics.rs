//! Creating, growing, deleting and describing topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::super::cluster_state::{ClusterState, TopicState};
use super::super::context::RequestContext;
use super::super::wire::text;

/// Creates topics; of their settings, `max.message.bytes` and `message.timestamp.type`
/// have an effect, and `cleanup.policy` is told to those who ask.
pub(super) fn create_topics(
    context: &RequestContext,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut cluster = context.shared.lock();
    let validate_only = request.validate_only;
    let topics = request.topics.into_iter().map(|wanted| {
        let result = create(&mut cluster.state, &wanted, validate_only);
        let response = CreatableTopicResult::default().with_name(wanted.name);
        match result {
            Err(error) => response.with_error_code(error.code()),
            Ok(topic) => {
                let response = response
                    .with_num_partitions(topic.partitions)
                    .with_replication_factor(topic.replication)
                    .with_configs(Some(Vec::new()));
                if version >= 7 {
                    response.with_topic_id(topic.id)
                } else {
                    response
                }
            }
        }
    });
    let topics = topics.collect();
    CreateTopicsResponse::default().with_topics(topics)
}

struct CreatedTopic {
    id: uuid::Uuid,
    partitions: i32,
    replication: i16,
}

fn create(
    state: &mut ClusterState,
    wanted: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatedTopic, ResponseError> {
    let (partitions, replication) = if wanted.assignments.is_empty() {
        (
            (wanted.num_partitions != -1).then_some(wanted.num_partitions),
            (wanted.replication_factor != -1).then_some(wanted.replication_factor),
        )
    } else {
        let replicas = wanted.assignments[0].broker_ids.len();
        (
            i32::try_from(wanted.assignments.len()).ok(),
            i16::try_from(replicas).ok(),
        )
    };
    if validate_only {
        let (partitions, replication) = state.check_topic(&wanted.name, partitions, replication)?;
        return Ok(CreatedTopic {
            id: uuid::Uuid::nil(),
            partitions: i32::try_from(partitions).unwrap_or(-1),
            replication: i16::try_from(replication).unwrap_or(-1),
        });
    }
    let topic = state.create_topic(&wanted.name, partitions, replication)?;
    for config in &wanted.configs {
        configure(topic, &config.name, config.value.as_deref());
    }
    Ok(CreatedTopic {
        id: topic.id,
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(-1),
        replication: topic
            .partitions
            .first()
            .map_or(-1, |p| p.replicas.len() as i16),
    })
}

fn configure(topic: &mut TopicState, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    match name {
        MAX_BYTES => {
            if let Ok(bytes) = value.parse() {
                topic.max_message_bytes = bytes;
            }
        }
        TIMESTAMP_TYPE => topic.log_append_time = value == "LogAppendTime",
        CLEANUP_POLICY if value.len() <= POLICY_BYTES_MAX => topic.cleanup_policy = value.into(),
        _ => {}
    }
}

/// Deletes topics by name or, from version 6 on, by id.
pub(super) fn delete_topics(
    context: &RequestContext,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let named = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut cluster = context.shared.lock();
    let responses = named.chain(request.topics).map(|wanted| {
        let response = DeletableTopicResult::default();
        let (name, id) = match wanted.name {
            Some(name) => {
                let id = cluster.state.topic(&name).map(|topic| topic.id);
                (Some(name.to_string()), id.unwrap_or_default())
            }
            None => {
                let name = cluster.state.name_of(wanted.topic_id).map(str::to_owned);
                (name, wanted.topic_id)
            }
        };
        let deleted = match &name {
            Some(name) => cluster.delete_topic(name),
            None => Err(ResponseError::UnknownTopicId),
        };
        let response = response
            .with_name(name.map(|name| text(name).into()))
            .with_error_code(deleted.err().map_or(0, |error| error.code()));
        if version >= 6 {
            response.with_topic_id(id)
        } else {
            response
        }
    });
    let responses = responses.collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

/// Adds partitions to topics.
pub(super) fn create_partitions(
    context: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut cluster = context.shared.lock();
    let results = request.topics.into_iter().map(|wanted| {
        let grown = if request.validate_only {
            Ok(())
        } else {
            cluster.state.grow_topic(&wanted.name, wanted.count)
        };
        CreatePartitionsTopicResult::default()
            .with_name(wanted.name)
            .with_error_code(grown.err().map_or(0, |error| error.code()))
    });
    let results = results.collect();
    CreatePartitionsResponse::default().with_results(results)
}

/// The few settings that exist.
pub(super) fn describe_configs(
    context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let cluster = context.shared.lock();
    let results = request.resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let settings = match resource.resource_type {
            TOPIC => match cluster.state.topic(&resource.resource_name) {
                Some(topic) => topic_settings(topic),
                None => {
                    let error = ResponseError::UnknownTopicOrPartition;
                    return result.with_error_code(error.code());
                }
            },
            _ => vec![(
                "auto.create.topics.enable",
                cluster.state.config.auto_create_topics.to_string(),
            )],
        };
        let keys = resource.configuration_keys;
        let wanted = |name: &str| match &keys {
            Some(keys) => keys.iter().any(|key| &**key == name),
            None => true,
        };
        let configs = settings.into_iter().filter(|(name, _)| wanted(name));
        result.with_configs(
            configs
                .map(|(name, value)| {
                    DescribeConfigsResourceResult::default()
                        .with_name(StrBytes::from_static_str(name))
                        .with_value(Some(text(value)))
                        .with_config_source(DEFAULT_CONFIG)
                })
                .collect(),
        )
    });
    let results = results.collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn topic_settings(topic: &TopicState) -> Vec<(&'static str, String)> {
    let time = if topic.log_append_time {
        "LogAppendTime"
    } else {
        "CreateTime"
    };
    vec![
        (CLEANUP_POLICY, topic.cleanup_policy.to_string()),
        (MAX_BYTES, topic.max_message_bytes.to_string()),
        (TIMESTAMP_TYPE, time.to_owned()),
    ]
}

const CLEANUP_POLICY: &str = "cleanup.policy";
/// More than any policy that there is: no client stores more here.
const POLICY_BYTES_MAX: usize = 64;
const MAX_BYTES: &str = "max.message.bytes";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const TOPIC: i8 = 2;
const DEFAULT_CONFIG: i8 = 5;
