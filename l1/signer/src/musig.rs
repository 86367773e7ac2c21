//! MuSig2 (BIP327) over a list of messages, by libsecp256k1 (the `musig` module of the crate `secp256k1`).
//!
//! The contract's leaves hold the aggregated key as it is (`<attesters> CHECKSIG`), and the internal key of every output is a
//! point whose logarithm nobody knows: there is no key path and so no taproot tweak. Keys are aggregated in the order of
//! their compressed bytes (KeySort), so that a set of keys has one aggregate.
//!
//! The interface speaks the types of `bitcoin`, whose secp256k1 is an older version without MuSig2: keys cross by their bytes,
//! in `Attesters::in_order` and `Own::new`.

use std::cell::OnceCell;
use std::fmt;

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey, XOnlyPublicKey};
use rand::rngs::OsRng;
use rand::RngCore;
use rayon::prelude::*;
use secp256k1_musig::musig::{
    new_nonce_pair, AggregatedNonce, KeyAggCache, PartialSignature, PublicNonce, SecretNonce, Session,
    SessionSecretRand,
};
use secp256k1_musig::{rerandomize_global_context, Keypair, PublicKey as Member};
use zeroize::{Zeroize, Zeroizing};

use crate::identity::secp;
use crate::limits::PARTIES_MAX;

#[cfg(test)]
mod vectors;

/// Bytes of a public nonce.
pub const NONCE_BYTES: usize = 66;
/// Bytes of a partial signature.
pub const PARTIAL_BYTES: usize = 32;
/// Words of the stack that are overwritten after a use of secrets: 16 KiB.
const STACK_WORDS: usize = 2048;

/// Why a step of MuSig2 gives nothing. Where one party is at fault, `signer` is its index in [`Attesters::keys`].
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MusigError {
    /// Not 1 to [`PARTIES_MAX`] different keys, or keys that cancel each other out.
    #[error("{count} keys that are no set of signers")]
    Keys {
        /// Keys given.
        count: usize,
    },
    /// The secret key is of none of the signers.
    #[error("the secret key is not of these signers")]
    UnknownKey,
    /// As many nonces or partial signatures as messages are needed from each signer.
    #[error("lists of different lengths")]
    Count,
    /// Bytes that are no nonce.
    #[error("nonce {index} of signer {signer} is no pair of points")]
    Nonce {
        /// Index of the signer.
        signer: usize,
        /// Index of the message.
        index: usize,
    },
    /// A partial signature that is wrong.
    #[error("partial signature {index} of signer {signer} is wrong")]
    Partial {
        /// Index of the signer.
        signer: usize,
        /// Index of the message.
        index: usize,
    },
    /// Correct parts gave a wrong whole, or an own signature is wrong: a fault of the machine or of the library.
    #[error("signature {index} is wrong although its parts are right")]
    Whole {
        /// Index of the message.
        index: usize,
    },
}

/// The attesters of an epoch as one key.
#[derive(Clone)]
pub struct Attesters {
    context: KeyAggCache,
    keys: Vec<PublicKey>,
    /// `keys` as the library has them.
    members: Vec<Member>,
    key: XOnlyPublicKey,
}

impl fmt::Debug for Attesters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attesters({} of {})", self.key, self.keys.len())
    }
}

/// The secret that all nonces of one chunk come from. It can be taken once and not copied, and stays in one place in memory
/// until it is dropped, and so wiped: what takes it out of a session leaves nothing in the session's memory.
pub struct NonceSeed(Box<Zeroizing<[u8; 32]>>);

impl fmt::Debug for NonceSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSeed(..)")
    }
}

impl NonceSeed {
    /// Cuts fresh randomness into the seeds of `chunks` chunks.
    #[must_use]
    pub fn split(randomness: &Zeroizing<[u8; 32]>, chunks: u32) -> Vec<Self> {
        let seed = |chunk: u32| blake3::keyed_hash(randomness, &chunk.to_le_bytes()).into();
        wiping_the_stack(|| (0..chunks).map(|chunk| Self(Box::new(Zeroizing::new(seed(chunk))))).collect())
    }
}

