//! The settings of the program as it is started, from a file to what acts.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::program::Program;

/// A config file in a directory of its own.
struct ConfigFile {
    directory: TempDir,
}

impl ConfigFile {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("application.conf"), text).unwrap();
        Self { directory }
    }

    fn path(&self) -> String {
        let path: PathBuf = self.directory.path().join("application.conf");
        path.display().to_string()
    }
}

/// The name of the node that the log of a start tells.
async fn server_id(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let arguments = [&["--dev"], arguments].concat();
    let (_program, log) = Program::start_logged(&arguments, variables);
    let line = log.first_with("server_id=").await;
    let (_, rest) = line.split_once("server_id=").unwrap();
    rest.split_whitespace()
        .next()
        .unwrap()
        .trim_matches('"')
        .to_owned()
}

#[tokio::test]
async fn a_flag_wins_over_a_variable_that_over_the_file_and_that_over_the_default() {
    let file = ConfigFile::new("kafka.ws.proxy.server.server-id = of-file\n");
    let path = file.path();
    let by_flag = ["--config", &path];
    let variable = ("WSPROXY_SERVER_ID", "of-variable");
    assert_eq!(server_id(&[], &[]).await, "node-1");
    assert_eq!(server_id(&by_flag, &[]).await, "of-file");
    assert_eq!(
        server_id(&[], &[("WSPROXY_CONFIG", &path)]).await,
        "of-file"
    );
    assert_eq!(server_id(&by_flag, &[variable]).await, "of-variable");
    let all = [&by_flag[..], &["--server-id", "of-flag"]].concat();
    assert_eq!(server_id(&all, &[variable]).await, "of-flag");
}
