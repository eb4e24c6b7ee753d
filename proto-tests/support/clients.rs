//! The clients that README.md names, from `scripts/clients`, in terminals of their own.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use super::kafka::root;
use super::program::{LogLines, exit_status};

/// The folder of `scripts/clients`. Without it the test fails, and says what to install.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let found = Command::new(root().join("scripts/clients")).output();
        let found = found.unwrap();
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "{said}");
        String::from_utf8(found.stdout).unwrap().trim().into()
    })
}

/// A shell that finds their commands before any others.
pub(crate) fn shell(line: &str) -> Command {
    let mut path = OsString::new();
    for commands in ["venv/bin", "node_modules/.bin"] {
        path.push(folder().join(commands));
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).env("PATH", path);
    shell
}

/// What a command prints that ends by itself, though nobody ends its input.
pub(crate) fn output(line: &str) -> Output {
    let mut command = shell(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(input);
    output
}

/// A command in a terminal, which somebody watches and types into. It ends with its owner.
pub(crate) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: LogLines,
}

impl Terminal {
    pub(crate) fn start(line: &str, folder: &Path) -> Self {
        // script(1) gives it a terminal, so that it behaves as it does before people.
        let mut child = shell("exec script --quiet --return --command \"$LINE\" /dev/null")
            .env("LINE", line)
            .env("NO_COLOR", "1")
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = LogLines::following(child.stdout.take().unwrap());
        Self {
            keyboard: child.stdin.take().unwrap(),
            child,
            screen,
        }
    }

    /// Types a line.
    pub(crate) fn enter(&mut self, line: &str) {
        self.keyboard.write_all(line.as_bytes()).unwrap();
        self.keyboard.write_all(b"\n").unwrap();
    }

    /// Waits for a line that contains `part`.
    pub(crate) async fn shows(&self, part: &str) -> String {
        self.screen.first_with(part).await
    }

    /// The lines so far that contain `part`.
    pub(crate) fn shown(&self, part: &str) -> usize {
        self.screen.with(part).len()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) -> ExitStatus {
        exit_status(&mut self.child)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its terminal closes with it, which ends what runs there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
