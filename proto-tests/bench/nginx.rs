//! nginx, to compare with.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::tls_client;

/// One process that serves by TLS. It ends with its owner.
pub(crate) struct NginxProcess {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl NginxProcess {
    /// `None`: it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let (path, pem) = (folder.path().display(), tls_client::server_pem());
        // A single process, so that all of its processor time is seen; its own defaults of TLS,
        // but for the versions.
        let settings = format!(
            "daemon off; master_process off; pid {path}/pid; error_log stderr crit;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off;\n\
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;\n\
             scgi_temp_path {path}/scgi;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {pem};\n\
             ssl_certificate_key {pem}; ssl_protocols TLSv1.2 TLSv1.3; }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, settings).expect("disk space");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("nginx")
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["-e", "stderr", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .ok()?;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().expect("it is a child");
            assert!(ended.is_none(), "nginx ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self {
            child,
            port,
            _folder: folder,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for NginxProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
