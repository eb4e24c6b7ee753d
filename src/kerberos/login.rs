//! One login for all connections: a TGT by the keytab, a ticket for each broker, renewed before
//! they expire.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_client::backoff::{ExponentialBackoff, random_unit};
use kafka_client::sasl::{GssContext, GssContextProvider, TicketFault};
use runtime::mutex::lock;
use tokio::sync::{self, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::context::BrokerContext;
use crate::exchanges::{KdcExchanges, ServiceFault};
use crate::fault::{JAAS_CONFIG, ticket_fault};
use crate::krb5_conf::Krb5Conf;
use crate::principal::KerberosPrincipal;
use crate::state::{DueRenewal, TicketRenewal, TicketState, TicketStep};
use crate::ticket::{IssuedTicket, NewTicket};

/// Waits between attempts, when a KDC cannot be reached or refuses.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Who logs in, and how.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// `principal` of the JAAS line.
    pub principal: String,
    /// `keyTab` of the JAAS line: read again at each login.
    pub keytab: PathBuf,
    /// `sasl.kerberos.service.name`
    pub service: String,
    /// The realms and their KDCs.
    pub conf: Krb5Conf,
    /// When tickets are renewed.
    pub renewal: TicketRenewal,
}

/// A login by keytab. `Debug` shows no key.
#[derive(Debug)]
pub struct KeytabLogin {
    service: String,
    exchanges: KdcExchanges,
    /// Held by whoever asks the KDCs.
    turn: sync::Mutex<()>,
    state: Arc<Mutex<TicketState>>,
    /// Sent to when the state has changed.
    changed: watch::Sender<()>,
    /// The time of the last context, in microseconds since 1970.
    last_context: AtomicU64,
}

impl KeytabLogin {
    /// Logs in when a ticket is first needed.
    ///
    /// # Errors
    /// What of the settings cannot work: the keytab lacks the principal, or its realm has no KDC.
    pub fn new(settings: LoginSettings) -> Result<Self, TicketFault> {
        let default_realm = settings.conf.default_realm();
        let client = KerberosPrincipal::parse(&settings.principal, default_realm);
        let client = client
            .map_err(|reason| ticket_fault(JAAS_CONFIG, format!("its principal {reason}")))?;
        let backoff = ExponentialBackoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        Ok(Self {
            service: settings.service,
            exchanges: KdcExchanges::new(client, settings.keytab, settings.conf)?,
            turn: sync::Mutex::new(()),
            state: Arc::new(Mutex::new(TicketState::new(settings.renewal, backoff))),
            changed: watch::Sender::new(()),
            last_context: AtomicU64::new(0),
        })
    }

    async fn context(&self, host: &str) -> Result<Box<dyn GssContext>, TicketFault> {
        let host = host.to_ascii_lowercase();
        let realm = self.exchanges.realm_of(&host);
        let server = KerberosPrincipal::of_service(&self.service, &host, realm);
        let ticket = self.ticket(&server).await?;
        let state = Arc::clone(&self.state);
        let context = BrokerContext::begin(state, server, ticket, self.next_time())?;
        Ok(Box::new(context))
    }

    /// The time, but never the same twice.
    fn next_time(&self) -> SystemTime {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let after = |last: u64| now.max(last.saturating_add(1));
        let update = |last| Some(after(last));
        let last = self
            .last_context
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        UNIX_EPOCH + Duration::from_micros(after(last.unwrap_or(0)))
    }

    async fn ticket(&self, server: &KerberosPrincipal) -> Result<Arc<IssuedTicket>, TicketFault> {
        if let Some(answer) = self.answer(server) {
            return answer;
        }
        let _turn = self.turn.lock().await;
        // Somebody may have asked for one, or failed to get it, in between.
        match self.answer(server) {
            Some(answer) => answer,
            None => self.ask(server, false).await,
        }
    }

