//! Against an endpoint in this process.

use super::*;
use crate::fake::FakeTokenEndpoint;

const PROPERTIES: GrantProperties = GrantProperties {
    credentials: "the.credentials",
    scope: "the.scope",
};

fn endpoint(url: &Uri, grant: Grant, scope: Option<&str>) -> TokenEndpoint {
    let seconds = Duration::from_secs(60);
    TokenEndpoint::new(
        url.clone(),
        (grant, scope.map(str::to_owned)),
        PROPERTIES,
        &tls::trusting_nobody(),
        (seconds, seconds),
    )
}

fn secret(urlencode: bool) -> Grant {
    Grant::ClientSecret {
        id: "cl ient".to_owned(),
        secret: Secret::new("p/a:ss+word"),
        urlencode,
    }
}

async fn requested(grant: Grant, scope: Option<&str>) -> (String, String) {
    let fake = FakeTokenEndpoint::start(200, r#"{"access_token":"t","expires_in":9}"#).await;
    let answer = endpoint(&fake.url, grant, scope).fetch().await;
    let answer = answer.expect("a token");
    assert_eq!((answer.token.reveal(), answer.lifetime.as_secs()), ("t", 9));
    let requests = fake.requests();
    let [request] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert!(
        request.starts_with("POST /token?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    let (head, body) = request.split_once("\r\n\r\n").expect("a body");
    (head.to_owned(), body.to_owned())
}

fn authorization(head: &str) -> Option<String> {
    let value = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: Basic "))?;
    let decoded = STANDARD.decode(value).expect("base64");
    Some(String::from_utf8(decoded).expect("UTF-8"))
}

#[tokio::test]
async fn a_client_shows_its_secret_as_basic_credentials_encoded_where_that_is_wanted() {
    let (head, body) = requested(secret(false), Some("a b&c")).await;
    assert_eq!(authorization(&head).as_deref(), Some("cl ient:p/a:ss+word"));
    assert_eq!(body, "grant_type=client_credentials&scope=a+b%26c");
    assert!(head.contains("content-type: application/x-www-form-urlencoded"));
    let (head, body) = requested(secret(true), None).await;
    assert_eq!(
        authorization(&head).as_deref(),
        Some("cl+ient:p%2Fa%3Ass%2Bword")
    );
    assert_eq!(body, "grant_type=client_credentials");
}

#[tokio::test]
async fn an_assertion_is_read_from_its_file_for_each_request() {
    let file = std::env::temp_dir().join(format!("oauth-assertion-{}", std::process::id()));
    std::fs::write(&file, "a.b.c\n").expect("a file");
    let id = Some("me".to_owned());
    let grant = Grant::ClientAssertion {
        file: file.clone(),
        id,
    };
    let (head, body) = requested(grant, Some("s")).await;
    assert_eq!(authorization(&head), None);
    let expected = "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3A\
                    oauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=a.b.c\
                    &client_id=me&scope=s";
    assert_eq!(body, expected);
    let (_, body) = requested(Grant::JwtBearer { file: file.clone() }, None).await;
    let expected =
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c";
    assert_eq!(body, expected);
    std::fs::remove_file(&file).expect("it is there");
    let fake = FakeTokenEndpoint::start(200, "{}").await;
    let grant = Grant::JwtBearer { file };
    let fault = endpoint(&fake.url, grant, None)
        .fetch()
        .await
        .err()
        .expect("a fault");
    assert_eq!(fault.property, "sasl.oauthbearer.assertion.file");
}

#[tokio::test]
async fn a_refusal_names_the_property_to_look_at_and_never_the_secret() {
    for (body, property) in [
        (
            r#"{"error":"invalid_client","error_description":"not p/a:ss+word"}"#,
            "the.credentials",
        ),
        (r#"{"error":"invalid_scope"}"#, "the.scope"),
        ("<html>", "sasl.oauthbearer.token.endpoint.url"),
    ] {
        let fake = FakeTokenEndpoint::start(400, body).await;
        let endpoint = endpoint(&fake.url, secret(false), None);
        let fault = endpoint.fetch().await.err().expect("a fault");
        assert_eq!(fault.property, property, "{fault}");
        assert!(fault.message.contains(&fake.url.to_string()), "{fault}");
        let shown = format!("{fault} {fault:?} {endpoint:?}");
        assert!(!shown.contains("ss+word"), "{shown}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url: Uri = format!("http://{address}/token").parse().expect("a URL");
    let fault = endpoint(&url, secret(false), None)
        .fetch()
        .await
        .err()
        .expect("a fault");
    let said = format!("the token endpoint {url} cannot be reached: Connection refused");
    assert!(fault.message.starts_with(&said), "{fault}");
}
