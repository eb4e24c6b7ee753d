//! Making and deleting topics: for `--dev`, tests and the console.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep};

use super::backoff::ExponentialBackoff;
use super::cluster::Cluster;
use super::error::RequestError;
use crate::net::pool::ConnectionPurpose;

/// Why an administrative request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The controller could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It refused.
    #[error("topic {topic}: error {code}{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused {
        /// Which topic.
        topic: Arc<str>,
        /// Kafka's error code.
        code: i16,
        /// What the broker says about it.
        message: Option<Arc<str>>,
    },
}

impl AdminError {
    /// Whether the topic to be made was there already.
    pub fn already_exists(&self) -> bool {
        self.is(ResponseError::TopicAlreadyExists)
    }

    fn is(&self, error: ResponseError) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == error.code())
    }
}

/// Makes a topic. `replication` of -1 takes the broker's default.
///
/// # Errors
/// See [`AdminError`]; [`AdminError::already_exists`] tells the harmless one.
pub async fn create_topic(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    replication: i16,
) -> Result<(), AdminError> {
    let timeout = cluster.config().request_timeout;
    let build = |version| {
        // "As configured" is known from version 4 on.
        let replication = if version < 4 {
            replication.max(1)
        } else {
            replication
        };
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replication);
        CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(millis(timeout))
    };
    at_the_controller(cluster, || async {
        let (_, response) = ask(cluster, build).await?;
        for topic in response.topics {
            refused(name, topic.error_code, topic.error_message)?;
        }
        Ok(())
    })
    .await
}

/// Deletes a topic.
///
/// # Errors
/// See [`AdminError`].
pub async fn delete_topic(cluster: &Cluster, name: &str) -> Result<(), AdminError> {
    let timeout = cluster.config().request_timeout;
    let build = |version| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(millis(timeout));
        if version < 6 {
            request.with_topic_names(vec![topic_name(name)])
        } else {
            let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
            request.with_topics(vec![topic])
        }
    };
    at_the_controller(cluster, || async {
        let (_, response) = ask(cluster, build).await?;
        for topic in response.responses {
            refused(name, topic.error_code, topic.error_message)?;
        }
        Ok(())
    })
    .await
}

/// Tries again while the controller moves, for as long as a request may take.
async fn at_the_controller<F>(cluster: &Cluster, attempt: impl Fn() -> F) -> Result<(), AdminError>
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
        // Its failure is the next attempt's to meet.
        let _ = cluster.metadata().refresh().await;
    }
}

async fn ask<A: crate::protocol::versions::Api>(
    cluster: &Cluster,
    build: impl Fn(i16) -> A,
) -> Result<(i16, A::Response), RequestError> {
    let timeout = cluster.config().request_timeout;
    match cluster.metadata().snapshot().controller {
        Some(controller) => {
            cluster
                .call(controller, ConnectionPurpose::Control, build, timeout)
                .await
        }
        None => cluster.call_any(build, timeout).await,
    }
}

fn refused(name: &str, code: i16, message: Option<StrBytes>) -> Result<(), AdminError> {
    if code == 0 {
        return Ok(());
    }
    Err(AdminError::Refused {
        topic: name.into(),
        code,
        message: message.map(|message| message.as_str().into()),
    })
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
