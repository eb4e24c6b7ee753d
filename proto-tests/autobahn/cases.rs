//! Autobahn's cases: what is sent, and what must come back.
//!
//! Where Autobahn takes more than one outcome, the one of its class OK stands here; NON-STRICT is
//! never enough. 7.1.6 and 7.13 are informational: there stands what the proxy promises.

const TEXT: u8 = 0x81;
const TEXT_OPEN: u8 = 0x01;
const BINARY: u8 = 0x82;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const FIN: u8 = 0x80;

const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;

const HELLO: &[u8] = b"Hello, world!";
/// κόσμε
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// The sizes of section 9 are a sixteenth of Autobahn's, up to 1 MiB instead of 16: that is for
/// `scripts/autobahn`.
const SMALLER: usize = 16;
/// Messages there and back in 9.7 and 9.8, where Autobahn sends a thousand.
const ROUND_TRIPS: usize = 50;

/// One case.
pub(super) struct AutobahnCase {
    /// As Autobahn has it.
    pub(super) id: String,
    /// Masked frames.
    pub(super) sent: Vec<Vec<u8>>,
    /// Octets at a time, if Autobahn says so.
    pub(super) chop: Option<usize>,
    /// Frames that must come back, before the close frame.
    pub(super) answers: Vec<Vec<u8>>,
    /// The code of the close frame that must follow, and end the connection; 0 of one without.
    pub(super) close: u16,
}

/// All cases of sections 1 to 7, 9 and 10.
pub(super) fn all_cases() -> Vec<AutobahnCase> {
    let mut table = CaseTable::default();
    table.framing();
    table.pings();
    table.reserved_bits_and_opcodes();
    table.fragmentation();
    table.valid_text();
    table.invalid_text();
    table.text_sequences();
    table.closing();
    table.close_frames();
    table.large_messages();
    table.cases
}

#[derive(Default)]
struct CaseTable {
    cases: Vec<AutobahnCase>,
}

impl CaseTable {
    /// What is sent is answered by that, and by a close frame of that code.
    fn case(&mut self, id: &str, sent: &[(u8, &[u8])], answers: &[(u8, &[u8])], close: u16) {
        self.cases.push(AutobahnCase {
            id: id.to_owned(),
            sent: sent
                .iter()
                .map(|(first, payload)| masked(*first, payload))
                .collect(),
            chop: None,
            answers: answers
                .iter()
                .map(|(first, payload)| unmasked(*first, payload))
                .collect(),
            close,
        });
    }

    /// What is sent is answered by that; then the client closes.
    fn clean(&mut self, id: &str, sent: &[(u8, &[u8])], answers: &[(u8, &[u8])]) {
        let normal = NORMAL.to_be_bytes();
        let closing = [sent, &[(CLOSE, &normal[..])]].concat();
        self.case(id, &closing, answers, NORMAL);
    }

    /// A message comes back.
    fn echo(&mut self, id: &str, first: u8, payload: &[u8]) {
        self.clean(id, &[(first, payload)], &[(first, payload)]);
    }

    /// A message in fragments of so many octets comes back in one.
    fn fragmented(&mut self, id: &str, first: u8, payload: &[u8], size: usize) {
        let count = payload.len().div_ceil(size);
        let parts: Vec<_> = payload
            .chunks(size)
            .enumerate()
            .map(|(at, part)| {
                let opcode = if at == 0 { first & !FIN } else { MORE };
                (opcode | if at + 1 == count { FIN } else { 0 }, part)
            })
            .collect();
        self.clean(id, &parts, &[(first, payload)]);
    }

    /// The last case, in so many octets at a time.
    fn chopped(&mut self, octets: usize) {
        self.cases.last_mut().expect("there is one").chop = Some(octets);
    }

