//! `sasl.kerberos.*`, and the JAAS line of `Krb5LoginModule`: who logs in to Kerberos, and how.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use kafka_client::sasl::{SaslConfig, TicketFault};
use kerberos::{KeytabLogin, Krb5Conf, LoginSettings, TicketRenewal, read_krb5_conf};

use super::jaas::{JAAS_CONFIG, JaasEntry};
use super::security_fault::SecurityFault;

const MECHANISM: &str = "sasl.mechanism";
const SERVICE_NAME: &str = "sasl.kerberos.service.name";
const LOGIN_MODULE: &str = "auth.module.Krb5LoginModule";
/// The variable that names `krb5.conf`, as for MIT's programs.
const KRB5_CONFIG: &str = "KRB5_CONFIG";

/// The properties as they were given; empty where they were not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KerberosProperties {
    pub(super) service_name: String,
    pub(super) renewal: TicketRenewal,
}

impl KerberosProperties {
    /// Reads the keytab and `krb5.conf`.
    ///
    /// # Errors
    /// The first property that cannot be followed.
    pub(super) fn resolve(&self, jaas: Option<&JaasEntry>) -> Result<SaslConfig, SecurityFault> {
        self.resolve_with(jaas, env::var(KRB5_CONFIG).ok().as_deref())
    }

    /// `krb5_config` is the variable of that name.
    fn resolve_with(
        &self,
        jaas: Option<&JaasEntry>,
        krb5_config: Option<&str>,
    ) -> Result<SaslConfig, SecurityFault> {
        let entry = jaas.ok_or_else(login_module_needed)?;
        if !entry.login_module.ends_with(LOGIN_MODULE) {
            return Err(login_module_needed());
        }
        let of_jaas = |fault: String| SecurityFault::new(JAAS_CONFIG, fault);
        let option = |name| entry.option(name).map(|value| value.reveal());
        let is_true = |name| option(name).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        if !is_true("useKeyTab") {
            return Err(of_jaas(format!(
                "only a keytab can be logged in with, not a ticket cache or a password: {KEYTAB_NEEDED}"
            )));
        }
        if option("isInitiator").is_some_and(|text| text.eq_ignore_ascii_case("false")) {
            return Err(of_jaas(
                "its option isInitiator=false is for brokers".to_owned(),
            ));
        }
        let needed = |name| {
            let value = option(name).filter(|text| !text.is_empty());
            value.ok_or_else(|| of_jaas(format!("its option {name} is needed: {KEYTAB_NEEDED}")))
        };
        let keytab = needed("keyTab")?;
        let settings = LoginSettings {
            keytab: PathBuf::from(keytab.strip_prefix("FILE:").unwrap_or(keytab)),
            principal: needed("principal")?.to_owned(),
            service: self.service_name(option("serviceName"))?,
            conf: read_conf(krb5_config)?,
            renewal: self.renewal.clone(),
        };
        let login = KeytabLogin::new(settings).map_err(|fault| property_of(&fault))?;
        Ok(SaslConfig::Gssapi(Arc::new(login)))
    }

    /// The property, or the option `serviceName` of the JAAS line; not two that differ.
    fn service_name(&self, option: Option<&str>) -> Result<String, SecurityFault> {
        match (self.service_name.as_str(), option.unwrap_or_default()) {
            ("", "") => Err(SecurityFault::new(
                SERVICE_NAME,
                "it is needed: what the brokers' principals begin with, such as kafka",
            )),
            ("", name) | (name, "") => Ok(name.to_owned()),
            (name, other) if name == other => Ok(name.to_owned()),
            (name, other) => Err(SecurityFault::new(
                SERVICE_NAME,
                format!("it is {name:?}, and {other:?} in {JAAS_CONFIG}"),
            )),
        }
    }
}

const KEYTAB_NEEDED: &str = "useKeyTab=true keyTab=\"/path\" principal=\"user@REALM\"";

fn login_module_needed() -> SecurityFault {
    SecurityFault::new(
        JAAS_CONFIG,
        format!(
            "GSSAPI, which {MECHANISM} is unless it says otherwise, needs \
             com.sun.security.{LOGIN_MODULE} required {KEYTAB_NEEDED};"
        ),
    )
}

fn read_conf(named: Option<&str>) -> Result<Krb5Conf, SecurityFault> {
    let conf = read_krb5_conf(named);
    conf.map_err(|fault| SecurityFault::new(MECHANISM, format!("GSSAPI needs krb5.conf: {fault}")))
}

/// What cannot work at the start already; of `krb5.conf` no property is.
fn property_of(fault: &TicketFault) -> SecurityFault {
    match [JAAS_CONFIG, SERVICE_NAME]
        .iter()
        .find(|name| **name == fault.place)
    {
        Some(property) => SecurityFault::new(property, &fault.message),
        None => SecurityFault::new(
            MECHANISM,
            format!("GSSAPI needs {}: {}", fault.place, fault.message),
        ),
    }
}

#[cfg(test)]
mod tests;
