//! Results are judged by what is there, whatever their workers say of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use assay_queue::{Durability, FolderStore, StoreLimits};
use assay_schedule::{AttemptId, ChainId, Epoch, Holder as Held, Input, Parent, Role, Stage, TenantId};
use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Takes what says that it is right, and counts what it is given.
#[derive(Default)]
struct Judge {
    inputs_read: usize,
    asked: AtomicUsize,
    /// The most inputs that it was given.
    given: AtomicUsize,
    /// Whether a batch that cannot be read any more is settled.
    is_settled: bool,
    /// What it was told to be lost.
    lost: Mutex<Vec<Lost>>,
}

#[async_trait]
impl Settler for Judge {
    async fn settle(&self, _: &Settlement) -> Result<Vec<NewFile>, SettleError> {
        Err(SettleError { is_permanent: true, reason: "not here".into() })
    }

    async fn settle_lost(&self, _: BatchId, _: &Spec, lost: Lost) -> Result<Vec<NewFile>, SettleError> {
        self.lost.lock().push(lost);
        match self.is_settled {
            true => Ok(Vec::new()),
            false => Err(SettleError { is_permanent: lost == Lost::Payload, reason: lost.to_string() }),
        }
    }
}

impl Verifier for Judge {
    fn inputs_read(&self, _: &Claim) -> usize {
        self.inputs_read
    }

    fn other_version(&self, version: u32) -> Option<String> {
        (version != 1).then(|| format!("version {version}"))
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
        Judgement::Right
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
        Self::with(Judge { inputs_read, ..Judge::default() }, WorkLimits::default())
    }

