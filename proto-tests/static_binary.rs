//! The binary that is shipped: static, position independent, at home in an empty root.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::PATIENCE;
use crate::support::chromium::Chromium;
use crate::support::kafka::root;

/// As `scripts/test` built it, or built here.
fn binary() -> PathBuf {
    if let Some(built) = std::env::var_os("STATIC_BINARY") {
        return root().join(built);
    }
    let out = Command::new(root().join("scripts/static-build"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(out.status.success(), "scripts/static-build failed");
    root().join(String::from_utf8(out.stdout).unwrap().trim())
}

#[test]
fn the_static_binary_needs_no_interpreter_and_serves_from_an_empty_root() {
    let binary = binary();
    let elf = fs::read(&binary).unwrap();
    assert_eq!(&elf[..4], b"\x7fELF");
    let u16_at = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
    assert_eq!(u16_at(16), 3, "ET_DYN: a position independent executable");
    let (first, size, count) = (u64_at(32) as usize, u16_at(54) as usize, u16_at(56));
    for i in 0..usize::from(count) {
        let kind = &elf[first + i * size..][..4];
        assert_ne!(kind, 3_u32.to_le_bytes(), "PT_INTERP: needs an interpreter");
    }

    let empty = EmptyRoot::with(&binary);
    let port = empty.port;
    let mut http = TcpStream::connect(("127.0.0.1", port)).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    http.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("I'm healthy"), "{answer}");
}

#[tokio::test]
async fn the_console_works_from_an_empty_root() {
    let empty = EmptyRoot::with(&binary());
    let browser = Chromium::start(&[]).await;
    let link = format!("http://127.0.0.1:{}/#topic=t", empty.port);
    let page = browser.open(&link).await;
    page.until("document.querySelector('#read-state').dataset.state === 'open'")
        .await;
    page.click("#tab-produce").await;
    page.fill("#produce-topic", "t").await;
    page.fill("#produce-value", "from an empty root").await;
    page.click("#produce").await;
    page.shows("#records", "from an empty root").await;
    assert_eq!(page.complaints(), Vec::<String>::new());
}

/// A running `--dev` in a folder that has nothing else.
struct EmptyRoot {
    port: u16,
    _proxy: KilledChild,
    _folder: tempfile::TempDir,
}

impl EmptyRoot {
    fn with(binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(binary, folder.path().join("proxy")).unwrap();
        let mut proxy = KilledChild(in_root(&folder));
        let stdout = proxy.0.stdout.take().unwrap();
        // The line that says where it listens, on the port that the system chose.
        let port = BufReader::new(stdout)
            .lines()
            .map(|line| line.unwrap())
            .find_map(|line| {
                let rest = line.split("http://").nth(1)?;
                let digits = rest.split(':').nth(1)?;
                let end = digits
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(digits.len());
                digits[..end].parse::<u16>().ok()
            })
            .expect("--dev prints its address");
        Self {
            port,
            _proxy: proxy,
            _folder: folder,
        }
    }
}

/// Scripted faults and `/socket/echo` are for tests: Cargo features that no normal dependency
/// may switch on.
#[test]
fn what_is_shipped_holds_no_scripted_faults_and_no_echo() {
    let holds = |program: PathBuf, text: &str| {
        let mut grep = Command::new("grep");
        grep.args(["-aqF", text]);
        match grep.arg(&program).status().unwrap().code() {
            Some(0) => true,
            Some(1) => false,
            failed => panic!("grep in {}: {failed:?}", program.display()),
        }
    };
    // In two parts, or they would stand in the tests by standing here.
    for parts in [
        ["closed by a", "scripted fault"],
        ["no connection is left", "for an echo"],
    ] {
        let text = parts.join(" ");
        let tests = std::env::current_exe().unwrap();
        assert!(holds(tests, &text), "the text has changed: {text}");
        assert!(!holds(binary(), &text), "{text}");
    }
}

fn in_root(dir: &tempfile::TempDir) -> Child {
    // Only root may chroot; others get a user namespace in which they are root.
    let am_root = fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("\nUid:\t0\t");
    let mut command = if am_root {
        Command::new("chroot")
    } else {
        let mut unshare = Command::new("unshare");
        unshare.args(["-r", "chroot"]);
        unshare
    };
    command
        .arg(dir.path())
        .args(["/proxy", "--dev", "--port", "0", "--dev-broker-port", "0"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Ends the process when the test ends.
struct KilledChild(Child);

impl Drop for KilledChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
