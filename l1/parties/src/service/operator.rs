//! The operator as a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use assay_l1::envelope::tag;
use assay_l1::graph::contract::keys::AssertValue;
use assay_l1::graph::contract::spec::ContractSpec;
use assay_l1::graph::terms::ClaimValue;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::script::winternitz;
use assay_l1::wots::guard::{GuardError, UseGuard};
use assay_l1::wots::KeyId;
use assay_l1::{BitcoinBackend, KeyRole, OperatorSecret, Wallet};
use assay_l1_signer::policy::Policy;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::Script;
use clap::Args;

use super::args::{keys, PartyArgs};
use super::batches::{BatchDir, ProvedBatch};
use super::error::ServiceError;
use super::file::Dir;
use super::node;
use super::offers::{Known, Offers};
use super::publish::{News, Publisher};
use super::queue::{places, QueueArgs, QueueWatch};
use super::runner::{Runner, Shell, Trunk, World};
use super::stop::Stop;
use crate::contract::Contract;
use crate::event::{Effect, Event};
use crate::operator::Operator;
use crate::types::{ClaimId, Values, PREV_ROOT};

/// `assay l1 operator`: opens epochs, publishes batches, makes claims, answers challenges.
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub party: PartyArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub queue: QueueArgs,
}

/// Runs the operator until `stop`.
///
/// # Errors
/// What it cannot go on with; a node that does not answer is waited for.
pub fn run(args: &OperatorArgs, stop: &Stop) -> Result<(), ServiceError> {
    let trunk = &args.party.trunk;
    let mut service = OperatorService::open(args, trunk.node.open()?)?;
    service.0.run(stop, trunk.poll())
}

/// The operator with its files and its node, for callers with a loop of their own.
pub struct OperatorService(Runner<Operator, OperatorShell>);

impl OperatorService {
    /// Takes its directory and goes on where it was.
    ///
    /// # Errors
    /// What is wrong with the files; the node's.
    pub fn open(args: &OperatorArgs, backend: Arc<dyn BitcoinBackend>) -> Result<Self, ServiceError> {
        Ok(Self(open(args, backend)?))
    }

    /// Does everything that there is to do now. A node that does not answer is no error.
    ///
    /// # Errors
    /// What it cannot go on with.
    pub fn pass(&mut self, stop: &Stop) -> Result<(), ServiceError> {
        self.0.try_pass(stop)
    }
}

fn open(
    args: &OperatorArgs,
    backend: Arc<dyn BitcoinBackend>,
) -> Result<Runner<Operator, OperatorShell>, ServiceError> {
    let party = &args.party;
    let dir = Dir::take(&party.dir)?;
    let epochs = party.trunk.epoch_dir()?;
    let secret = load_secret(&party.secret, epochs.policies())?;
    let trunk = Trunk::load(epochs)?;
    let trunk_id = trunk.id();
    let keys = keys(&secret, &trunk_id);
    let author = secret.keypair(&trunk_id, KeyRole::Envelope);
    let publisher = Publisher::open(
        dir.file("data"),
        (Wallet::new(author), author),
        tag(&trunk_id),
        party.fee_policy(),
        backend.as_ref(),
    )?;
    let address = |script: &Script| node::address(backend.as_ref(), script);
    let wallet = wallet_script(keys.wallet.x_only_public_key().0);
    tracing::info!(
        fees = address(&wallet),
        data = address(publisher.script()),
        "the operator runs; fees and data are paid from coins at these addresses"
    );
    let shell = OperatorShell {
        operator: keys.operator.x_only_public_key().0,
        guard: UseGuard::open(&dir.file("wots.json"))?,
        secret,
        batches: BatchDir::new(&args.queue.batches),
        queue: QueueWatch::new(args.queue.queue_blocks),
        publisher,
        offers: Offers::default(),
        useless: BTreeMap::new(),
    };
    Runner::open((party, backend), (dir, trunk), keys, shell, Operator::new)
}

