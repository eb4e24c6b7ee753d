//! Requests of all APIs, valid and damaged, to one broker after each other.

use bytes::BufMut;
use futures_util::FutureExt;
use fuzzing::{FuzzInput, fuzz, within};

use super::*;

/// What the answer to a request of less than a thousand bytes may take, and all that it changes,
/// but for partitions.
const ANSWER: usize = 4 << 20;
/// Partitions cost what the configuration allows: half a kilobyte each.
const PARTITIONS_MAX: usize = 1_000;

#[test]
fn fuzz_broker() {
    let served: Vec<_> = served().collect();
    fuzz("broker", |input| {
        let context = context_with(BrokerConfig {
            partitions_max: PARTITIONS_MAX,
            ..config()
        });
        let id = {
            let mut cluster = context.shared.lock();
            cluster.state.create_topic("t", Some(2), None).unwrap().id
        };
        for _ in 0..1 + input.below(8) {
            let (api, version) = *input.pick(&served);
            ask(input, &context, (api, version), id);
        }
        // Whatever came, it still serves.
        let metadata = sent(ApiKey::Metadata, 9, id);
        let answered = answer(&context, 9, metadata).now_or_never();
        assert!(answered.flatten().is_some());
    });
}

/// Sends one request, most of them damaged. What waits for something is not waited for.
fn ask(input: &mut FuzzInput, context: &RequestContext, (api, version): (ApiKey, i16), id: Uuid) {
    let mut frame = BytesMut::new();
    let header_version = api.request_header_version(version);
    RequestHeader::default()
        .encode(&mut frame, header_version)
        .unwrap();
    let mut body = body_of(&request(api, version, id), version).to_vec();
    if !input.one_in(4) {
        input.damage(&mut body);
    }
    frame.put_slice(&body);
    let Ok((_, request)) = net::decode_request(api, version, &mut frame.freeze()) else {
        return;
    };
    let what = format!("{api:?} {version}");
    let answered = within(ANSWER, &what, || {
        answer(context, version, request).now_or_never()
    });
    if let Some(Some(response)) = answered {
        reads_back(api, version, &response);
    }
}
