//! Creating topics, asking for their settings, and which there are: the proxy's own, those of `--dev`
//! and tests, and those that a user may see.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep};

use crate::backoff::ExponentialBackoff;
use crate::metadata::AuthorizedOperations;
use crate::net::pool::ConnectionPurpose;
use crate::{Cluster, RequestError};

/// Why an administrative request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The controller could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The principal may not do that.
    #[error("not authorized to {operation} topic {topic}")]
    NotAuthorized {
        /// The topic's name.
        topic: Arc<str>,
        /// The operation that an ACL has to allow.
        operation: &'static str,
    },
    /// It answered with another error code.
    #[error("topic {topic}: error {code}{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Rejected {
        /// The topic's name.
        topic: Arc<str>,
        /// Kafka's error code.
        code: i16,
        /// What the broker says about it.
        message: Option<Arc<str>>,
    },
}

impl AdminError {
    /// Whether the topic existed before (`TOPIC_ALREADY_EXISTS`).
    pub fn already_exists(&self) -> bool {
        self.is(ResponseError::TopicAlreadyExists)
    }

    /// Whether there are fewer brokers than replicas were asked for.
    pub fn is_invalid_replication_factor(&self) -> bool {
        self.is(ResponseError::InvalidReplicationFactor)
    }

    /// Whether the brokers do not take a setting of the topic.
    pub fn is_invalid_config(&self) -> bool {
        self.is(ResponseError::InvalidConfig)
    }

    fn is(&self, error: ResponseError) -> bool {
        matches!(self, Self::Rejected { code, .. } if *code == error.code())
    }
}

/// Creates a topic of `partitions` partitions (1 or more), each with `replication` replicas (1 or
/// more; -1 for the broker's default, which is 1 for brokers before 2.4). Tries again while the
/// controller moves, for `request.timeout.ms`.
///
/// # Errors
/// [`AdminError::NotAuthorized`] when it may not be created. [`AdminError::Rejected`] with the
/// controller's error code: that the topic exists (see [`AdminError::already_exists`]), or has an
/// invalid name.
/// [`AdminError::Request`] if the controller could not be asked, or did not answer.
pub async fn create_topic(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    replication: i16,
) -> Result<(), AdminError> {
    create_topic_with(cluster, name, partitions, replication, &[]).await
}

/// As [`create_topic`], with settings of the topic such as `cleanup.policy`.
///
/// # Errors
/// Those of [`create_topic`], and that a setting is not taken (see
/// [`AdminError::is_invalid_config`]).
pub async fn create_topic_with(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    replication: i16,
    settings: &[(&'static str, String)],
) -> Result<(), AdminError> {
    let timeout = cluster.config().request_timeout;
    let build = |version| {
        // "As configured" is known from version 4 on.
        let replication = if version < 4 {
            replication.max(1)
        } else {
            replication
        };
        let configs = settings.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replication)
            .with_configs(configs.collect());
        CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(millis(timeout))
    };
    retry_at_controller(cluster, || async {
        let response = call_controller(cluster, build).await?;
        for topic in response.topics {
            check_error_code(name, "CREATE", topic.error_code, topic.error_message)?;
        }
        Ok(())
    })
    .await
}

/// A setting of a topic, as it is in effect; `None` when the broker knows no such setting.
///
/// # Errors
/// [`AdminError::Rejected`] when there is no such topic, [`AdminError::NotAuthorized`] when it may not
/// be described. [`AdminError::Request`] if no broker could be asked, or none answered.
pub async fn topic_setting(
    cluster: &Cluster,
    topic: &str,
    setting: &'static str,
) -> Result<Option<String>, AdminError> {
    let timeout = cluster.config().request_timeout;
    let build = |_version| {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(StrBytes::from_string(topic.to_owned()))
            .with_configuration_keys(Some(vec![StrBytes::from_static_str(setting)]));
        DescribeConfigsRequest::default().with_resources(vec![resource])
    };
    let (_, response) = cluster.call_any(build, timeout).await?;
    for described in response.results {
        let (code, message) = (described.error_code, described.error_message);
        check_error_code(topic, "DESCRIBE_CONFIGS", code, message)?;
        for config in described.configs {
            if &*config.name == setting {
                return Ok(config.value.map(|value| value.to_string()));
            }
        }
    }
    Ok(None)
}

/// A topic as a principal sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicListing {
    /// The name, unique in the cluster.
    pub name: Box<str>,
    /// How many partitions it has.
    pub partitions: usize,
    /// What the principal may do with it.
    pub authorized_operations: AuthorizedOperations,
}

/// Every topic that the principal of `cluster` may describe, in no order, but for those that Kafka
/// calls internal (Java's `Admin.listTopics`). The response is as large as the cluster has partitions;
/// nothing of it becomes part of what is kept up to date.
///
/// # Errors
/// [`RequestError`] if no broker could be asked, or none answered.
pub async fn list_topics(cluster: &Cluster) -> Result<Vec<TopicListing>, RequestError> {
    let build = |version| {
        MetadataRequest::default()
            .with_topics(None)
            .with_allow_auto_topic_creation(false)
            .with_include_topic_authorized_operations(version >= 8)
    };
    let timeout = cluster.config().request_timeout;
    let (_, response) = cluster.call_any(build, timeout).await?;
    let topics = response.topics.into_iter().filter_map(|topic| {
        // One without partitions is about to be deleted, or not yet there.
        let is_usable = !topic.is_internal && !topic.partitions.is_empty();
        let name = topic.name.filter(|_| is_usable)?;
        Some(TopicListing {
            name: name.as_str().into(),
            partitions: topic.partitions.len(),
            authorized_operations: AuthorizedOperations::new(topic.topic_authorized_operations),
        })
    });
    Ok(topics.collect())
}

/// Tries again while the controller moves, for as long as a request may take.
async fn retry_at_controller<F>(
    cluster: &Cluster,
    attempt: impl Fn() -> F,
) -> Result<(), AdminError>
where
    F: Future<Output = Result<(), AdminError>>,
{
    let config = cluster.config();
    let deadline = Instant::now() + config.request_timeout;
    let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
    loop {
        let error = match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let retriable = error.is(ResponseError::NotController)
            || matches!(
                &error,
                AdminError::Request(RequestError::Unreachable { .. })
            );
        if !retriable || Instant::now() >= deadline {
            return Err(error);
        }
        sleep(backoff.after_failure()).await;
        // If that fails, so does the next attempt.
        let _ = cluster.metadata().refresh().await;
    }
}

async fn call_controller<A: crate::protocol::versions::Api>(
    cluster: &Cluster,
    build: impl Fn(i16) -> A,
) -> Result<A::Response, RequestError> {
    let timeout = cluster.config().request_timeout;
    let (_, response) = match cluster.metadata().snapshot().controller {
        Some(controller) => {
            cluster
                .call(controller, ConnectionPurpose::Control, build, timeout)
                .await
        }
        None => cluster.call_any(build, timeout).await,
    }?;
    Ok(response)
}

fn check_error_code(
    name: &str,
    operation: &'static str,
    code: i16,
    message: Option<StrBytes>,
) -> Result<(), AdminError> {
    let topic = name.into();
    if code == 0 {
        Ok(())
    } else if code == ResponseError::TopicAuthorizationFailed.code() {
        Err(AdminError::NotAuthorized { topic, operation })
    } else {
        let message = message.map(|message| message.as_str().into());
        Err(AdminError::Rejected {
            topic,
            code,
            message,
        })
    }
}

/// `ConfigResource.Type.TOPIC`.
const TOPIC_RESOURCE: i8 = 2;

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
