use sp1_core_executor::SyscallCode;
use sp1_hypercube::septic_digest::SepticDigest;
use sp1_hypercube::{MachineVerifyingKey, SP1VerifyingKey, UntrustedConfig};
use sp1_primitives::SP1GlobalContext;
use sp1_prover::worker::{FinalVmState, ProofId};
use sp1_prover_types::network_base_types::ProofMode;

use super::*;
use crate::part::unpack;
use crate::store::DiskStore;

/// A part's files as a controller would write them, on disk.
struct Request {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
    program: [u32; 8],
}

fn vk() -> SP1VerifyingKey {
    let vk = MachineVerifyingKey::<SP1GlobalContext> {
        pc_start: [field(1); 3],
        initial_global_cumulative_sum: SepticDigest::zero(),
        preprocessed_commit: [field(3); 8],
        untrusted_config: UntrustedConfig::zero(),
    };
    SP1VerifyingKey { vk }
}

fn common(deferred: u32) -> CommonProverInput {
    CommonProverInput {
        vk: vk(),
        mode: ProofMode::Compressed,
        deferred_digest: [deferred; 8],
        num_deferred_proofs: deferred as usize,
        nonce: [0; 4],
    }
}

fn chunk(begin: u64, end: u64) -> TraceData {
    let reads: Vec<(u64, u64)> = vec![(1, 2); 3];
    TraceData::Core(bincode::serialize(&([9u64; 32], 4096u64, begin, end, reads)).unwrap())
}

fn memory_shard(clock: u64, from: u64, to: u64) -> GlobalMemoryShard {
    GlobalMemoryShard {
        final_state: FinalVmState { timestamp: clock, ..FinalVmState::default() },
        initialize_events: Vec::new(),
        finalize_events: Vec::new(),
        page_prot_initialize_events: Vec::new(),
        page_prot_finalize_events: Vec::new(),
        previous_init_addr: from,
        previous_finalize_addr: from + 8,
        previous_init_page_idx: 0,
        previous_finalize_page_idx: 0,
        last_init_addr: to,
        last_finalize_addr: to + 8,
        last_init_page_idx: 0,
        last_finalize_page_idx: 0,
    }
}

impl Request {
    fn new(kind: &str, pieces: &[Vec<u8>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut files = vec![dir.path().join("header")];
        let mut inputs = Vec::new();
        for (number, bytes) in pieces.iter().enumerate() {
            let path = dir.path().join(number.to_string());
            std::fs::write(&path, bytes).unwrap();
            files.push(path);
            let piece = serde_json::json!({ "blake3": blake3::hash(bytes).to_hex().to_string() });
            inputs.push(serde_json::json!({ "artifact": { "id": format!("a{number}"), "piece": piece } }));
        }
        if kind == "shard" {
            inputs.push(serde_json::json!("marker"));
        }
        let header = serde_json::json!({
            "version": 1, "circuit": SP1_CIRCUIT_VERSION.trim(), "kind": kind, "key": "k", "inputs": inputs,
            "slices": [], "outputs": 1,
        });
        std::fs::write(&files[0], header.to_string()).unwrap();
        Self { dir, files, program: vk().hash_u32() }
    }

    fn shard(record: &TraceData, deferred: u32) -> Self {
        let pieces = [
            b"program".to_vec(),
            bincode::serialize(&common(deferred)).unwrap(),
            bincode::serialize(record).unwrap(),
        ];
        Self::new("shard", &pieces)
    }

    fn check(&self, values: &Values) -> Result<(), CheckError> {
        check(&self.files, &self.program, values)
    }

    /// Changes the header's text.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.files[0]).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.files[0], text.replace(from, to)).unwrap();
    }
}

fn clock(time: u64) -> [SP1Field; 4] {
    [time >> 32, time >> 24 & 0xff, time >> 16 & 0xff, time & 0xffff].map(|limb| field(limb as u32))
}

fn address(address: u64) -> [SP1Field; 3] {
    [address & 0xffff, address >> 16 & 0xffff, address >> 32].map(|limb| field(limb as u32))
}

