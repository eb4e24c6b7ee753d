//! RFC 6455 as the Autobahn test suite has it: its cases by their numbers, over TCP, against
//! `/socket/echo`, which is the product's sockets without Kafka.
//!
//! `scripts/autobahn` runs the suite itself, which needs Python 2.7. Here the cases are a table
//! ([`cases`]), run with each test run; whatever the suite itself chops, and what is short, is
//! also sent frame by frame and octet by octet. Sections 12 and 13, which are
//! about compression, only the suite itself has: `compression.rs` tests that here.

mod cases;

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::proxy::Proxy;
use cases::{AutobahnCase, all_cases};

/// How many cases each section has, as Autobahn counts them.
const SECTIONS: [(&str, usize); 9] = [
    ("1", 16),
    ("2", 11),
    ("3", 7),
    ("4", 10),
    ("5", 20),
    ("6", 145),
    ("7", 37),
    ("9", 54),
    ("10", 1),
];

/// What is shorter is sent octet by octet, too.
const SHORT: usize = 500;

#[test]
fn the_table_has_every_case_of_autobahns_sections() {
    let cases = all_cases();
    let ids: BTreeSet<_> = cases.iter().map(|case| &*case.id).collect();
    assert_eq!(ids.len(), cases.len(), "a case stands twice");
    for (section, count) in SECTIONS {
        let of_section = |case: &&AutobahnCase| case.id.split('.').next() == Some(section);
        assert_eq!(cases.iter().filter(of_section).count(), count, "{section}");
    }
    assert_eq!(cases.len(), 301);
}

#[tokio::test]
async fn autobahns_cases_hold_however_the_stream_is_cut() {
    let proxy = Proxy::start().await;
    let mut runs = 0;
    for case in all_cases() {
        let size: usize = case.sent.iter().map(Vec::len).sum();
        let mut chops = vec![case.chop.unwrap_or(size)];
        if size <= SHORT {
            chops.push(1);
        }
        for chop in chops {
            run(&proxy, &case, chop).await;
            runs += 1;
        }
        if case.chop.is_none() && case.sent.len() > 1 && size <= SHORT {
            run(&proxy, &case, 0).await;
            runs += 1;
        }
    }
    println!("{runs} connections");
    proxy.stopped().await;
}

/// Runs one case, and sends `chop` octets at a time; 0 for a frame at a time.
async fn run(proxy: &Proxy, case: &AutobahnCase, chop: usize) {
    let what = format!("{}, {chop} octets at a time", case.id);
    let (mut from, mut to) = proxy.connect("/socket/echo").await.into_tcp().into_split();
    let sending = async {
        let sent = case.sent.concat();
        let pieces: Vec<&[u8]> = match chop {
            0 => case.sent.iter().map(Vec::as_slice).collect(),
            chop => sent.chunks(chop).collect(),
        };
        for piece in pieces {
            // The server may have ended the connection, as it must with much of this.
            if to.write_all(piece).await.is_err() {
                break;
            }
        }
        to
    };
    let mut received = Vec::new();
    let receiving = from.read_to_end(&mut received);
    let both = async { tokio::join!(sending, receiving) };
    let (_to, read) = timeout(PATIENCE, both).await.expect(&what);
    read.unwrap_or_else(|error| panic!("{what}: {error}"));
    let answers = case.answers.concat();
    assert!(
        received.starts_with(&answers),
        "{what}: {:02x?}…",
        &received[..received.len().min(200)]
    );
    let close = &received[answers.len()..];
    assert_eq!(close_code(close), Some(case.close), "{what}: {close:02x?}");
}

/// The code of a close frame and nothing else; 0 of one without.
fn close_code(frame: &[u8]) -> Option<u16> {
    match frame {
        [0x88, 0] => Some(0),
        [0x88, len, code @ ..] if *len as usize == code.len() && *len < 126 => {
            code.first_chunk().map(|code| u16::from_be_bytes(*code))
        }
        _ => None,
    }
}