/// A signer's own pair of keys as the library has it, in one place in memory; wiped when dropped.
struct Own(Box<Keypair>);

impl Own {
    fn new(secret: &SecretKey) -> Self {
        let pair = || {
            let bytes = Zeroizing::new(secret.secret_bytes());
            Box::new(Keypair::from_secret_bytes(*bytes).expect("the range of secret keys is the same"))
        };
        Self(wiping_the_stack(pair))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

/// Blinds this thread's context of libsecp256k1, then does `work` on secrets, then overwrites the stack below this frame.
///
/// The library wipes what it computes with, but not what is moved: a secret nonce on its way out of the function that makes
/// it, and the seed it blinds its context with again after each use.
fn wiping_the_stack<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn below<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        [0_u64; STACK_WORDS].zeroize();
    }
    thread_local!(static BLINDED: OnceCell<()> = const { OnceCell::new() });
    let blind = || {
        let mut seed = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(seed.as_mut_slice());
        rerandomize_global_context(&seed);
    };
    BLINDED.with(|blinded| *blinded.get_or_init(blind));
    let result = below(work);
    wipe();
    result
}

/// The nonces of all signers for a chunk, one list of public nonces per message, and their sums.
#[derive(Debug)]
pub struct ChunkNonces {
    of_signers: Vec<Vec<PublicNonce>>,
    sums: Vec<AggregatedNonce>,
}

impl ChunkNonces {
    /// Adds up the nonces; `of_signers` in the order of [`Attesters::keys`].
    ///
    /// # Errors
    /// `Count`; `Nonce` names whose is no pair of points.
    pub fn new(of_signers: &[Vec<[u8; NONCE_BYTES]>], messages: usize) -> Result<Self, MusigError> {
        if of_signers.is_empty() || of_signers.iter().any(|nonces| nonces.len() != messages) {
            return Err(MusigError::Count);
        }
        let read = |(signer, nonces): (usize, &Vec<[u8; NONCE_BYTES]>)| {
            let point = |(index, bytes): (usize, &[u8; NONCE_BYTES])| {
                PublicNonce::from_byte_array(bytes).map_err(|_| MusigError::Nonce { signer, index })
            };
            nonces.iter().enumerate().map(point).collect::<Result<Vec<_>, _>>()
        };
        let of_signers: Vec<_> = of_signers.par_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let sum = |index: usize| {
            AggregatedNonce::new(&of_signers.iter().map(|nonces| &nonces[index]).collect::<Vec<_>>())
        };
        let sums = (0..messages).into_par_iter().map(sum).collect();
        Ok(Self { of_signers, sums })
    }
}