    fn framing(&mut self) {
        for (kind, first, octet) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
            for (number, size) in (1..).zip([0, 125, 126, 127, 128, 65535, 65536, 65536]) {
                self.echo(&format!("1.{kind}.{number}"), first, &vec![octet; size]);
            }
            self.chopped(997);
        }
    }

    fn pings(&mut self) {
        let noise = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
        self.clean("2.1", &[(PING, b"")], &[(PONG, b"")]);
        self.clean("2.2", &[(PING, HELLO)], &[(PONG, HELLO)]);
        self.clean("2.3", &[(PING, noise)], &[(PONG, noise)]);
        self.clean("2.4", &[(PING, &[0xfe; 125])], &[(PONG, &[0xfe; 125])]);
        self.case("2.5", &[(PING, &[0xfe; 126])], &[], PROTOCOL_ERROR);
        self.clean("2.6", &[(PING, &[0xfe; 125])], &[(PONG, &[0xfe; 125])]);
        self.chopped(1);
        self.clean("2.7", &[(PONG, b"")], &[]);
        self.clean("2.8", &[(PONG, b"unsolicited pong payload")], &[]);
        let pong: (u8, &[u8]) = (PONG, b"unsolicited pong payload");
        self.clean(
            "2.9",
            &[pong, (PING, b"ping payload")],
            &[(PONG, b"ping payload")],
        );
        let payloads: Vec<_> = (0..10).map(|n| format!("payload-{n}")).collect();
        let all = |first| {
            payloads
                .iter()
                .map(|p| (first, p.as_bytes()))
                .collect::<Vec<_>>()
        };
        self.clean("2.10", &all(PING), &all(PONG));
        self.clean("2.11", &all(PING), &all(PONG));
        self.chopped(1);
    }

    fn reserved_bits_and_opcodes(&mut self) {
        let hello: (u8, &[u8]) = (TEXT, HELLO);
        let ping: (u8, &[u8]) = (PING, b"");
        let noise: &[u8] = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
        self.case("3.1", &[(TEXT | 1 << 4, HELLO)], &[], PROTOCOL_ERROR);
        for bits in [2, 3, 4] {
            let bad = (TEXT | bits << 4, HELLO);
            self.case(
                &format!("3.{bits}"),
                &[hello, bad, ping],
                &[hello],
                PROTOCOL_ERROR,
            );
        }
        self.chopped(1);
        self.case("3.5", &[(BINARY | 5 << 4, noise)], &[], PROTOCOL_ERROR);
        self.case("3.6", &[(BINARY | 6 << 4, HELLO)], &[], PROTOCOL_ERROR);
        self.case("3.7", &[(CLOSE | 7 << 4, b"")], &[], PROTOCOL_ERROR);
        for (kind, opcode) in [(1, 3), (2, 11)] {
            let reserved: &[u8] = b"reserved opcode payload";
            for (number, payload) in [(1, &b""[..]), (2, reserved)] {
                let bad = (FIN | (opcode + number - 1), payload);
                self.case(&format!("4.{kind}.{number}"), &[bad], &[], PROTOCOL_ERROR);
            }
            for (number, payload) in [(3, &b""[..]), (4, HELLO), (5, HELLO)] {
                let bad = (FIN | (opcode + number - 1), payload);
                let id = format!("4.{kind}.{number}");
                self.case(&id, &[hello, bad, ping], &[hello], PROTOCOL_ERROR);
            }
            self.chopped(1);
        }
    }

    fn fragmentation(&mut self) {
        let (one, two): (&[u8], &[u8]) = (b"fragment1", b"fragment2");
        self.case(
            "5.1",
            &[(PING & !FIN, one), (LAST, two)],
            &[],
            PROTOCOL_ERROR,
        );
        self.case(
            "5.2",
            &[(PONG & !FIN, one), (LAST, two)],
            &[],
            PROTOCOL_ERROR,
        );
        let message: (u8, &[u8]) = (TEXT, b"fragment1fragment2");
        let ping: (u8, &[u8]) = (PING, b"ping payload");
        let pong: (u8, &[u8]) = (PONG, b"ping payload");
        for number in [3, 4, 5] {
            let sent = [(TEXT_OPEN, one), (LAST, two)];
            self.clean(&format!("5.{number}"), &sent, &[message]);
        }
        self.chopped(1);
        for number in [6, 7, 8] {
            let sent = [(TEXT_OPEN, one), ping, (LAST, two)];
            self.clean(&format!("5.{number}"), &sent, &[pong, message]);
        }
        self.chopped(1);
        for (first, numbers) in [(LAST, [9, 10, 11]), (MORE, [12, 13, 14])] {
            for number in numbers {
                let sent = [(first, &b"non-continuation payload"[..]), (TEXT, HELLO)];
                self.case(&format!("5.{number}"), &sent, &[], PROTOCOL_ERROR);
            }
            self.chopped(1);
        }
        let sent = [
            (TEXT_OPEN, one),
            (LAST, two),
            (MORE, b"fragment3"),
            (TEXT, b"fragment4"),
        ];
        self.case("5.15", &sent, &[message], PROTOCOL_ERROR);
        for (id, first) in [("5.16", MORE), ("5.17", LAST)] {
            let once = [(first, one), (TEXT_OPEN, two), (LAST, b"fragment3")];
            self.case(id, &[once, once].concat(), &[], PROTOCOL_ERROR);
        }
        self.case(
            "5.18",
            &[(TEXT_OPEN, one), (TEXT, two)],
            &[],
            PROTOCOL_ERROR,
        );
        for id in ["5.19", "5.20"] {
            let sent: [(u8, &[u8]); 7] = [
                (TEXT_OPEN, one),
                (MORE, two),
                (PING, b"pongme 1!"),
                (MORE, b"fragment3"),
                (MORE, b"fragment4"),
                (PING, b"pongme 2!"),
                (LAST, b"fragment5"),
            ];
            let whole = b"fragment1fragment2fragment3fragment4fragment5";
            self.clean(
                id,
                &sent,
                &[(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, whole)],
            );
        }
    }

    fn valid_text(&mut self) {
        self.echo("6.1.1", TEXT, b"");
        let empty: [(u8, &[u8]); 3] = [(TEXT_OPEN, b""), (MORE, b""), (LAST, b"")];
        self.clean("6.1.2", &empty, &[(TEXT, b"")]);
        let middle: &[u8] = b"middle frame payload";
        let sent = [(TEXT_OPEN, &b""[..]), (MORE, middle), (LAST, b"")];
        self.clean("6.1.3", &sent, &[(TEXT, middle)]);
        let text = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
        self.echo("6.2.1", TEXT, text);
        let (a, b) = text.split_at("Hello-µ@ßöä".len());
        self.clean("6.2.2", &[(TEXT_OPEN, a), (LAST, b)], &[(TEXT, text)]);
        self.fragmented("6.2.3", TEXT, text, 1);
        self.fragmented("6.2.4", TEXT, KOSME, 1);
    }

    /// The connection must fail at the octet that makes the text invalid: nothing is sent after it.
    fn invalid_text(&mut self) {
        let bad = [KOSME, b"\xed\xa0\x80edited"].concat();
        self.case("6.3.1", &[(TEXT, &bad)], &[], INVALID_PAYLOAD);
        self.fragmented("6.3.2", TEXT, &bad, 1);
        let case = self.cases.last_mut().expect("there is one");
        (case.answers, case.close) = (Vec::new(), INVALID_PAYLOAD);
        let too_high = [KOSME, b"\xf4\x90\x80\x80edited"].concat();
        for (id, from, to) in [("6.4.1", 11, 15), ("6.4.2", 12, 13)] {
            let sent = [(TEXT_OPEN, &too_high[..from]), (MORE, &too_high[from..to])];
            self.case(id, &sent, &[], INVALID_PAYLOAD);
        }
        for (id, to) in [("6.4.3", 15), ("6.4.4", 13)] {
            self.case(id, &[(TEXT, &too_high)], &[], INVALID_PAYLOAD);
            let frame = &mut self.cases.last_mut().expect("there is one").sent[0];
            frame.truncate(frame.len() - too_high.len() + to);
        }
    }

    /// 6.5 to 6.23: Kuhn's stress test.
    fn text_sequences(&mut self) {
        for (section, sequences) in (5..).zip(sequences()) {
            for (number, text) in (1..).zip(sequences) {
                let id = format!("6.{section}.{number}");
                match std::str::from_utf8(&text) {
                    Ok(_) => self.echo(&id, TEXT, &text),
                    // What is incomplete only shows at the end.
                    Err(_) => self.case(&id, &[(TEXT, &text)], &[], INVALID_PAYLOAD),
                }
            }
        }
    }

    fn closing(&mut self) {
        let close: (u8, &[u8]) = (CLOSE, &NORMAL.to_be_bytes());
        let hello: (u8, &[u8]) = (TEXT, b"Hello World!");
        self.clean("7.1.1", &[hello], &[hello]);
        self.case("7.1.2", &[close, (CLOSE, b"")], &[], NORMAL);
        self.case("7.1.3", &[close, (PING, b"")], &[], NORMAL);
        self.case("7.1.4", &[close, hello], &[], NORMAL);
        self.case(
            "7.1.5",
            &[(TEXT_OPEN, b"fragment1"), close, (LAST, b"fragment2")],
            &[],
            NORMAL,
        );
        let large = repeated(256 << 10);
        let sent = [(TEXT, &large[..]), hello, close, (PING, b"")];
        self.case("7.1.6", &sent, &[(TEXT, &large), hello], NORMAL);
    }

    fn close_frames(&mut self) {
        let closing = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
        self.case("7.3.1", &[(CLOSE, b"")], &[], 0);
        self.case("7.3.2", &[(CLOSE, b"a")], &[], PROTOCOL_ERROR);
        self.case("7.3.3", &[(CLOSE, &closing(NORMAL, b""))], &[], NORMAL);
        self.case(
            "7.3.4",
            &[(CLOSE, &closing(NORMAL, b"Hello World!"))],
            &[],
            NORMAL,
        );
        self.case(
            "7.3.5",
            &[(CLOSE, &closing(NORMAL, &[b'*'; 123]))],
            &[],
            NORMAL,
        );
        self.case(
            "7.3.6",
            &[(CLOSE, &closing(NORMAL, &[b'*'; 124]))],
            &[],
            PROTOCOL_ERROR,
        );
        let bad = [KOSME, b"\xed\xa0\x80edited"].concat();
        self.case(
            "7.5.1",
            &[(CLOSE, &closing(NORMAL, &bad))],
            &[],
            INVALID_PAYLOAD,
        );
        let valid = [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
        ];
        for (number, code) in (1..).zip(valid) {
            self.case(
                &format!("7.7.{number}"),
                &[(CLOSE, &closing(code, b""))],
                &[],
                code,
            );
        }
        let invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
        for (number, code) in (1..).zip(invalid) {
            let sent = closing(code, b"");
            self.case(
                &format!("7.9.{number}"),
                &[(CLOSE, &sent)],
                &[],
                PROTOCOL_ERROR,
            );
        }
        for (number, code) in [(1, 5000), (2, 65535)] {
            let sent = closing(code, b"");
            self.case(
                &format!("7.13.{number}"),
                &[(CLOSE, &sent)],
                &[],
                PROTOCOL_ERROR,
            );
        }
    }

    fn large_messages(&mut self) {
        let kinds = [(TEXT, repeated(1 << 20)), (BINARY, vec![0xfe; 1 << 20])];
        for (kind, (first, bytes)) in (1..).zip(&kinds) {
            for (number, kib) in (1..).zip([64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10]) {
                let payload = &bytes[..(kib << 10) / SMALLER];
                self.echo(&format!("9.{kind}.{number}"), *first, payload);
            }
        }
        for (kind, (first, bytes)) in (3..).zip(&kinds) {
            for number in 1..=9 {
                // 64, 256, 1 Ki … of 4 MiB.
                let size = 16 << (2 * number);
                let payload = &bytes[..(4 << 20) / SMALLER];
                self.fragmented(
                    &format!("9.{kind}.{number}"),
                    *first,
                    payload,
                    size / SMALLER,
                );
            }
        }
        for (kind, (first, bytes)) in (5..).zip(&kinds) {
            for (number, chop) in (1..).zip([64, 128, 256, 512, 1024, 2048]) {
                let payload = &bytes[..(1 << 20) / SMALLER];
                self.echo(&format!("9.{kind}.{number}"), *first, payload);
                self.chopped(chop);
            }
        }
        for (kind, (first, octet)) in (7..).zip([(TEXT, b'*'), (BINARY, 0xfe)]) {
            for (number, size) in (1..).zip([0, 16, 64, 256, 1024, 4096]) {
                let payload = vec![octet; size];
                let messages = vec![(first, &payload[..]); ROUND_TRIPS];
                self.clean(&format!("9.{kind}.{number}"), &messages, &messages);
            }
        }
        self.fragmented("10.1.1", TEXT, &[b'*'; 65536], 1300);
    }
}

