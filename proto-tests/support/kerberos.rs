//! MIT's KDC beside real Kafka, through `scripts/kafka`: see `make_kdc` there.

use std::sync::{Arc, OnceLock};

use super::kafka::{Kafka, unique};

/// What is started with a KDC; sessions last three seconds.
const SETTINGS: &[&str] = &["connections.max.reauth.ms=3000"];

impl Kafka {
    /// The cluster with a KDC that tests share.
    pub(crate) fn shared_with_kdc() -> Arc<Kafka> {
        static SHARED: OnceLock<Arc<Kafka>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Self::launch_with_kdc(SETTINGS, false))))
    }

    /// One of the test's own, whose KDC may be stopped.
    pub(crate) fn start_with_kdc() -> Kafka {
        Self::launch_with_kdc(SETTINGS, true)
    }

    /// The path of a keytab, or of krb5.conf.
    pub(crate) fn kerberos_file(&self, name: &str) -> String {
        self.kerberos_folder().join(name).display().to_string()
    }

    /// The path of another krb5.conf.
    pub(crate) fn krb5_conf(&self, edit: impl FnOnce(&str) -> String) -> String {
        let text = std::fs::read_to_string(self.kerberos_file("krb5.conf")).unwrap();
        let path = self.kerberos_file(&unique("krb5.conf"));
        std::fs::write(&path, edit(&text)).unwrap();
        path
    }

    /// How often the KDC gave that principal a TGT.
    pub(crate) fn logins_of(&self, principal: &str) -> usize {
        let log = std::fs::read_to_string(self.kerberos_file("log")).unwrap();
        let given = format!("{principal}@TEST.LOCAL for krbtgt/");
        let lines = log.lines().filter(|line| line.contains("ISSUE"));
        lines.filter(|line| line.contains(&given)).count()
    }
}
