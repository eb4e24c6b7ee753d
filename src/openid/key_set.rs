//! The keys of a provider, and which of them a token was signed with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::algorithm::JwsAlgorithm;
use crate::compact_jws::SignedText;
use crate::error::JwtFault;
use crate::json_web_key::JsonWebKey;
use crate::public_key::PublicKey;

/// A key of the provider. A token that it has verified is good while the provider has it.
#[derive(Debug)]
pub struct ProviderKey {
    key: JsonWebKey,
    /// `None`: it cannot be used here.
    public: Option<PublicKey>,
    is_withdrawn: AtomicBool,
}

impl ProviderKey {
    fn new(key: JsonWebKey) -> Self {
        Self {
            public: key.public_key(),
            key,
            is_withdrawn: AtomicBool::new(false),
        }
    }

    /// Whether the provider does not have it any more, or could not be asked for too long.
    pub fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::Acquire)
    }

    /// Whether the text was signed with it.
    pub(crate) fn verifies(&self, algorithm: JwsAlgorithm, signed: &SignedText<'_>) -> bool {
        let public = self.public.as_ref();
        public.is_some_and(|public| public.verifies(algorithm, signed))
    }

    /// Why it does not do for that algorithm; `None`: it does.
    fn unfit(&self, algorithm: JwsAlgorithm) -> Option<JwtFault> {
        let Some(public) = &self.public else {
            return Some(JwtFault::UnusableKey);
        };
        let fits = self.key.allows(algorithm) && public.is_for(algorithm);
        (!fits).then_some(JwtFault::UnfitKey)
    }

    fn withdraw(&self) {
        self.is_withdrawn.store(true, Ordering::Release);
    }
}

/// Which keys a token may be signed with.
#[derive(Debug)]
pub(crate) enum KeyMatch {
    /// Any of these, most likely one.
    Keys(Vec<Arc<ProviderKey>>),
    /// None that is known; the provider may have got new ones.
    Unknown,
    /// None, whatever the provider has got meanwhile.
    Fault(JwtFault),
}

/// What a provider has published.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<Arc<ProviderKey>>);

impl KeySet {
    /// Holds these keys from now on: those that it has already stay what they are, and those that are
    /// not among them are withdrawn. Whether there are such.
    pub(crate) fn replace(&mut self, keys: Vec<JsonWebKey>) -> bool {
        let former = std::mem::take(&mut self.0);
        let known = |key: &JsonWebKey| former.iter().find(|known| known.key == *key).cloned();
        self.0 = keys
            .into_iter()
            .map(|key| known(&key).unwrap_or_else(|| Arc::new(ProviderKey::new(key))))
            .collect();
        let is_here = |key: &Arc<ProviderKey>| self.0.iter().any(|here| Arc::ptr_eq(here, key));
        let gone: Vec<_> = former.iter().filter(|key| !is_here(key)).collect();
        gone.iter().for_each(|key| key.withdraw());
        !gone.is_empty()
    }