/// An operator's secret. One that is none by the policies, made anew by a mistyped name, would wait for ever.
fn load_secret(path: &Path, policies: &[Policy]) -> Result<OperatorSecret, ServiceError> {
    let secret = OperatorSecret::load(path)?;
    let key = |policy: &Policy| secret.public_key(&policy.trunk_id, KeyRole::Operator);
    if policies.iter().any(|policy| key(policy) == policy.operator_key) {
        return Ok(secret);
    }
    let detail = format!("the operator key of {} is that of none of the policies", path.display());
    Err(ServiceError::Argument { name: "--secret or --operator-secret", detail })
}

/// What the operator's machine asks for.
struct OperatorShell {
    secret: OperatorSecret,
    operator: XOnlyPublicKey,
    guard: UseGuard,
    batches: BatchDir,
    queue: QueueWatch,
    publisher: Publisher,
    /// The batches that were read.
    offers: Offers,
    /// Files that are none of these, and when they were written.
    useless: BTreeMap<[u8; 32], Option<SystemTime>>,
}

fn data((prev_root, on_chain): News) -> Event {
    Event::Data { prev_root, on_chain }
}

impl Shell for OperatorShell {
    fn connected(&mut self, height: u32, block: &bitcoin::Block) -> Vec<Event> {
        self.publisher.connected(height, block);
        self.offers.block();
        self.publisher.news().into_iter().map(data).collect()
    }

    fn disconnected(&mut self, height: u32) -> Vec<Event> {
        self.publisher.disconnected(height);
        self.publisher.news().into_iter().map(data).collect()
    }

    fn restarted(&mut self) {
        self.offers.forget();
        self.publisher.repeat();
    }

    fn carry_out(&mut self, world: World<'_>, effect: Effect) -> Result<Vec<Event>, ServiceError> {
        match effect {
            Effect::Publish(root) => {
                let place =
                    places(world.contract, world.view, (&self.operator, &self.offers)).get(&root).copied();
                self.publisher.want(root, place);
                Ok(Vec::new())
            }
            Effect::Later(root) => {
                self.offers.put_off(root);
                Ok(Vec::new())
            }
            Effect::Sign(claim, values) => self.sign(world.contract, claim, values),
            Effect::Assert(claim) => self.assert(world.contract, claim),
            other => {
                tracing::error!("an operator does not do this: {other:?}");
                Ok(Vec::new())
            }
        }
    }

    fn poll(&mut self, world: World<'_>) -> Result<Vec<Event>, ServiceError> {
        self.read_batches()?;
        let mut events = self.tell_batches(world.contract);
        self.queue.look(world.contract, world.view, (&self.operator, &self.offers));
        let batches = &self.batches;
        if self.publisher.lacks_places() {
            self.publisher.find_places(&places(world.contract, world.view, (&self.operator, &self.offers)));
        }
        self.publisher.drive(world.backend, world.view.tip().0, |root| batches.get(root))?;
        events.extend(self.publisher.news().into_iter().map(data));
        Ok(events)
    }
}

impl OperatorShell {
    /// Reads the files that are new.
    fn read_batches(&mut self) -> Result<(), ServiceError> {
        for root in self.batches.list()? {
            let written = self.batches.written(&root);
            if self.offers.get(&root).is_some() || self.useless.get(&root) == Some(&written) {
                continue;
            }
            // A damaged file is one that nobody finished, or somebody's mistake: the others go on.
            match self.batches.get(&root) {
                Ok(Some(ProvedBatch { verifying_key: Some(verifying_key), values, .. })) => {
                    self.useless.remove(&root);
                    self.offers.add(Known { values, verifying_key });
                    continue;
                }
                Ok(Some(_)) => tracing::error!(
                    "{} is of an earlier version and does not say under which verifying key its proof is, so it is not claimed: have \
                     this version's `assay` hand the batch over again",
                    self.batches.path(&root).display()
                ),
                Ok(None) => continue,
                Err(error) => tracing::error!("{error}"),
            }
            self.useless.insert(root, written);
        }
        Ok(())
    }

