use std::fs;

use super::*;

/// The file `application.conf` in a directory with others.
fn read_files(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<FileContent, String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir_all(directory.path().join(name).parent().unwrap()).unwrap();
        fs::write(directory.path().join(name), text).unwrap();
    }
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let shown = format!("{}/", directory.path().display());
    let content = read(&directory.path().join("application.conf"), &variables);
    content.map_err(|error| error.to_string().replace(&shown, ""))
}

/// `key = value @ file:line`, a line each.
fn values(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<String> {
    let content = read_files(files, variables).unwrap();
    let line = |value: &FileValue| {
        let file = value.place.path.file_name().unwrap().to_str().unwrap();
        let FileValue { key, text, place } = value;
        format!("{key} = {text} @ {file}:{}", place.line)
    };
    content.values.iter().map(line).collect()
}

fn values_of(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    values(&[("application.conf", text)], variables)
}

fn fault_of(text: &str) -> String {
    read_files(&[("application.conf", text)], &[]).expect_err(text)
}

#[test]
fn every_way_to_write_a_key_gives_its_value_and_its_line() {
    let text = r#"
# a comment, and // another
kafka.ws.proxy {
  server.port = 1
  server { server-id : a b }
  "server" { "bind-interface" = "::1", shutdown-grace = 20 seconds }
}
kafka.ws.proxy.log.level = """warn"""
kafka { ws { proxy { kafka-client.bootstrap-hosts = ["a:1",
  "b:2"] } } }
"#;
    let expected = [
        "kafka-client.bootstrap-hosts = a:1,b:2 @ application.conf:9",
        "log.level = warn @ application.conf:8",
        "server.bind-interface = ::1 @ application.conf:6",
        "server.port = 1 @ application.conf:4",
        "server.server-id = a b @ application.conf:5",
        "server.shutdown-grace = 20 seconds @ application.conf:6",
    ];
    assert_eq!(values_of(text, &[]), expected);
}

#[test]
fn a_later_value_and_a_variable_that_is_set_override() {
    let text = "kafka.ws.proxy.server {\n port = 1\n port = ${?PORT}\n}\n";
    assert_eq!(
        values_of(text, &[]),
        ["server.port = 1 @ application.conf:2"]
    );
    assert_eq!(
        values_of(text, &[("PORT", "2")]),
        ["server.port = 2 @ application.conf:3"]
    );
    let unset = "kafka.ws.proxy.server {\n port = ${?PORT}\n server-id = null\n}";
    assert_eq!(values_of(unset, &[]), [""; 0]);
    let empty = values_of(unset, &[("PORT", "")]);
    assert_eq!(empty, ["server.port =  @ application.conf:2"]);
}

#[test]
fn values_refer_to_others_and_are_appended_to() {
    let text = "id = x\nkafka.ws.proxy.server.server-id = node-${id}\n\
        kafka.ws.proxy.a { l = [1]\nl += 2\n}\nkafka.ws.proxy.b = ${kafka.ws.proxy.a}{ c = 3 }";
    let expected = [
        "a.l = 1,2 @ application.conf:4",
        "b.c = 3 @ application.conf:6",
        "b.l = 1,2 @ application.conf:6",
        "server.server-id = node-x @ application.conf:2",
    ];
    assert_eq!(values_of(text, &[]), expected);
}

#[test]
fn names_with_dots_are_the_same_in_quotes_and_nested() {
    for text in [
        "kafka.ws.proxy.p.\"security.protocol\" = SSL",
        "kafka.ws.proxy.p { security.protocol = SSL }",
        "kafka.ws.proxy.p { security { protocol = PLAINTEXT } }\n\
         kafka.ws.proxy.p { \"security.protocol\" = SSL }",
        "kafka.ws.proxy.p { \"security.protocol\" = PLAINTEXT }\n\
         kafka.ws.proxy.p { security { protocol = SSL } }",
    ] {
        let values = values_of(text, &[]);
        assert_eq!(values.len(), 1, "{text}: {values:?}");
        let expected = "p.security.protocol = SSL @ ";
        assert!(values[0].starts_with(expected), "{text}: {values:?}");
    }
}

#[test]
fn included_files_have_places_of_their_own() {
    let files = [
        (
            "application.conf",
            "include \"conf/server\"\ninclude \"absent.conf\"\ninclude file(\"/no/such.conf\")\n\
             kafka.ws.proxy.server.port = 2\n",
        ),
        (
            "conf/server.conf",
            "kafka.ws.proxy {\n server { port = 1\n server-id = a }\n include \"log.conf\"\n}",
        ),
        (
            "conf/log.conf",
            "# relative to this file\nname = warn\nlog.level = ${name}\nlog.format = ${outer}\n",
        ),
        (
            "conf/server.properties",
            "kafka.ws.proxy.server.server-id=b\nouter=json",
        ),
    ];
    let expected = [
        "log.format = json @ log.conf:4",
        "log.level = warn @ log.conf:3",
        "name = warn @ log.conf:2",
        "server.port = 2 @ application.conf:4",
        "server.server-id = a @ server.conf:3",
    ];
    assert_eq!(values(&files, &[]), expected);
}

#[test]
fn what_is_included_from_a_class_path_is_absent() {
    let text = "include classpath(\"application\")\n\
        kafka.ws.proxy { include required(classpath(\"x.conf\")), server.port = 1\n\
        include required( classpath( \"y.conf\" ) )\n include \"more\" }\n\
        \"include\" { a = classpath }";
    let files = [
        ("application.conf", text),
        (
            "more.conf",
            "# some\ninclude classpath(\"z\")\nserver.server-id = a",
        ),
    ];
    let content = read_files(&files, &[]).unwrap();
    let values: Vec<_> = content.values.iter().map(|value| &*value.text).collect();
    assert_eq!(values, ["1", "a"]);
    let places = content.class_path_includes.iter();
    let places: Vec<_> = places
        .map(|place| {
            let file = place.path.file_name().unwrap().to_str().unwrap();
            format!("{file}:{}", place.line)
        })
        .collect();
    let expected = [
        "application.conf:1",
        "application.conf:2",
        "application.conf:3",
        "more.conf:2",
    ];
    assert_eq!(places, expected);
    for text in [
        "include classpath(\"a\"",
        "include classpath(a)",
        "include classpath",
    ] {
        assert!(fault_of(text).starts_with("application.conf:1: "), "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_line_and_shows_no_value() {
    for (text, fault) in [
        ("a = 1\nb {\n c = 1\n", "application.conf:4: expected }"),
        ("a = \"hunter2", "application.conf:1: unterminated string"),
        ("\n\na = ${b}", "application.conf:3: "),
        ("a = hunter2+x", "application.conf:1: reserved character"),
        ("[1]", "application.conf:1: the file must hold an object"),
        ("\ninclude \"application.conf\"", "the includes do not end"),
        (
            "include required(file(\"/no/such.conf\"))",
            "application.conf:1: there is no /no/such.conf",
        ),
    ] {
        let line = fault_of(text);
        assert!(line.contains(fault), "{text}: {line}");
        assert!(!line.contains("hunter2"), "{text}: {line}");
        assert_eq!(line.lines().count(), 1, "{text}: {line}");
    }
    let in_include = read_files(
        &[
            ("application.conf", "a = 1\ninclude \"b.conf\""),
            ("b.conf", "b = 1\nc = ]\n"),
        ],
        &[],
    );
    let line = in_include.unwrap_err();
    assert!(line.starts_with("b.conf:2: "), "{line}");
    let absent = read(Path::new("/no/such.conf"), &[]).unwrap_err();
    assert!(absent.to_string().starts_with("/no/such.conf: cannot read"));
}

#[test]
fn sections_of_others_and_keys_beside_those_of_the_proxy_are_told_apart() {
    let text = "akka { a = 1, b = 2 }\npekko.x = 1\nkafka.ws.porxy.server.port = 1\n";
    let content = read_files(&[("application.conf", text)], &[]).unwrap();
    assert_eq!(content.sections, ["akka", "pekko"]);
    let strays: Vec<_> = content.strays.iter().map(|stray| &*stray.key).collect();
    assert_eq!(strays, ["kafka.ws.porxy.server.port"]);
    assert!(content.values.is_empty());
}

#[test]
fn a_reference_to_a_file_is_text_with_and_without_quotes() {
    let text =
        "kafka.ws.proxy { a = ${file:/run/x}\n b = \"p=${file:/run/y:k};\"\n c = d${file:/z} }";
    let expected = [
        "a = ${file:/run/x} @ application.conf:1",
        "b = p=${file:/run/y:k}; @ application.conf:2",
        "c = d${file:/z} @ application.conf:3",
    ];
    assert_eq!(values_of(text, &[]), expected);
}

#[test]
fn lists_and_objects_of_a_define_are_hocon_and_other_texts_are_themselves() {
    let pairs = |key: &str, text| {
        let values = parse_define(key, text)?.into_iter();
        let lines: Vec<_> = values.map(|(key, text)| format!("{key}={text}")).collect();
        Some(lines.join(" "))
    };
    for (text, expected) in [
        ("[a, \"b,c\"]", Some("k=a,b,c")),
        ("{ x = 1, y { z = [2] } }", Some("k.x=1 k.y.z=2")),
        ("\"a b\"", Some("k=a b")),
        ("[]", Some("k=")),
        ("[::1]:9092", None),
        ("x y", None),
        ("u=\"v\";", None),
        ("\"a\", b = 1", None),
    ] {
        assert_eq!(pairs("k", text).as_deref(), expected, "{text}");
    }
}