    fn with(judge: Judge, limits: WorkLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path(), StoreLimits::default(), Durability::Process).unwrap();
        let store: Arc<dyn ArtifactStore> = Arc::new(store);
        let judge = Arc::new(judge);
        let (answers, answered) = mpsc::channel(16);
        let (verifier, settler) = (judge.clone(), judge.clone());
        let executor = Executor::new(Arc::clone(&store), verifier, settler, limits, answers);
        Self { _folder: folder, store, judge, executor, answered }
    }

    async fn publish(&self, attempt: u64, bytes: &[u8]) -> Artifact {
        let holder = Held::Attempt(AttemptId(attempt), 0);
        let held = self.store.put(&names::holder(holder), bytes.to_vec()).await.unwrap();
        Artifact { holder, hash: Hash(*held.hash.as_bytes()), bytes: held.bytes }
    }

    fn start(&mut self, effects: Vec<Effect>) {
        let left = self.executor.start(effects, |_| None);
        assert!(left.is_empty(), "{left:?}");
    }

    async fn answer(&mut self) -> Event {
        match tokio::time::timeout(PATIENCE, self.answered.recv()).await.expect("no answer") {
            Some(Entry::Event(event)) => event,
            other => panic!("something else than an event: {other:?}"),
        }
    }

    async fn verdicts(&mut self, count: usize) -> BTreeMap<u64, Verdict> {
        let mut verdicts = BTreeMap::new();
        while verdicts.len() < count {
            let Event::Verified { effect, verdict } = self.answer().await else {
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

/// A batch whose payload is this one.
fn spec(payload: &[u8]) -> Spec {
    let facts = facts();
    Spec {
        tenant: TenantId(1),
        key: "key".into(),
        chain: facts.chain,
        sequence: 0,
        from: facts.from,
        to: facts.to,
        payload: Hash(*blake3::hash(payload).as_bytes()),
        payload_bytes: payload.len() as u64,
        units: 1,
        version: 1,
        priority: 0,
        deadline: None,
        deadline_is_hard: false,
        intake: facts.from,
    }
}

fn settle(proof: Artifact) -> Vec<Effect> {
    vec![effect(1, Work::Settle { chain: ChainId(1), sequence: 0, proof })]
}

#[tokio::test]
async fn a_part_with_larger_inputs_than_can_be_read_is_not_looked_at() {
    let limits = WorkLimits { bytes_max: 1 << 20, ..WorkLimits::default() };
    let mut bench = Bench::with(Judge { inputs_read: usize::MAX, ..Judge::default() }, limits);
    let output = bench.publish(9, b"right").await;
    // One artifact that is there, and one that is not: as large as their publisher says.
    let there = bench.publish(1, &vec![7; 1 << 20]).await;
    let ask = |number, stage, inputs: Vec<Artifact>| {
        let mut asked = verify(number, None, output);
        let Action::Work(Work::Verify { stage: its, inputs: theirs, .. }) = &mut asked.action else {
            panic!()
        };
        *its = stage;
        *theirs = inputs.into_iter().map(|artifact| Input { role: Role::Part, artifact }).collect();
        asked
    };
    let part = Stage::Shard { of: Parent::Fold, part: 0 };
    let absent = said(2, b"absent", u64::MAX);
    let one_more = said(2, b"absent", 1);
    bench.start(vec![
        ask(1, part, vec![absent]),
        ask(2, part, vec![there, one_more]),
        ask(3, part, vec![there]),
        ask(4, Stage::Wrap, vec![there, one_more]),
    ]);
    let verdicts = bench.verdicts(4).await;
    for number in [1, 2] {
        let verdict = &verdicts[&number];
        assert!(
            matches!(verdict, Verdict::Incomparable { reason } if reason.contains("1048576")),
            "{verdict:?}"
        );
    }
    assert_eq!(verdicts[&3], judged(b"right", true), "as much as there may be");
    assert_eq!(verdicts[&4], Verdict::Missing, "other tasks are read whatever their size");
}

#[tokio::test]
async fn work_on_batches_of_another_version_is_left_alone() {
    let mut bench = Bench::new(0);
    let right = bench.publish(1, b"right").await;
    let payload = bench.publish(2, b"payload").await;
    let theirs = Facts { version: 7, ..facts() };
    let mut foreign = verify(1, None, right);
    if let Action::Work(Work::Verify { facts, .. }) = &mut foreign.action {
        *facts = theirs;
    }
    let work = vec![
        foreign,
        effect(2, Work::Check { proof: right, facts: theirs }),
        effect(3, Work::Settle { chain: ChainId(1), sequence: 0, proof: right }),
        effect(4, Work::Audit { artifact: payload, attempt: AttemptId(2) }),
        effect(5, Work::Release { artifacts: vec![payload] }),
    ];
    let spec = Spec { version: 7, ..spec(b"payload") };
    let left = bench.executor.start(work, |_| Some(spec.clone()));
    assert_eq!(left, vec![(BatchId(0), "version 7".to_owned()); 3]);
    // What has no version is done.
    let answers = [bench.answer().await, bench.answer().await];
    for number in [4, 5].map(EffectId) {
        let is_it = |event: &Event| match event {
            Event::Verified { effect, .. } => *effect == number,
            Event::Done { effects } => *effects == [number],
            _ => false,
        };
        assert!(answers.iter().any(is_it), "{number}: {answers:?}");
    }
    assert_eq!(bench.judge.asked.load(Ordering::SeqCst), 0);
    bench.start(vec![verify(6, None, right)]);
    assert_eq!(bench.verdicts(1).await[&6], judged(b"right", true), "nothing else was answered before");
}

#[tokio::test]
async fn whether_a_batch_that_cannot_be_read_is_settled_says_the_settler() {
    for is_settled in [false, true] {
        let judge = Judge { is_settled, ..Judge::default() };
        let mut bench = Bench::with(judge, WorkLimits::default());
        let payload = bench.publish(2, b"payload").await;
        let proof = said(3, b"proof", 5);
        for (lost, permanent) in [(Lost::Proof, false), (Lost::Payload, true)] {
            if lost == Lost::Payload {
                bench.store.release(&names::holder(payload.holder)).await.unwrap();
            }
            let spec = spec(b"payload");
            assert!(bench.executor.start(settle(proof), |_| Some(spec.clone())).is_empty());
            let effect = EffectId(1);
            let expected = match is_settled {
                true => Event::Settled { effect },
                false => Event::SettleFailed { effect, permanent, reason: lost.to_string() },
            };
            assert_eq!(bench.answer().await, expected, "{lost}");
        }
        assert_eq!(*bench.judge.lost.lock(), [Lost::Proof, Lost::Payload]);
    }
}