    /// Withdraws all. Whether there were any.
    pub(crate) fn clear(&mut self) -> bool {
        self.replace(Vec::new())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys for a token of that `kid` and algorithm.
    pub(crate) fn find(&self, key_id: Option<&str>, algorithm: JwsAlgorithm) -> KeyMatch {
        let Some(key_id) = key_id else {
            return self.only(algorithm);
        };
        let is_named = |key: &&Arc<ProviderKey>| key.key.kid.as_deref() == Some(key_id);
        let (mut fitting, mut fault) = (Vec::new(), None);
        for key in self.0.iter().filter(is_named) {
            match key.unfit(algorithm) {
                None => fitting.push(Arc::clone(key)),
                reason => fault = reason,
            }
        }
        match fault {
            _ if !fitting.is_empty() => KeyMatch::Keys(fitting),
            Some(fault) => KeyMatch::Fault(fault),
            None => KeyMatch::Unknown,
        }
    }

    /// The only one that fits, for a token that says no `kid`.
    fn only(&self, algorithm: JwsAlgorithm) -> KeyMatch {
        let mut fitting = self.0.iter().filter(|key| key.unfit(algorithm).is_none());
        match (fitting.next(), fitting.next()) {
            (None, _) => KeyMatch::Unknown,
            (Some(only), None) => KeyMatch::Keys(vec![Arc::clone(only)]),
            (Some(_), Some(_)) => KeyMatch::Fault(JwtFault::NoKeyId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_web_key::read_key_set;

    const ED25519: &str =
        r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    const P256: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn keys(keys: &[(&str, &str)]) -> Vec<JsonWebKey> {
        let keys = keys.iter().map(|(key, more)| format!("{{{key}{more}}}"));
        let keys: Vec<_> = keys.collect();
        let text = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        read_key_set(text.as_bytes()).expect("a key set")
    }

    fn set(of: &[(&str, &str)]) -> KeySet {
        let mut set = KeySet::default();
        set.replace(keys(of));
        set
    }

    /// How many keys there are for it, or why there is none.
    fn find(
        set: &KeySet,
        kid: Option<&str>,
        algorithm: JwsAlgorithm,
    ) -> Result<usize, Option<JwtFault>> {
        match set.find(kid, algorithm) {
            KeyMatch::Keys(keys) => Ok(keys.len()),
            KeyMatch::Unknown => Err(None),
            KeyMatch::Fault(fault) => Err(Some(fault)),
        }
    }

    #[test]
    fn a_kid_names_a_key_which_must_fit() {
        use JwsAlgorithm::{EdDsa, Es256, Es384, Rs256};
        let set = set(&[
            (ED25519, r#","kid":"a""#),
            (ED25519, r#","kid":"encrypts","use":"enc""#),
            (P256, r#","kid":"b","alg":"ES256""#),
            (P256, r#","kid":"b","use":"enc""#),
            (P256, r#","kid":"other","alg":"ECDH-ES""#),
            (r#""kty":"RSA","n":"AQAB","e":"AQAB""#, r#","kid":"short""#),
            (P256, ""),
        ]);
        for (kid, algorithm, expected) in [
            ("a", EdDsa, Ok(1)),
            ("a", Es256, Err(Some(JwtFault::UnfitKey))),
            ("encrypts", EdDsa, Err(Some(JwtFault::UnfitKey))),
            ("b", Es256, Ok(1)),
            ("b", Es384, Err(Some(JwtFault::UnfitKey))),
            ("other", Es256, Err(Some(JwtFault::UnfitKey))),
            ("short", Rs256, Err(Some(JwtFault::UnusableKey))),
            ("", Es256, Err(None)),
            ("A", EdDsa, Err(None)),
        ] {
            assert_eq!(find(&set, Some(kid), algorithm), expected, "{kid}");
        }
    }

    #[test]
    fn without_a_kid_exactly_one_key_must_fit() {
        use JwsAlgorithm::{EdDsa, Es256, Es384};
        let set = set(&[
            (ED25519, ""),
            (P256, r#","kid":"a""#),
            (P256, r#","kid":"b""#),
            (P256, r#","use":"enc""#),
        ]);
        assert_eq!(find(&set, None, EdDsa), Ok(1));
        assert_eq!(find(&set, None, Es256), Err(Some(JwtFault::NoKeyId)));
        assert_eq!(find(&set, None, Es384), Err(None));
    }

    #[test]
    fn a_key_is_withdrawn_when_it_is_not_published_any_more_or_for_something_else() {
        let first = [(ED25519, r#","kid":"a""#), (P256, r#","kid":"b""#)];
        let mut set = set(&first);
        let (a, b) = (Arc::clone(&set.0[0]), Arc::clone(&set.0[1]));
        let reversed = [first[1], (first[0].0, r#","x5c":[],"kid":"a""#)];
        assert!(!set.replace(keys(&reversed)));
        assert!(Arc::ptr_eq(&set.0[0], &b) && Arc::ptr_eq(&set.0[1], &a));
        assert!(set.replace(keys(&[first[0], (P256, r#","kid":"b","use":"enc""#)])));
        assert!(b.is_withdrawn() && !a.is_withdrawn());
        assert!(set.clear() && a.is_withdrawn());
        assert!(!set.clear());
        assert_eq!(set.len(), 0);
    }
}
