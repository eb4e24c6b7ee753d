//! Queries of both endpoints, whole and damaged.

use fuzzing::{fuzz, within};

use super::*;

/// Names, with what they may have and what they may not.
const PARAMS: [(&str, &[&str]); 12] = [
    ("topic", &["t", "a,b", "t,", "a b", "..", "a-b_c.d"]),
    ("clientId", &["me", "", "ü", "\u{0}"]),
    ("groupId", &["g", " ", "g/1"]),
    ("keyType", &["string", "LONG", "xml", ""]),
    ("valType", &["json", "Byte_Array", "x"]),
    (
        "offsetResetStrategy",
        &["earliest", "LATEST", "none", "middle"],
    ),
    (
        "isolationLevel",
        &["read_committed", "READ_UNCOMMITTED", "x"],
    ),
    (
        "rate",
        &["0", "1", "1000000", "1000001", "-1", "99999999999999999999"],
    ),
    ("batchSize", &["0", "5", "x"]),
    ("autoCommit", &["true", "FALSE", "yes"]),
    ("errors", &["http", "close", "later"]),
    ("socketPayload", &["json", "avro", "xml"]),
];

#[test]
fn fuzz_query_parameters() {
    fuzz("query_parameters", |input| {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, values) in PARAMS {
            let expected = matches!(name, "topic" | "clientId");
            if expected && !input.one_in(20) || input.one_in(6) {
                let value = match input.below(8) {
                    0 => input.text(12),
                    1..=3 => (*input.pick(values)).to_owned(),
                    _ => values[0].to_owned(),
                };
                pairs.push((name.to_owned(), value));
            }
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.extend_pairs(&pairs).finish();
        let parsed = QueryParams::parse(&query);
        assert_eq!(parsed.0, pairs, "{query}");
        check(&query);
        let mut bytes = query.into_bytes();
        input.damage(&mut bytes);
        check(&String::from_utf8_lossy(&bytes));
    });
}

/// Either it is refused in a few words, or all that it says is allowed.
fn check(query: &str) {
    let (produce, consume) = within(64 * query.len() + (16 << 10), "a query", || {
        let params = QueryParams::parse(query);
        (params.produce_params(), params.consume_params())
    });
    let is_topic = |name: &String| super::topic(name).as_ref() == Some(name);
    match produce {
        Ok(params) => assert!(is_topic(&params.topic), "{query}"),
        Err(error) => check_error(&error, query),
    }
    match consume {
        Ok(params) => {
            assert!(
                !params.topics.is_empty() && params.topics.iter().all(is_topic),
                "{query}"
            );
            for name in [&params.client_id, &params.group_id] {
                assert!(
                    !name.is_empty() && !name.contains(char::is_control),
                    "{query}"
                );
            }
            assert!(
                params.rate.is_none_or(|n| (1..=1_000_000).contains(&n)),
                "{query}"
            );
            assert!(params.batch_size.is_none_or(|n| n <= 1_000_000), "{query}");
        }
        Err(error) => check_error(&error, query),
    }
}

fn check_error(error: &ParamError, query: &str) {
    let text = error.to_string();
    assert!(
        text.len() < 2000 && !text.contains(char::is_control),
        "{query}: {text}"
    );
}
