//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), as Kafka has them: names and passwords
//! are sent as they are, without SASLprep.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use runtime::mutex::lock;
use secret::Secret;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::error::SaslError;

/// Fewer rounds would make a stolen exchange easy to try passwords on; Kafka's own lower bound.
const ITERATIONS_MIN: u32 = 4096;
/// More rounds than any broker is configured with: a broker must not be able to keep a processor
/// busy.
const ITERATIONS_MAX: u32 = 1_000_000;

/// The hash of the mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScramHash {
    /// SCRAM-SHA-256
    Sha256,
    /// SCRAM-SHA-512
    Sha512,
}

/// What SCRAM authenticates with.
#[derive(Debug)]
pub struct ScramCredentials {
    hash: ScramHash,
    credentials: Credentials,
    /// Whether the name is a delegation token's id (KIP-48, `tokenauth=true`).
    is_delegation_token: bool,
    salted: Arc<SaltedPasswordCache>,
}

impl ScramCredentials {
    /// Takes the credentials; `is_delegation_token` is `tokenauth` of the JAAS line.
    pub fn new(hash: ScramHash, credentials: Credentials, is_delegation_token: bool) -> Self {
        Self {
            hash,
            credentials,
            is_delegation_token,
            salted: Arc::default(),
        }
    }

    pub(super) fn mechanism(&self) -> &'static str {
        self.hash.mechanism()
    }

    /// The same mechanism with a user's credentials.
    pub(super) fn for_user(&self, credentials: Credentials) -> Self {
        Self::new(self.hash, credentials, false)
    }
}

/// A salted password, of the hash's length.
type Key = Zeroizing<Vec<u8>>;

impl ScramHash {
    fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Key {
        fn of<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Key {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length is taken");
            mac.update(message);
            Zeroizing::new(mac.finalize().into_bytes().to_vec())
        }
        match self {
            Self::Sha256 => of::<Hmac<Sha256>>(key, message),
            Self::Sha512 => of::<Hmac<Sha512>>(key, message),
        }
    }

    fn digest(self, message: &[u8]) -> Key {
        Zeroizing::new(match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        })
    }

    /// `Hi` of RFC 5802: milliseconds of work.
    fn salted_password(self, password: &str, salt: &[u8], iterations: u32) -> Key {
        let password = password.as_bytes();
        match self {
            Self::Sha256 => {
                let mut key = Zeroizing::new(vec![0; 32]);
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut key);
                key
            }
            Self::Sha512 => {
                let mut key = Zeroizing::new(vec![0; 64]);
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut key);
                key
            }
        }
    }
}

/// The password as it was salted last: all connections of one user need the same.
#[derive(Default)]
struct SaltedPasswordCache(Mutex<Option<SaltedPassword>>);

struct SaltedPassword {
    salt: Vec<u8>,
    iterations: u32,
    key: Key,
}

impl std::fmt::Debug for SaltedPasswordCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl SaltedPasswordCache {
    fn get(&self, salt: &[u8], iterations: u32) -> Option<Key> {
        let cached = lock(&self.0);
        let salted = cached.as_ref()?;
        let is_the_same = salted.salt == salt && salted.iterations == iterations;
        is_the_same.then(|| salted.key.clone())
    }

    fn put(&self, salt: Vec<u8>, iterations: u32, key: Key) {
        *lock(&self.0) = Some(SaltedPassword {
            salt,
            iterations,
            key,
        });
    }
}

/// One exchange.
pub(crate) struct ScramClient {
    hash: ScramHash,
    password: Secret,
    salted: Arc<SaltedPasswordCache>,
    nonce: String,
    /// `client-first-message-bare`
    first_bare: String,
    state: ScramState,
}

enum ScramState {
    AwaitsServerFirst,
    AwaitsServerFinal { server_signature: Key },
    Done,
}

/// What a `server-first-message` has.
struct ServerFirst {
    nonce: String,
    salt: Vec<u8>,
    iterations: u32,
}

impl ScramClient {
    pub(super) fn new(scram: &ScramCredentials) -> Self {
        let mut random = [0; 24];
        getrandom::fill(&mut random).expect("the system has random bytes");
        Self::with_nonce(scram, STANDARD.encode(random))
    }