impl Attesters {
    /// Aggregates the keys of all signers, in whatever order they come.
    ///
    /// # Errors
    /// `Keys` if there are none, too many or the same twice.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Result<Self, MusigError> {
        let mut keys: Vec<PublicKey> = keys.into_iter().collect();
        let count = keys.len();
        keys.sort_by_key(PublicKey::serialize);
        keys.dedup();
        if keys.len() != count || !(1..=PARTIES_MAX).contains(&count) {
            return Err(MusigError::Keys { count });
        }
        Self::in_order(keys)
    }

    /// Aggregates at least one key in the order given.
    fn in_order(keys: Vec<PublicKey>) -> Result<Self, MusigError> {
        let wrong = MusigError::Keys { count: keys.len() };
        let member = |key: &PublicKey| Member::from_byte_array_compressed(key.serialize());
        let members: Vec<_> = keys.iter().map(member).collect::<Result<_, _>>().map_err(|_| wrong)?;
        let context = KeyAggCache::new(&members.iter().collect::<Vec<_>>());
        let key = XOnlyPublicKey::from_slice(&context.agg_pk().to_byte_array()).map_err(|_| wrong)?;
        Ok(Self { context, keys, members, key })
    }

    /// The aggregated key.
    #[must_use]
    pub fn key(&self) -> XOnlyPublicKey {
        self.key
    }

    /// The signers' keys in the order of aggregation.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// NonceGen of BIP327, of a secret that is unique to the seed and the place. Only within [`wiping_the_stack`].
    fn secret_nonce(
        &self,
        seed: &NonceSeed,
        own: &Own,
        index: usize,
        message: &[u8; 32],
    ) -> (SecretNonce, PublicNonce) {
        let unique =
            Zeroizing::new(<[u8; 32]>::from(blake3::keyed_hash(&seed.0, &(index as u64).to_le_bytes())));
        new_nonce_pair(
            SessionSecretRand::assume_uniformly_random(*unique),
            Some(&self.context),
            Some(own.0.secret_key()),
            own.0.public_key(),
            Some(message),
            None,
        )
    }

    fn session(&self, message: &[u8; 32], nonces: &ChunkNonces, index: usize) -> Session {
        Session::new(&self.context, nonces.sums[index], message)
    }

    /// The public nonces of a chunk. Cost: two multiplications per message, and one to blind the next.
    #[must_use]
    pub fn nonces(
        &self,
        seed: &NonceSeed,
        secret: &SecretKey,
        messages: &[[u8; 32]],
    ) -> Vec<[u8; NONCE_BYTES]> {
        let own = Own::new(secret);
        let public = |(index, message): (usize, &[u8; 32])| {
            wiping_the_stack(|| {
                let (mut secret, public) = self.secret_nonce(seed, &own, index, message);
                secret.non_secure_erase();
                public.serialize()
            })
        };
        messages.par_iter().enumerate().map(public).collect()
    }

    /// Partial signatures of a chunk. Takes the seed: its nonces are spent, whatever comes of it.
    ///
    /// # Errors
    /// `UnknownKey`, `Count`; `Whole` if a signature does not verify against the own nonce in `nonces`.
    pub fn sign(
        &self,
        seed: NonceSeed,
        secret: &SecretKey,
        messages: &[[u8; 32]],
        nonces: &ChunkNonces,
    ) -> Result<Vec<[u8; PARTIAL_BYTES]>, MusigError> {
        if nonces.sums.len() != messages.len() || nonces.of_signers.len() != self.keys.len() {
            return Err(MusigError::Count);
        }
        let own = Own::new(secret);
        let public = own.0.public_key();
        let place = self.members.iter().position(|key| *key == public).ok_or(MusigError::UnknownKey)?;
        let partial = |(index, message): (usize, &[u8; 32])| {
            let session = self.session(message, nonces, index);
            let partial = wiping_the_stack(|| {
                let (nonce, _) = self.secret_nonce(&seed, &own, index, message);
                session.partial_sign(nonce, &own.0, &self.context)
            });
            let nonce = &nonces.of_signers[place][index];
            if session.partial_verify(&self.context, &partial, nonce, self.members[place]) {
                Ok(partial.serialize())
            } else {
                Err(MusigError::Whole { index })
            }
        };
        messages.par_iter().enumerate().map(partial).collect()
    }

    /// Verifies the partial signatures of signer `signer` for a chunk.
    ///
    /// # Errors
    /// `Partial` names a wrong one; `Count`.
    pub fn verify_partials(
        &self,
        signer: usize,
        messages: &[[u8; 32]],
        nonces: &ChunkNonces,
        partials: &[[u8; PARTIAL_BYTES]],
    ) -> Result<(), MusigError> {
        let (Some(key), Some(own)) = (self.members.get(signer), nonces.of_signers.get(signer)) else {
            return Err(MusigError::Count);
        };
        if partials.len() != messages.len() || own.len() != messages.len() {
            return Err(MusigError::Count);
        }
        let check = |(index, bytes): (usize, &[u8; PARTIAL_BYTES])| {
            let wrong = MusigError::Partial { signer, index };
            let partial = PartialSignature::from_byte_array(bytes).map_err(|_| wrong)?;
            let session = self.session(&messages[index], nonces, index);
            let right = session.partial_verify(&self.context, &partial, &own[index], *key);
            right.then_some(()).ok_or(wrong)
        };
        partials.par_iter().enumerate().try_for_each(check)
    }

    /// Full signatures of a chunk from verified partial ones, in the order of [`keys`](Self::keys); each is verified.
    ///
    /// # Errors
    /// `Count`, `Partial`, `Whole`.
    pub fn aggregate(
        &self,
        messages: &[[u8; 32]],
        nonces: &ChunkNonces,
        partials: &[Vec<[u8; PARTIAL_BYTES]>],
    ) -> Result<Vec<[u8; 64]>, MusigError> {
        let fits = partials.len() == self.keys.len() && nonces.sums.len() == messages.len();
        if !fits || partials.iter().any(|of_signer| of_signer.len() != messages.len()) {
            return Err(MusigError::Count);
        }
        let whole = |(index, message): (usize, &[u8; 32])| {
            let part = |(signer, of_signer): (usize, &Vec<[u8; PARTIAL_BYTES]>)| {
                PartialSignature::from_byte_array(&of_signer[index])
                    .map_err(|_| MusigError::Partial { signer, index })
            };
            let parts: Vec<_> = partials.iter().enumerate().map(part).collect::<Result<_, _>>()?;
            let session = self.session(message, nonces, index);
            let signature = session.partial_sig_agg(&parts.iter().collect::<Vec<_>>());
            Ok::<[u8; 64], MusigError>(signature.assume_valid().to_byte_array())
        };
        let signatures: Vec<[u8; 64]> =
            messages.par_iter().enumerate().map(whole).collect::<Result<_, MusigError>>()?;
        match self.first_wrong(messages, &signatures) {
            Some(index) => Err(MusigError::Whole { index }),
            None => Ok(signatures),
        }
    }

    /// Index of the first signature that is not one of its message; the shorter list's length if they differ in length.
    ///
    /// Checked by the libsecp256k1 of `bitcoin`, another version than the one that makes them.
    #[must_use]
    pub fn first_wrong(&self, messages: &[[u8; 32]], signatures: &[[u8; 64]]) -> Option<usize> {
        let right = |message: &[u8; 32], signature: &[u8; 64]| {
            Signature::from_slice(signature).is_ok_and(|signature| {
                secp().verify_schnorr(&signature, &Message::from_digest(*message), &self.key).is_ok()
            })
        };
        let wrong = messages
            .par_iter()
            .zip(signatures)
            .enumerate()
            .find_first(|(_, (message, signature))| !right(message, signature));
        let differ = (messages.len() != signatures.len()).then(|| messages.len().min(signatures.len()));
        wrong.map(|(index, _)| index).or(differ)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretKey {
        SecretKey::from_slice(&[byte; 32]).unwrap()
    }

    fn seed(byte: u8) -> NonceSeed {
        NonceSeed(Box::new(Zeroizing::new([byte; 32])))
    }

    fn attesters(secrets: &[SecretKey]) -> Attesters {
        Attesters::new(secrets.iter().map(|secret| PublicKey::from_secret_key(secp(), secret))).unwrap()
    }

    /// Secrets in the order of the aggregated keys.
    fn sorted(bytes: &[u8]) -> Vec<SecretKey> {
        let mut secrets: Vec<_> = bytes.iter().map(|byte| secret(*byte)).collect();
        secrets.sort_by_key(|secret| PublicKey::from_secret_key(secp(), secret).serialize());
        secrets
    }

    type Parts = (Attesters, Vec<[u8; 32]>, ChunkNonces, Vec<Vec<[u8; PARTIAL_BYTES]>>);

    fn signed(bytes: &[u8]) -> Parts {
        let secrets = sorted(bytes);
        let all = attesters(&secrets);
        let messages = vec![[1; 32], [2; 32], [3; 32]];
        let nonces: Vec<_> = secrets
            .iter()
            .zip(bytes)
            .map(|(secret, byte)| all.nonces(&seed(*byte), secret, &messages))
            .collect();
        let sums = ChunkNonces::new(&nonces, messages.len()).unwrap();
        let partials = secrets
            .iter()
            .zip(bytes)
            .map(|(secret, byte)| all.sign(seed(*byte), secret, &messages, &sums).unwrap())
            .collect();
        (all, messages, sums, partials)
    }

    #[test]
    fn signatures_of_all_hold_under_the_aggregated_key_for_their_message_only() {
        for parties in [&[5][..], &[5, 6], &[5, 6, 7, 8, 9]] {
            let (all, messages, sums, partials) = signed(parties);
            let signatures = all.aggregate(&messages, &sums, &partials).unwrap();
            assert_eq!(all.first_wrong(&messages, &signatures), None);
            let mut other = messages.clone();
            other[1][0] ^= 1;
            assert_eq!(all.first_wrong(&other, &signatures), Some(1));
            assert_eq!(all.first_wrong(&messages, &signatures[..2]), Some(2));
        }
    }

    #[test]
    fn a_wrong_partial_signature_is_held_against_its_signer() {
        let (all, messages, sums, mut partials) = signed(&[5, 6, 7]);
        for (signer, of_signer) in partials.iter().enumerate() {
            all.verify_partials(signer, &messages, &sums, of_signer).unwrap();
        }
        partials[1][2][31] ^= 1;
        let wrong = MusigError::Partial { signer: 1, index: 2 };
        assert_eq!(all.verify_partials(1, &messages, &sums, &partials[1]).unwrap_err(), wrong);
        let others = all.verify_partials(0, &messages, &sums, &partials[1]).unwrap_err();
        assert!(matches!(others, MusigError::Partial { signer: 0, .. }), "nobody else's either");
        assert_eq!(all.aggregate(&messages, &sums, &partials).unwrap_err(), MusigError::Whole { index: 2 });
        partials[1][2] = [0xff; 32];
        assert_eq!(all.verify_partials(1, &messages, &sums, &partials[1]).unwrap_err(), wrong);
    }

    #[test]
    fn the_aggregate_does_not_depend_on_the_order_and_refuses_keys_twice() {
        let key = |byte| PublicKey::from_secret_key(secp(), &secret(byte));
        let one = Attesters::new([key(5), key(6)]).unwrap();
        assert_eq!(one.key(), Attesters::new([key(6), key(5)]).unwrap().key());
        assert_ne!(one.key(), Attesters::new([key(6), key(7)]).unwrap().key());
        assert_eq!(Attesters::new([key(5), key(5)]).unwrap_err(), MusigError::Keys { count: 2 });
        assert_eq!(Attesters::new([]).unwrap_err(), MusigError::Keys { count: 0 });
    }

    #[test]
    fn nonces_differ_by_seed_message_and_place_and_bad_ones_are_named() {
        let secrets = sorted(&[5, 6]);
        let all = attesters(&secrets);
        let same = [[1; 32]; 2];
        let nonces = all.nonces(&seed(1), &secrets[0], &same);
        assert_ne!(nonces[0], nonces[1]);
        assert_ne!(nonces, all.nonces(&seed(2), &secrets[0], &same));
        assert_ne!(nonces[0], all.nonces(&seed(1), &secrets[0], &[[2; 32]])[0]);
        let mut bad = nonces.clone();
        bad[1] = [9; NONCE_BYTES];
        let refused = ChunkNonces::new(&[nonces.clone(), bad], 2).unwrap_err();
        assert_eq!(refused, MusigError::Nonce { signer: 1, index: 1 });
        let both = ChunkNonces::new(&[nonces.clone(), nonces], 2).unwrap();
        let stranger = all.sign(seed(1), &secret(77), &same, &both).unwrap_err();
        assert_eq!(stranger, MusigError::UnknownKey);
    }
}
