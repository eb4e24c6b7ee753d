//! `GET /schemas/avro/…`: the Avro schemas of the wrapper messages.

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use warp::Filter;
use warp::filters::BoxedFilter;

use crate::codec::avro::wrapper_schema::WrapperSchema;

/// The routes.
pub(super) fn routes() -> BoxedFilter<(Response<String>,)> {
    let producer = warp::path!("schemas" / "avro" / "producer" / ..);
    let consumer = warp::path!("schemas" / "avro" / "consumer" / ..);
    let record = producer
        .and(schema_at("record", WrapperSchema::ProducerRecord))
        .or(producer.and(schema_at("result", WrapperSchema::ProducerResult)))
        .unify();
    let record = record
        .or(consumer.and(schema_at("record", WrapperSchema::ConsumerRecord)))
        .unify();
    // The original documents it under `producer`, and clients send it on `/socket/out`.
    let commit = consumer
        .and(schema_at("commit", WrapperSchema::Commit))
        .or(producer.and(schema_at("commit", WrapperSchema::Commit)))
        .unify();
    record.or(commit).unify().boxed()
}

/// The schema at that end of a path.
fn schema_at(end: &'static str, schema: WrapperSchema) -> BoxedFilter<(Response<String>,)> {
    warp::path(end)
        .and(warp::path::end())
        .and(warp::get())
        .map(move || response(schema))
        .boxed()
}

fn response(schema: WrapperSchema) -> Response<String> {
    let mut response = Response::new(schema.text().to_owned());
    let content_type = HeaderValue::from_static("application/json");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    // It changes with the version of the program at most.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}