    /// Tells the machine of batches that are proved for an epoch of this operator. Others wait for one.
    fn tell_batches(&mut self, contract: &Contract) -> Vec<Event> {
        let specs: Vec<&ContractSpec> = contract
            .epochs()
            .map(|(_, epoch)| epoch.spec())
            .filter(|spec| spec.terms.operator_key == self.operator)
            .collect();
        self.offers.events(&specs)
    }

    fn sign(
        &mut self,
        contract: &Contract,
        claim: ClaimId,
        values: Values,
    ) -> Result<Vec<Event>, ServiceError> {
        let Some(spec) = self.own(contract, claim) else { return Ok(Vec::new()) };
        // A signature is for ever, a claim with other programs is taken by no chain, and one whose proof nobody can verify is challenged.
        if let Some(why) = self.unfit(spec, &values)? {
            let claim = contract.claim_name(claim);
            tracing::error!("{claim} is not signed: {why}. Mend it, and start the operator again");
            return Ok(Vec::new());
        }
        let id = |value: ClaimValue| value.key_id(spec.terms.trunk_id, spec.terms.epoch, claim.claim);
        let named = ClaimValue::ALL.into_iter().map(id).zip(values.map(|value| value.to_vec())).collect();
        Ok(match self.items(named)? {
            Some(items) => vec![Event::Signed { claim, values, items }],
            None => vec![Event::KeyUsed(claim)],
        })
    }

    /// Why a batch cannot be a claim of this epoch, whatever was known when the machine was told of it.
    fn unfit(&mut self, spec: &ContractSpec, values: &Values) -> Result<Option<String>, ServiceError> {
        let root = &values[PREV_ROOT];
        if self.offers.get(root).is_none() {
            self.read_batches()?;
        }
        Ok(match self.offers.get(root) {
            None => Some(format!("the file of batch {} is not there, or of no use", hex::encode(root))),
            Some(known) if known.values != *values => {
                Some(format!("another batch {} was handed over", hex::encode(root)))
            }
            Some(known) => (!known.fits(spec)).then(|| known.complaint()),
        })
    }

    /// Signs the assertion. The chunked verifier's steps come here; without it the values say nothing, and are zero.
    fn assert(&mut self, contract: &Contract, claim: ClaimId) -> Result<Vec<Event>, ServiceError> {
        let Some(spec) = self.own(contract, claim) else { return Ok(Vec::new()) };
        let id = |value: AssertValue| {
            (value.key_id(spec.terms.trunk_id, spec.terms.epoch, claim.claim), vec![0; value.size().bytes()])
        };
        let mut slots = Vec::new();
        for slot in spec.layout.slots() {
            let words = slot.words.map(AssertValue::Word);
            let named = words.chain(slot.hashes.map(AssertValue::Hash)).map(id).collect();
            match self.items(named)? {
                Some(items) => slots.push(items),
                None => return Ok(vec![Event::KeyUsed(claim)]),
            }
        }
        Ok(vec![Event::Asserted { claim, slots }])
    }

    /// The spec of a claim of this operator.
    fn own<'a>(&self, contract: &'a Contract, claim: ClaimId) -> Option<&'a ContractSpec> {
        let spec = contract.epoch(claim.epoch)?.spec();
        (spec.terms.operator_key == self.operator).then_some(spec)
    }

    /// Witness items of values, the first one's on top; `None` if a key has signed another value.
    fn items(&mut self, named: Vec<(KeyId, Vec<u8>)>) -> Result<Option<Vec<Vec<u8>>>, ServiceError> {
        let values: Vec<_> = named.iter().map(|(id, value)| (id.clone(), value.as_slice())).collect();
        match self.guard.sign(&self.secret, &values) {
            Ok(signatures) => Ok(Some(signatures.iter().rev().flat_map(winternitz::witness).collect())),
            Err(GuardError::KeyReuse { key }) => {
                tracing::error!("one-time key {key} has signed another value");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