/// What the proof of a shard states that runs from one clock to another, after so many deferred proofs.
fn values(begin: u64, end: u64, deferred: u32) -> Values {
    Values {
        sp1_vk_digest: vk().hash_u32().map(field),
        initial_timestamp: clock(begin),
        last_timestamp: clock(end),
        prev_deferred_proof: field(deferred),
        deferred_proof: field(deferred),
        start_reconstruct_deferred_digest: [field(deferred); 8],
        end_reconstruct_deferred_digest: [field(deferred); 8],
        global_cumulative_sum: SepticDigest::zero(),
        num_included_shard: field(1),
        ..Values::default()
    }
}

#[track_caller]
fn is_refused(got: Result<(), CheckError>) {
    match got {
        Err(CheckError::Result(WorkerError::PublicInput { .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn is_unreadable(got: Result<(), CheckError>) {
    match got {
        Err(CheckError::Request(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_zkvms_side_reads_the_headers_that_these_tests_write() {
    let pieces = [bincode::serialize(&common(2)).unwrap(), b"the proof to verify".to_vec()];
    for (request, kind) in [
        (Request::shard(&chunk(1, 100), 2), PartKind::Shard),
        (Request::new("deferred", &pieces), PartKind::Deferred),
        (Request::new("reduce", &pieces), PartKind::Reduce),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path(), 1).unwrap();
        let unpacked = unpack(&request.files, &ProofId::new("proof"), &store).await.unwrap();
        assert_eq!((unpacked.kind, unpacked.key.as_str()), (kind, "k"));
        assert_eq!(unpacked.marker, (kind == PartKind::Shard).then_some(3));
        for (input, path) in unpacked.request.inputs.iter().zip(&request.files[1..]) {
            assert_eq!(store.get(&input.0).unwrap(), std::fs::read(path).unwrap());
        }
        // Of another version it reads none, as the check.
        request.edit("\"version\":1", "\"version\":2");
        assert!(unpack(&request.files, &ProofId::new("again"), &store).await.is_err());
    }
}

#[test]
fn the_proof_of_another_shard_of_the_same_execution_is_refused() {
    let far = (5u64 << 32) + (7 << 24) + (1 << 16) + 9;
    let stretches = [(1, 1 << 20), (1 << 20, far), (far, far + 1)];
    for asked in stretches {
        let request = Request::shard(&chunk(asked.0, asked.1), 2);
        for (begin, end) in stretches {
            let answer = request.check(&values(begin, end, 2));
            if (begin, end) == asked {
                answer.unwrap();
            } else {
                is_refused(answer);
            }
        }
        // The same stretch of a fold of other proofs, and another program's.
        is_refused(request.check(&values(asked.0, asked.1, 3)));
        let digest = Values { end_reconstruct_deferred_digest: [field(9); 8], ..values(asked.0, asked.1, 2) };
        is_refused(request.check(&digest));
        let program = Values { sp1_vk_digest: [field(1); 8], ..values(asked.0, asked.1, 2) };
        is_refused(request.check(&program));
        // A shard of memory at that place.
        let memory = Values { last_init_addr: address(64), ..values(asked.0, asked.1, 2) };
        is_refused(request.check(&memory));
    }
}

#[test]
fn who_proves_a_shard_to_the_end_of_the_program_is_not_blamed_for_a_request_that_goes_on() {
    let halted = |begin, end| Values { next_pc: [field(1), field(0), field(0)], ..values(begin, end, 2) };
    let request = Request::shard(&chunk(1 << 20, 1 << 21), 2);
    request.check(&halted(1 << 20, 1 << 21)).unwrap();
    is_unreadable(request.check(&halted(1 << 20, (1 << 21) - 8)));
    // It has not halted, begins elsewhere, is about other addresses, or comes after other proofs: not what was asked for.
    is_refused(request.check(&values(1 << 20, (1 << 21) - 8, 2)));
    is_refused(request.check(&halted((1 << 20) + 8, (1 << 21) - 8)));
    is_refused(request.check(&halted((1 << 20) + 8, 1 << 21)));
    is_refused(request.check(&Values { last_init_addr: address(64), ..halted(1 << 20, (1 << 21) - 8) }));
    is_refused(request.check(&Values { deferred_proof: field(3), ..halted(1 << 20, (1 << 21) - 8) }));
    let digest = Values { end_reconstruct_deferred_digest: [field(9); 8], ..halted(1 << 20, (1 << 21) - 8) };
    is_refused(request.check(&digest));
    // A shard of memory has no cycles to end early.
    let memory = TraceData::Memory(Box::new(memory_shard(1 << 20, 0, 0)));
    let memory = Request::shard(&memory, 2);
    is_refused(memory.check(&halted(1 << 20, (1 << 20) - 8)));
}

#[test]
fn shards_of_memory_are_told_apart_by_their_addresses() {
    let at = |from: u64, to: u64| Values {
        previous_init_addr: address(from),
        last_init_addr: address(to),
        previous_finalize_addr: address(from + 8),
        last_finalize_addr: address(to + 8),
        ..values(1 << 30, 1 << 30, 0)
    };
    let shards = [(0, 1 << 20), (1 << 20, 3 << 33)];
    for (from, to) in shards {
        let record = TraceData::Memory(Box::new(memory_shard(1 << 30, from, to)));
        let request = Request::shard(&record, 0);
        for other in shards {
            let answer = request.check(&at(other.0, other.1));
            if other == (from, to) {
                answer.unwrap();
            } else {
                is_refused(answer);
            }
        }
        is_refused(request.check(&values(1 << 30, 1 << 30, 0)));
    }
}

#[test]
fn a_shard_of_precompiles_stands_before_everything_else() {
    let request = Request::shard(&TraceData::Precompile(Vec::new(), SyscallCode::KECCAK_PERMUTE), 2);
    request.check(&values(1, 1, 0)).unwrap();
    is_refused(request.check(&values(1, 1, 2)));
    is_refused(request.check(&values(1, 2, 0)));
    // What comes after the record is not needed.
    assert_eq!(request.files.len(), SHARD_FILES);
}

#[test]
fn a_deferred_proof_is_checked_by_its_place() {
    // No proofs at number 7: the digest stays.
    let data =
        bincode::serialize(&((Vec::<u8>::new(), true), Vec::<u8>::new(), [field(5); 8], field(7))).unwrap();
    let request = Request::new("deferred", &[bincode::serialize(&common(9)).unwrap(), data]);
    let right = Values {
        start_reconstruct_deferred_digest: [field(5); 8],
        end_reconstruct_deferred_digest: [field(5); 8],
        ..values(1, 1, 7)
    };
    request.check(&right).unwrap();
    is_refused(request.check(&values(1, 1, 7)));
    is_refused(request.check(&Values { deferred_proof: field(8), ..right }));
}

/// Three proofs that can be reduced: each begins where the one before it ends.
fn row() -> [Values; 3] {
    let part = |number: u32| Values {
        committed_value_digest: [[field(number + 1); 4]; 8],
        prev_committed_value_digest: [[field(number); 4]; 8],
        next_pc: [field(number + 11); 3],
        pc_start: [field(number + 10); 3],
        contains_first_shard: field(u32::from(number == 0)),
        num_included_shard: field(number + 3),
        exit_code: field(number + 21),
        prev_exit_code: field(number + 20),
        ..values(u64::from(number) * 100, u64::from(number) * 100 + 100, 1)
    };
    [0, 1, 2].map(part)
}

#[test]
fn a_reduction_states_what_follows_from_the_proofs_that_it_reduces() {
    let row = row();
    let reduced = reduced_values(&row, true).unwrap();
    assert_eq!(reduced.range().timestamp_range, (0, 300));
    assert_eq!(reduced.num_included_shard, field(3 + 4 + 5));
    assert_eq!((reduced.contains_first_shard, reduced.is_complete), (field(1), field(1)));
    assert_eq!((reduced.pc_start, reduced.next_pc), (row[0].pc_start, row[2].next_pc));
    assert_eq!((reduced.prev_exit_code, reduced.exit_code), (row[0].prev_exit_code, row[2].exit_code));
    assert_eq!(reduced.global_cumulative_sum, SepticDigest::zero());
    assert!(reduced_values(&[], true).is_err());
    // In two steps as in one.
    let first = reduced_values(&row[..2], false).unwrap();
    let again = reduced_values(&[first, row[2]], true).unwrap();
    assert_eq!(again.as_array(), reduced.as_array());
}

#[test]
fn any_other_value_of_a_reduction_is_refused() {
    let reduced = reduced_values(&row(), false).unwrap();
    let expected = Expected::Whole(Box::new(reduced));
    // These two are checked on their own.
    let marked = Values { digest: [field(1); 8], vk_root: [field(1); 8], ..Values::default() }.as_array();
    let mut refused = 0;
    for (number, value) in reduced.as_array().into_iter().enumerate() {
        let mut changed = reduced.as_array();
        changed[number] = value + field(1);
        let answer = expected.check(recursion_values(&changed).unwrap());
        assert_eq!(answer.is_err(), marked[number] == field(0), "value {number}");
        refused += u32::from(answer.is_err());
    }
    assert!(refused > 100, "{refused}");
    expected.check(&reduced).unwrap();
}

#[test]
fn a_request_that_cannot_be_read_is_not_held_against_its_prover() {
    let good = || Request::shard(&chunk(1, 100), 0);
    let right = values(1, 100, 0);
    good().check(&right).unwrap();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"kind\":\"shard\"", "\"kind\":\"reduce\""),
        ("\"kind\":\"shard\"", "\"kind\":\"deferred\""),
        ("\"kind\"", "\"sort\""),
        ("{", "["),
        ("\"blake3\":\"", "\"blake3\":\"00"),
    ] {
        let request = good();
        request.edit(from, to);
        is_unreadable(request.check(&right));
    }
    // About another program than its task: an honest prover proves that, and has done nothing wrong.
    let foreign = Request { program: [7; 8], ..good() };
    is_unreadable(foreign.check(&right));
    let without = good();
    is_unreadable(check(&without.files[..3], &without.program, &right));
    is_unreadable(check(&[], &without.program, &right));
    std::fs::write(&without.files[3], b"junk").unwrap();
    is_unreadable(without.check(&right));
    let gone = good();
    std::fs::remove_file(&gone.files[0]).unwrap();
    assert!(matches!(gone.check(&right), Err(CheckError::Result(WorkerError::Io { .. }))));
    assert!(gone.dir.path().is_dir());
}

#[test]
fn no_bytes_of_a_request_make_the_check_panic() {
    let common = || bincode::serialize(&common(1)).unwrap();
    let shard = |record: &TraceData| vec![b"elf".to_vec(), common(), bincode::serialize(record).unwrap()];
    let deferred =
        bincode::serialize(&((Vec::<u8>::new(), true), Vec::<u8>::new(), [field(5); 8], field(7))).unwrap();
    let requests = [
        ("shard", shard(&chunk(1, 9))),
        ("shard", shard(&TraceData::Memory(Box::new(memory_shard(9, 0, 64))))),
        ("shard", shard(&TraceData::Precompile(Vec::new(), SyscallCode::KECCAK_PERMUTE))),
        ("deferred", vec![common(), deferred]),
        ("reduce", vec![b"a proof".to_vec(), b"another".to_vec()]),
    ];
    let right = values(1, 9, 1);
    let (mut read, mut unreadable) = (0, 0);
    for (kind, pieces) in requests {
        for (which, good) in pieces.iter().enumerate() {
            let flipped = (0..good.len()).flat_map(|at| {
                [0x01, 0x80, 0xff].map(|bits| {
                    let mut bytes = good.clone();
                    bytes[at] ^= bits;
                    bytes
                })
            });
            let cut = (0..good.len()).map(|length| good[..length].to_vec());
            for bytes in flipped.chain(cut).step_by(7) {
                let mut pieces = pieces.clone();
                pieces[which] = bytes;
                match Request::new(kind, &pieces).check(&right) {
                    Ok(()) | Err(CheckError::Result(_)) => read += 1,
                    Err(CheckError::Request(_)) => unreadable += 1,
                }
            }
        }
    }
    assert!(read > 10 && unreadable > 10, "{read} were read, {unreadable} were not");
}
