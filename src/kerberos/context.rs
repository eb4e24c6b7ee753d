//! The context of one connection, as SASL uses it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use kafka_client::sasl::{GssContext, GssFault, TicketFault};
use runtime::mutex::lock;
use secret::SecretBytes;

use crate::crypto::KerberosKey;
use crate::fault::{SERVICE_NAME, ticket_fault};
use crate::gss::{BegunContext, ContextSeed, EstablishedContext};
use crate::principal::KerberosPrincipal;
use crate::random::random_number;
use crate::state::TicketState;
use crate::ticket::IssuedTicket;

/// A context with the broker of a ticket.
pub(crate) struct BrokerContext {
    step: ContextStep,
    first_token: SecretBytes,
    server: KerberosPrincipal,
    ticket: Arc<IssuedTicket>,
    /// Where the ticket is from.
    state: Arc<Mutex<TicketState>>,
}

enum ContextStep {
    Begun(BegunContext),
    Established(EstablishedContext),
    /// The broker's answer was refused.
    Failed,
}

const NOT_ESTABLISHED: GssFault = GssFault::Unexpected("there is no context");

impl BrokerContext {
    pub(crate) fn begin(
        state: Arc<Mutex<TicketState>>,
        server: KerberosPrincipal,
        ticket: Arc<IssuedTicket>,
        now: SystemTime,
    ) -> Result<Self, TicketFault> {
        let seed = ContextSeed {
            subkey: KerberosKey::random(ticket.session_key.kind()),
            sequence: random_number(),
        };
        let (context, token) = BegunContext::new(&ticket, seed, now).map_err(|error| {
            ticket_fault(
                SERVICE_NAME,
                format!("no token can be made for {server}: {error}"),
            )
        })?;
        Ok(Self {
            step: ContextStep::Begun(context),
            first_token: SecretBytes::new(token),
            server,
            ticket,
            state,
        })
    }
}

impl GssContext for BrokerContext {
    fn first_token(&self) -> SecretBytes {
        self.first_token.clone()
    }

    fn establish(&mut self, token: &[u8]) -> Result<(), GssFault> {
        let step = std::mem::replace(&mut self.step, ContextStep::Failed);
        let ContextStep::Begun(context) = step else {
            return Err(NOT_ESTABLISHED);
        };
        self.step = ContextStep::Established(context.established(token)?);
        Ok(())
    }

    fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssFault> {
        match &mut self.step {
            ContextStep::Established(context) => context.unwrap(message),
            _ => Err(NOT_ESTABLISHED),
        }
    }

    fn wrap(&mut self, text: &[u8]) -> Result<SecretBytes, GssFault> {
        match &mut self.step {
            ContextStep::Established(context) => Ok(SecretBytes::new(context.wrap(text))),
            _ => Err(NOT_ESTABLISHED),
        }
    }

    fn refused(&self) {
        lock(&self.state).refused(&self.server, &self.ticket);
    }
}

impl fmt::Debug for BrokerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerContext")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