    fn with_nonce(scram: &ScramCredentials, nonce: String) -> Self {
        let name = sasl_name(&scram.credentials.username);
        let extension = match scram.is_delegation_token {
            true => ",tokenauth=true",
            false => "",
        };
        Self {
            hash: scram.hash,
            password: scram.credentials.password.clone(),
            salted: Arc::clone(&scram.salted),
            first_bare: format!("n={name},r={nonce}{extension}"),
            nonce,
            state: ScramState::AwaitsServerFirst,
        }
    }

    pub(super) fn first_message(&self) -> Secret {
        Secret::new(format!("n,,{}", self.first_bare))
    }

    /// Salts the password off the reactor, unless the same was salted before.
    pub(super) async fn respond(&mut self, challenge: &[u8]) -> Result<Option<Secret>, SaslError> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| self.unexpected("no UTF-8"))?;
        match &self.state {
            ScramState::AwaitsServerFirst => {
                let first = self.server_first(challenge)?;
                let salted = self.salted_password(&first).await?;
                Ok(Some(self.final_message(challenge, &first.nonce, &salted)))
            }
            ScramState::AwaitsServerFinal { server_signature } => {
                self.verify(challenge, server_signature)?;
                self.state = ScramState::Done;
                Ok(None)
            }
            ScramState::Done => Err(self.unexpected("nothing was due")),
        }
    }

    fn server_first(&self, message: &str) -> Result<ServerFirst, SaslError> {
        if let Some(error) = message.strip_prefix("e=") {
            return Err(SaslError::Refused(error.to_owned()));
        }
        let mut fields = message.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
        let (nonce, salt, iterations) = match (field("r="), field("s="), field("i=")) {
            (Some(nonce), Some(salt), Some(iterations)) => (nonce, salt, iterations),
            _ => return Err(self.unexpected("a field is missing")),
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(self.unexpected("its nonce does not begin with ours"));
        }
        let salt = STANDARD.decode(salt);
        let salt = salt.map_err(|_| self.unexpected("its salt is no base64"))?;
        let iterations = iterations.parse().ok();
        let within = |count: &u32| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(count);
        let iterations = iterations
            .filter(within)
            .ok_or_else(|| self.unexpected("its number of iterations is not 4096 to 1000000"))?;
        Ok(ServerFirst {
            nonce: nonce.to_owned(),
            salt,
            iterations,
        })
    }

    async fn salted_password(&self, first: &ServerFirst) -> Result<Key, SaslError> {
        let (salt, iterations) = (first.salt.clone(), first.iterations);
        if let Some(salted) = self.salted.get(&salt, iterations) {
            return Ok(salted);
        }
        let (hash, password, cache) = (self.hash, self.password.clone(), Arc::clone(&self.salted));
        let salting = tokio::task::spawn_blocking(move || {
            let key = hash.salted_password(password.reveal(), &salt, iterations);
            cache.put(salt, iterations, key.clone());
            key
        });
        salting
            .await
            .map_err(|_| SaslError::Refused("the client is stopping".to_owned()))
    }

    /// `client-final-message`, after which the server's signature is due.
    fn final_message(&mut self, server_first: &str, nonce: &str, salted: &[u8]) -> Secret {
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare);
        let hash = self.hash;
        let client_key = hash.hmac(salted, b"Client Key");
        let signature = hash.hmac(&hash.digest(&client_key), message.as_bytes());
        let proof: Key = Zeroizing::new(
            client_key
                .iter()
                .zip(signature.iter())
                .map(|(key, signature)| key ^ signature)
                .collect(),
        );
        let server_key = hash.hmac(salted, b"Server Key");
        self.state = ScramState::AwaitsServerFinal {
            server_signature: hash.hmac(&server_key, message.as_bytes()),
        };
        Secret::new(format!("{without_proof},p={}", STANDARD.encode(&*proof)))
    }

    /// Whether the broker knows the password as well.
    fn verify(&self, message: &str, expected: &[u8]) -> Result<(), SaslError> {
        if let Some(error) = message.strip_prefix("e=") {
            return Err(SaslError::Refused(error.to_owned()));
        }
        let signature = message
            .strip_prefix("v=")
            .and_then(|text| text.split(',').next());
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        match signature {
            Some(signature) if bool::from(signature.ct_eq(expected)) => Ok(()),
            _ => Err(self.unexpected("its signature is wrong: it does not know the password")),
        }
    }

    #[cold]
    fn unexpected(&self, reason: &'static str) -> SaslError {
        SaslError::UnexpectedChallenge {
            mechanism: self.hash.mechanism(),
            reason,
        }
    }
}

