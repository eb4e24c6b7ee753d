//! Which settings make which source, and which are refused.

use super::*;

const HTTP: &str = "http://idp/token";

fn jaas(options: &str) -> JaasEntry {
    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule";
    JaasEntry::parse(&format!("{module} required {options};")).expect("an entry")
}

fn properties(url: &str) -> OAuthBearerProperties {
    OAuthBearerProperties {
        token_url: token_url(url).expect("a URL"),
        ..OAuthBearerProperties::default()
    }
}

fn resolve(properties: &OAuthBearerProperties, options: Option<&str>) -> Result<String, String> {
    let entry = options.map(jaas);
    let resolved = properties.resolve(entry.as_ref(), &SslProperties::default());
    match resolved {
        Ok(config) => Ok(format!("{config:?}")),
        Err(fault) => Err(format!("{}: {}", fault.property, fault.fault)),
    }
}

#[test]
fn properties_come_before_the_options_of_the_jaas_line_and_no_secret_shows() {
    let options = "clientId=old clientSecret=hunter1 scope=narrow extension_lkc=\"1\"";
    let of_jaas = resolve(&properties(HTTP), Some(options)).expect("a source");
    assert!(of_jaas.contains("\"old\""), "{of_jaas}");
    assert!(of_jaas.contains("\"narrow\""), "{of_jaas}");
    assert!(of_jaas.contains("(\"lkc\", \"1\")"), "{of_jaas}");
    let newer = OAuthBearerProperties {
        client_id: "new".to_owned(),
        client_secret: Some(Secret::new("hunter2")),
        scope: "wide".to_owned(),
        ..properties(HTTP)
    };
    for options in [Some(options), None] {
        let both = resolve(&newer, options).expect("a source");
        assert!(
            both.contains("\"new\"") && both.contains("\"wide\""),
            "{both}"
        );
        assert!(!both.contains("old") && !both.contains("hunter"), "{both}");
    }
}

#[test]
fn an_assertion_stands_for_the_secret_or_is_the_grant() {
    let assertion = OAuthBearerProperties {
        assertion_file: "/run/assertion".to_owned(),
        ..properties(HTTP)
    };
    let source = resolve(&assertion, None).expect("a source");
    assert!(source.contains("ClientAssertion"), "{source}");
    let grant = OAuthBearerProperties {
        retriever: JwtRetriever::parse(
            "org.apache.kafka.common.security.oauthbearer.JwtBearerJwtRetriever",
        )
        .expect("a class"),
        ..assertion
    };
    let source = resolve(&grant, None).expect("a source");
    assert!(source.contains("JwtBearer"), "{source}");
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let retriever = |retriever, url: &str| OAuthBearerProperties {
        retriever,
        ..properties(url)
    };
    for (properties, options, fault) in [
        (properties(HTTP), None, CLIENT_ID),
        (properties(HTTP), Some("clientId=a"), CLIENT_SECRET),
        (properties(""), None, ENDPOINT_URL),
        (
            properties(""),
            Some("clientId=a clientSecret=b"),
            ENDPOINT_URL,
        ),
        (
            properties(""),
            Some(""),
            "sasl.jaas.config: it names nobody",
        ),
        (
            properties(""),
            Some("unsecuredLoginStringClaim_sub=a unsecuredLoginExtension_auth=b"),
            "sasl.jaas.config: its option unsecuredLoginExtension_auth",
        ),
        (
            properties("file:///t"),
            Some("extension_a1=b"),
            "sasl.jaas.config: its option",
        ),
        (
            retriever(JwtRetriever::JwtBearer, HTTP),
            None,
            ASSERTION_FILE,
        ),
        (retriever(JwtRetriever::File, HTTP), None, ENDPOINT_URL),
        (
            retriever(JwtRetriever::ClientCredentials, "file:///t"),
            None,
            ENDPOINT_URL,
        ),
        (
            properties("https://idp/"),
            Some("clientId=a clientSecret=b ssl.truststore.location=\"/nowhere\""),
            "sasl.jaas.config: its option ssl.truststore.location",
        ),
        (
            properties("https://idp/"),
            Some("clientId=a clientSecret=b ssl.trust=x"),
            "sasl.jaas.config: its option ssl.trust: it is not known",
        ),
    ] {
        let said = resolve(&properties, options).expect_err(fault);
        assert!(said.starts_with(fault), "{said}");
    }
    let other = JaasEntry::parse("a.PlainLoginModule required;").expect("an entry");
    let other = self::properties(HTTP).resolve(Some(&other), &SslProperties::default());
    assert_eq!(other.err().map(|fault| fault.property), Some(JAAS_CONFIG));
}
