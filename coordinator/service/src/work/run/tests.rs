//! Results are judged by what is there, whatever their workers say of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use assay_queue::{Durability, FolderStore, StoreLimits};
use assay_schedule::{AttemptId, ChainId, Epoch, Holder as Held, Input, Role, Stage};
use async_trait::async_trait;

use super::super::SettleError;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Takes what says that it is right, and counts what it is given.
#[derive(Default)]
struct Judge {
    inputs_read: usize,
    asked: AtomicUsize,
    /// The most inputs that it was given.
    given: AtomicUsize,
}

#[async_trait]
impl Settler for Judge {
    async fn settle(&self, _: &Settlement) -> Result<Vec<NewFile>, SettleError> {
        Err(SettleError { is_permanent: true, reason: "not here".into() })
    }
}

impl Verifier for Judge {
    fn inputs_read(&self, _: &Claim) -> usize {
        self.inputs_read
    }

    fn verify(&self, _: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Judgement {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.given.fetch_max(inputs.len(), Ordering::SeqCst);
        assert!(outputs[0] != b"a bug", "a verifier may panic, though it must not");
        if outputs[0].starts_with(b"foreign") {
            return Judgement::Incomparable { reason: "another build".into() };
        }
        Judgement::right_if(outputs[0].starts_with(b"right"), "it does not say that it is right")
    }

    fn check(&self, _: &Facts, _: &[u8], _: &[u8]) -> Judgement {
        Judgement::Wrong { reason: "not here".into() }
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Arc<dyn ArtifactStore>,
    judge: Arc<Judge>,
    executor: Executor,
    answered: mpsc::Receiver<Entry>,
}

impl Bench {
    fn new(inputs_read: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path(), StoreLimits::default(), Durability::Process).unwrap();
        let store: Arc<dyn ArtifactStore> = Arc::new(store);
        let judge = Arc::new(Judge { inputs_read, ..Judge::default() });
        let (answers, answered) = mpsc::channel(16);
        let (verifier, settler) = (judge.clone(), judge.clone());
        let executor = Executor::new(Arc::clone(&store), verifier, settler, WorkLimits::default(), answers);
        Self { _folder: folder, store, judge, executor, answered }
    }

    async fn publish(&self, attempt: u64, bytes: &[u8]) -> Artifact {
        let holder = Held::Attempt(AttemptId(attempt), 0);
        let held = self.store.put(&names::holder(holder), bytes.to_vec()).await.unwrap();
        Artifact { holder, hash: Hash(*held.hash.as_bytes()), bytes: held.bytes }
    }

    fn start(&mut self, effects: Vec<Effect>) {
        self.executor.start(effects, |_| None);
    }

    async fn verdicts(&mut self, count: usize) -> BTreeMap<u64, Verdict> {
        let mut verdicts = BTreeMap::new();
        while verdicts.len() < count {
            let answer = tokio::time::timeout(PATIENCE, self.answered.recv()).await.expect("no verdict");
            let Some(Entry::Event(Event::Verified { effect, verdict })) = answer else {
                panic!("something else than a verdict")
            };
            assert!(verdicts.insert(effect.0, verdict).is_none(), "twice");
        }
        verdicts
    }
}

fn effect(number: u64, work: Work) -> Effect {
    Effect { id: EffectId(number), epoch: Epoch(1), batch: BatchId(0), action: Action::Work(work) }
}

fn facts() -> Facts {
    let zero = Hash([0; 32]);
    Facts {
        chain: ChainId(1),
        sequence: 0,
        genesis: zero,
        from: zero,
        to: zero,
        payload: zero,
        version: 1,
        deadline: None,
    }
}

fn verify(number: u64, input: Option<Artifact>, output: Artifact) -> Effect {
    let inputs = input.map(|artifact| Input { role: Role::Payload, artifact }).into_iter().collect();
    let (attempt, stage, key) = (AttemptId(number), Stage::Wrap, Hash([0; 32]));
    effect(number, Work::Verify { attempt, stage, key, inputs, outputs: vec![output], facts: facts() })
}

/// What an attempt says that it has published.
fn said(attempt: u64, bytes: &[u8], size: u64) -> Artifact {
    let hash = Hash(*blake3::hash(bytes).as_bytes());
    Artifact { holder: Held::Attempt(AttemptId(attempt), 0), hash, bytes: size }
}

fn judged(bytes: &[u8], valid: bool) -> Verdict {
    Verdict::Read { hashes: vec![Hash(*blake3::hash(bytes).as_bytes())], valid }
}

#[tokio::test]
async fn small_results_are_judged_together_and_each_by_itself() {
    let mut bench = Bench::new(0);
    let stored: [(u64, &[u8]); 4] = [(1, b"right"), (2, b"wrong"), (3, b"a bug"), (4, b"right")];
    for (attempt, bytes) in stored {
        bench.publish(attempt, bytes).await;
    }
    bench.start(vec![
        verify(1, None, said(1, b"right", 5)),
        verify(2, None, said(2, b"wrong", 5)),
        verify(3, None, said(3, b"a bug", 5)),
        // Not the sizes that their workers say, and not there at all.
        verify(4, None, said(4, b"right", 6)),
        verify(5, None, said(5, b"lost", 4)),
        verify(6, None, said(6, b"right", SMALL_BYTES + 1)),
        verify(7, None, said(7, b"right", 4)),
        verify(8, None, said(8, b"right", 5)),
    ]);
    let verdicts = bench.verdicts(8).await;
    assert_eq!(verdicts[&1], judged(b"right", true));
    assert_eq!(verdicts[&2], judged(b"wrong", false));
    assert_eq!(verdicts[&3], judged(b"a bug", false));
    for number in [4, 6, 7] {
        assert_eq!(verdicts[&number], judged(b"right", false), "{number}");
    }
    assert_eq!(verdicts[&5], Verdict::Missing);
    assert_eq!(verdicts[&8], judged(b"right", true));
    assert_eq!(bench.judge.asked.load(Ordering::SeqCst), 4, "what has another size is not judged");

    let attempts = |numbers: [u64; 2]| numbers.map(AttemptId).to_vec();
    let fences = [(10, [1, 2]), (11, [3, 4])];
    bench.start(fences.map(|(number, two)| effect(number, Work::Fence { attempts: attempts(two) })).to_vec());
    let Some(Entry::Event(Event::Done { effects })) = bench.answered.recv().await else { panic!("not done") };
    assert_eq!(effects, [EffectId(10), EffectId(11)]);
    for number in 1..=4 {
        let again = bench.store.put(&names::attempt(AttemptId(number)), Vec::new()).await;
        assert!(matches!(again, Err(StoreError::Revoked { .. })), "{number} is not fenced");
    }
}

#[tokio::test]
async fn results_of_another_size_than_their_workers_say_are_wrong_and_are_not_read() {
    for size in [100, 1 << 20] {
        let mut bench = Bench::new(usize::MAX);
        let bytes = [b"right".as_slice(), &vec![7; size - 5]].concat();
        let published = bench.publish(1, &bytes).await;
        let right = published.bytes;
        let of = |bytes| Artifact { bytes, ..published };
        for lie in [1, right - 1, right + 1, u64::MAX] {
            bench.start(vec![verify(lie, None, of(lie))]);
            assert_eq!(bench.verdicts(1).await[&lie], judged(&bytes, false), "said to be {lie}");
        }
        assert_eq!(bench.judge.asked.load(Ordering::SeqCst), 0);
        assert!(matches!(bench.executor.parts.read(&of(1)).await, Found::Damaged));
        // An input whose size is a lie cannot be judged, and is not read either.
        bench.start(vec![verify(1, Some(of(right)), of(right)), verify(2, Some(of(1)), of(right))]);
        let verdicts = bench.verdicts(2).await;
        assert_eq!((&verdicts[&1], &verdicts[&2]), (&judged(&bytes, true), &Verdict::Missing));
        assert_eq!(bench.judge.asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn small_results_do_not_wait_for_calls_which_may_wait_for_their_memory() {
    let mut bench = Bench::new(0);
    let right = bench.publish(1, b"right").await;
    let parts = Arc::clone(&bench.executor.parts);
    let _all = parts.calls.acquire_many(parts.calls.available_permits() as u32).await.unwrap();
    bench.start(vec![verify(1, None, right)]);
    assert_eq!(bench.verdicts(1).await[&1], judged(b"right", true));
}

#[tokio::test]
async fn what_cannot_be_checked_is_neither_right_nor_wrong() {
    for size in [7, 1 << 20] {
        let mut bench = Bench::new(1);
        let first = bench.publish(1, b"first").await;
        let second = bench.publish(2, b"second").await;
        let bytes = [b"foreign".as_slice(), &vec![7; size - 7]].concat();
        let output = bench.publish(3, &bytes).await;
        let mut asked = verify(3, Some(first), output);
        if let Action::Work(Work::Verify { inputs, .. }) = &mut asked.action {
            inputs.push(Input { role: Role::Payload, artifact: second });
        }
        bench.start(vec![asked]);
        let verdict = bench.verdicts(1).await.remove(&3).unwrap();
        assert_eq!(verdict, Verdict::Incomparable { reason: "another build".into() });
        assert_eq!(bench.judge.given.load(Ordering::SeqCst), 1, "no more is read than was asked for");
    }
}