/// `saslname` of RFC 5802.
fn sasl_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scram(hash: ScramHash, name: &str, password: &str) -> ScramCredentials {
        let credentials = Credentials {
            username: name.to_owned(),
            password: Secret::new(password),
        };
        ScramCredentials::new(hash, credentials, false)
    }

    /// The example of RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn client() -> ScramClient {
        let scram = scram(ScramHash::Sha256, "user", "pencil");
        ScramClient::with_nonce(&scram, NONCE.to_owned())
    }

    #[tokio::test]
    async fn the_example_of_the_rfc_is_said_word_for_word() {
        let mut client = client();
        let first = client.first_message();
        assert_eq!(first.reveal(), format!("n,,n=user,r={NONCE}"));
        let last = client
            .respond(SERVER_FIRST.as_bytes())
            .await
            .expect("it goes on");
        assert_eq!(
            last.expect("a message").reveal(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(client.respond(SERVER_FINAL.as_bytes()).await, Ok(None));
        assert!(client.respond(SERVER_FINAL.as_bytes()).await.is_err());
    }

    #[tokio::test]
    async fn a_broker_that_does_not_know_the_password_is_found_out() {
        for last in ["v=AAAA", "v=", "", "x", "e=invalid-proof"] {
            let mut client = client();
            client
                .respond(SERVER_FIRST.as_bytes())
                .await
                .expect("it goes on");
            assert!(client.respond(last.as_bytes()).await.is_err(), "{last}");
        }
    }

    #[tokio::test]
    async fn a_first_message_that_is_not_of_this_exchange_is_refused() {
        for first in [
            "",
            "e=unknown-user",
            "r=other,s=W22Z,i=4096",
            &format!("r={NONCE},s=W22Z,i=4096"),
            &format!("r={NONCE}x,s=!,i=4096"),
            &format!("r={NONCE}x,s=W22Z,i=4095"),
            &format!("r={NONCE}x,s=W22Z,i=1000001"),
            &format!("r={NONCE}x,s=W22Z"),
        ] {
            assert!(client().respond(first.as_bytes()).await.is_err(), "{first}");
        }
    }

    #[tokio::test]
    async fn a_password_is_salted_once_for_all_exchanges() {
        let scram = scram(ScramHash::Sha512, "user", "pencil");
        for nonce in ["a", "b"] {
            let mut client = ScramClient::with_nonce(&scram, nonce.to_owned());
            let first = format!("r={nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
            client.respond(first.as_bytes()).await.expect("it goes on");
            // What is cached decides from now on.
            let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
            let key = scram.salted.get(&salt, 4096).expect("it is kept");
            assert_eq!(
                *key,
                *ScramHash::Sha512.salted_password("pencil", &salt, 4096)
            );
            assert!(scram.salted.get(&salt, 4097).is_none());
        }
    }

    #[test]
    fn separators_in_names_are_escaped_and_tokens_are_marked() {
        let credentials = Credentials {
            username: "a=b,c".to_owned(),
            password: Secret::new("x"),
        };
        let scram = ScramCredentials::new(ScramHash::Sha512, credentials, true);
        let client = ScramClient::with_nonce(&scram, "N".to_owned());
        let first = client.first_message();
        assert_eq!(first.reveal(), "n,,n=a=3Db=2Cc,r=N,tokenauth=true");
    }

    #[test]
    fn nothing_of_it_shows() {
        let scram = scram(ScramHash::Sha256, "user", "hunter2");
        scram
            .salted
            .put(vec![1], 4096, Zeroizing::new(b"hunter2".to_vec()));
        let shown = format!("{scram:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