/// Characters without their last octet.
const INCOMPLETE: [&[u8]; 10] = [
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
];

/// The texts of sections 6.5 to 6.23.
#[rustfmt::skip] // A row is a line where it can be.
fn sequences() -> Vec<Vec<Vec<u8>>> {
    let all = |texts: &[&[u8]]| texts.iter().map(|text| text.to_vec()).collect::<Vec<_>>();
    let lonely = |from: u8, to: u8| (from..to).flat_map(|byte| [byte, b' ']).collect();
    let continuations: Vec<u8> = (0x80..0xbf).collect();
    vec![
        all(&[
            b"hello\x24world", b"hello\xC2\xA2world", b"hello\xE2\x82\xACworld",
            b"hello\xF0\xA4\xAD\xA2world", KOSME,
        ]),
        (1..=KOSME.len()).map(|len| KOSME[..len].to_vec()).collect(),
        all(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        all(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
        all(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        all(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        all(&[
            b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
        ]),
        all(&[
            b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf",
            b"\x80\xbf\x80\xbf\x80", b"\x80\xbf\x80\xbf\x80\xbf", &continuations,
        ]),
        vec![
            lonely(0xc0, 0xdf), lonely(0xe0, 0xef), lonely(0xf0, 0xf7), lonely(0xf8, 0xfb),
            lonely(0xfc, 0xfd),
        ],
        all(&INCOMPLETE),
        vec![INCOMPLETE.concat()],
        all(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
        all(&[
            b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ]),
        all(&[
            b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ]),
        all(&[
            b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ]),
        all(&[
            b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80",
            b"\xed\xbe\x80", b"\xed\xbf\xbf",
        ]),
        all(&[
            b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80", b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80", b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf",
        ]),
        // The non-characters, which are valid: the last two of each plane.
        (0..=16_u32)
            .flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff])
            .map(|code| char::from_u32(code).expect("no surrogate").to_string().into_bytes())
            .collect(),
        all(&[
            b"\xef\xbf\xb9", b"\xef\xbf\xba", b"\xef\xbf\xbb", b"\xef\xbf\xbc", b"\xef\xbf\xbd",
            b"\xef\xbf\xbe", b"\xef\xbf\xbf",
        ]),
    ]
}

/// Autobahn's payload of large texts.
fn repeated(size: usize) -> Vec<u8> {
    b"BAsd7&jh23".iter().copied().cycle().take(size).collect()
}

/// A client's frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(first, 0x80, payload.len());
    frame.extend_from_slice(&key);
    frame.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// A server's frame.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, mask: u8, size: usize) -> Vec<u8> {
    let mut header = vec![first];
    match size {
        0..=125 => header.push(mask | size as u8),
        126..=0xFFFF => {
            header.push(mask | 126);
            header.extend_from_slice(&(size as u16).to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    header
}