    /// What can be said without asking a KDC.
    fn answer(&self, server: &KerberosPrincipal) -> Option<Result<Arc<IssuedTicket>, TicketFault>> {
        match lock(&self.state).step(server, Instant::now()) {
            TicketStep::Use(ticket) => Some(Ok(ticket)),
            TicketStep::Fail(fault) => Some(Err(fault)),
            TicketStep::Ask => None,
        }
    }

    /// Asks for a ticket, and for a TGT if there is none. To be called with the turn held.
    async fn ask(
        &self,
        server: &KerberosPrincipal,
        is_renewed: bool,
    ) -> Result<Arc<IssuedTicket>, TicketFault> {
        let asked = match self.ask_once(server).await {
            // The KDC has another key since, for example.
            Err(ServiceFault::Tgt(_)) => {
                lock(&self.state).forget_tgt();
                self.ask_once(server).await
            }
            asked => asked,
        };
        let now = Instant::now();
        let answer = match asked {
            Ok(new) => {
                debug!(%server, lifetime = ?new.lifetime, "there is a new Kerberos ticket");
                let ticket = Arc::clone(&new.ticket);
                let drawn = (now, random_unit());
                lock(&self.state).issued(server.clone(), new, is_renewed, drawn);
                Ok(ticket)
            }
            Err(ServiceFault::Any(fault)) => {
                self.note_failure(&fault, now, &DueRenewal::Ticket(server.clone()));
                Err(fault)
            }
            Err(ServiceFault::Service(fault) | ServiceFault::Tgt(fault)) => {
                lock(&self.state).renewal_refused(server, now);
                Err(fault)
            }
        };
        self.changed.send_replace(());
        answer
    }

    async fn ask_once(&self, server: &KerberosPrincipal) -> Result<NewTicket, ServiceFault> {
        let held = lock(&self.state).tgt(Instant::now());
        let tgt = match held {
            Some(tgt) => tgt,
            None => self.log_in().await.map_err(ServiceFault::Any)?,
        };
        self.exchanges.service_ticket(&tgt, server).await
    }

    /// To be called with the turn held.
    async fn log_in(&self) -> Result<Arc<IssuedTicket>, TicketFault> {
        let new = self.exchanges.log_in().await?;
        let client = self.exchanges.client();
        debug!(%client, lifetime = ?new.lifetime, "logged in to Kerberos");
        let tgt = Arc::clone(&new.ticket);
        lock(&self.state).logged_in(new, Instant::now(), random_unit());
        self.changed.send_replace(());
        Ok(tgt)
    }

    fn note_failure(&self, fault: &TicketFault, now: Instant, due: &DueRenewal) {
        let mut state = lock(&self.state);
        let is_new = state.failed(fault.clone(), now);
        // Without a ticket, whoever wants to authenticate says so.
        if let (true, Some(left)) = (is_new, state.left(due, now)) {
            let seconds = left.as_secs();
            warn!(%fault, seconds, "a Kerberos ticket cannot be renewed; it is good for that long");
        }
    }

    async fn renew_for_ever(&self) {
        let mut changes = self.changed.subscribe();
        loop {
            let due = lock(&self.state).next_renewal();
            let is_due = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as we do.
                _ = changes.changed() => continue,
                () = is_due => {}
            }
            let _turn = self.turn.lock().await;
            // Somebody may have renewed it in between.
            let due = lock(&self.state).due(Instant::now());
            match due {
                None => {}
                Some(DueRenewal::Login) => {
                    if let Err(fault) = self.log_in().await {
                        self.note_failure(&fault, Instant::now(), &DueRenewal::Login);
                    }
                }
                Some(DueRenewal::Ticket(server)) => {
                    // The state has how it went.
                    let _ = self.ask(&server, true).await;
                }
            }
        }
    }
}

impl GssContextProvider for KeytabLogin {
    fn begin<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn GssContext>, TicketFault>> {
        self.context(host).boxed()
    }

    fn keep_fresh(&self) -> BoxFuture<'_, ()> {
        self.renew_for_ever().boxed()
    }
}

#[cfg(test)]
mod tests;
