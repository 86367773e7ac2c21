use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{ScriptBuf, TapLeafHash};
use proptest::prelude::*;

use super::super::testing::{accepts_spend, spend_of};
use super::*;
use crate::consensus::secp;

fn interpret(script: &ScriptBuf, items: &[Vec<u8>]) -> Result<Summary, InterpretError> {
    let (tx, spent) = spend_of(script, items);
    let leaf = TapLeafHash::from_script(script, bitcoin::taproot::LeafVersion::TapScript);
    run(script, items.to_vec(), Spend { tx: &tx, input: 0, spent: &[spent], leaf })
}

fn core(script: &ScriptBuf, items: &[Vec<u8>]) -> bool {
    let (tx, spent) = spend_of(script, items);
    accepts_spend(&tx, spent)
}

/// Every opcode that the interpreter knows.
fn opcodes() -> Vec<u8> {
    let unsupported = [OP_CODESEPARATOR, OP_CLTV].map(Opcode::to_u8);
    (OP_PUSHNUM_NEG1.to_u8()..=OP_CHECKSIGADD.to_u8())
        .filter(|byte| {
            let success = Opcode::from(*byte).classify(ClassifyContext::TapScript) == Class::SuccessOp;
            !success && !unsupported.contains(byte)
        })
        .collect()
}

#[derive(Debug, Clone)]
enum Piece {
    Op(u8),
    Number(i64),
    Bytes(Vec<u8>),
}

fn piece() -> impl Strategy<Value = Piece> {
    // Often opcodes that go on with whatever there is, so that scripts get far.
    let shuffles =
        vec![OP_DUP, OP_2DUP, OP_3DUP, OP_SWAP, OP_ROT, OP_TUCK, OP_OVER, OP_ADD, OP_SUB, OP_MIN, OP_SIZE];
    prop_oneof![
        3 => proptest::sample::select(opcodes()).prop_map(Piece::Op),
        3 => proptest::sample::select(shuffles).prop_map(|opcode| Piece::Op(opcode.to_u8())),
        4 => (-2i64..9).prop_map(Piece::Number),
        1 => proptest::collection::vec(any::<u8>(), 0..6).prop_map(Piece::Bytes),
    ]
}

fn script_of(pieces: &[Piece]) -> ScriptBuf {
    let builder = pieces.iter().fold(Builder::new(), |builder, piece| match piece {
        Piece::Op(byte) => builder.push_opcode(Opcode::from(*byte)),
        Piece::Number(number) => builder.push_int(*number),
        Piece::Bytes(bytes) => builder.push_slice(PushBytesBuf::try_from(bytes.clone()).unwrap()),
    });
    builder.into_script()
}

/// `script`, then everything is cleared away and 1 is left: it succeeds unless an instruction fails.
fn completed(script: &ScriptBuf, depth: usize) -> ScriptBuf {
    let clear = (0..depth).fold(Builder::from(script.to_bytes()), |builder, _| builder.push_opcode(OP_DROP));
    clear.push_int(1).into_script()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn verdicts_are_those_of_core(
        pieces in proptest::collection::vec(piece(), 0..14),
        items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..8),
    ) {
        let script = script_of(&pieces);
        prop_assert_eq!(interpret(&script, &items).is_ok(), core(&script, &items));
        // Most random scripts end with several values: with as many drops as it takes they can succeed too.
        let mut depth = None;
        let (tx, spent) = spend_of(&script, &items);
        let leaf = TapLeafHash::from_script(&script, bitcoin::taproot::LeafVersion::TapScript);
        let spend = Spend { tx: &tx, input: 0, spent: &[spent], leaf };
        let outcome = run_observed(&script, items.clone(), spend, |step| depth = Some(step.stack.len()));
        if outcome.map_or_else(|error| error.fault == Fault::Result, |_| true) {
            let script = completed(&script, depth.unwrap_or(items.len()));
            prop_assert!(interpret(&script, &items).is_ok());
            prop_assert!(core(&script, &items));
        }
    }
}

#[test]
fn signatures_are_judged_as_core_judges_them() {
    use bitcoin::hashes::Hash;
    use bitcoin::key::Keypair;
    use bitcoin::secp256k1::{Message, SecretKey};
    use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};

    let pair = Keypair::from_secret_key(secp(), &SecretKey::from_slice(&[5; 32]).unwrap());
    let key = pair.x_only_public_key().0;
    for opcode in [OP_CHECKSIG, OP_CHECKSIGVERIFY] {
        let builder = Builder::new().push_x_only_key(&key).push_opcode(opcode);
        let script = if opcode == OP_CHECKSIG { builder } else { builder.push_int(1) }.into_script();
        let leaf = TapLeafHash::from_script(&script, bitcoin::taproot::LeafVersion::TapScript);
        for (kind, byte) in [
            (TapSighashType::Default, None),
            (TapSighashType::All, Some(1)),
            (TapSighashType::None, Some(2)),
            (TapSighashType::SinglePlusAnyoneCanPay, Some(0x83)),
        ] {
            let (tx, spent) = spend_of(&script, &[]);
            let hash = SighashCache::new(&tx)
                .taproot_script_spend_signature_hash(0, &Prevouts::All(&[spent]), leaf, kind)
                .unwrap();
            let good = secp().sign_schnorr_no_aux_rand(&Message::from_digest(hash.to_byte_array()), &pair);
            let good = [good.as_ref().as_slice(), byte.as_slice()].concat();
            assert!(interpret(&script, &[good.clone()]).is_ok() && core(&script, &[good.clone()]), "{kind}");
            let mut wrong = good.clone();
            wrong[40] ^= 1;
            let other_type = [&good[..64], &[0x81]].concat();
            let zero_type = [&good[..64], &[0]].concat();
            for bad in [wrong, other_type, zero_type, good[..63].to_vec(), Vec::new()] {
                assert!(interpret(&script, &[bad.clone()]).is_err(), "{kind}");
                assert!(!core(&script, &[bad]), "{kind}");
            }
        }
    }
}

#[test]
fn limits_are_those_of_core() {
    let push = |count: usize| (0..count).fold(Builder::new(), |builder, _| builder.push_opcode(OP_DUP));
    for (count, fits) in [(998, true), (999, false)] {
        // One item, `count` copies, then the drops: 1,000 places is the most.
        let script = completed(&push(count + 1).into_script(), count + 2);
        let items = vec![vec![1]];
        assert_eq!((interpret(&script, &items).is_ok(), core(&script, &items)), (fits, fits), "{count}");
    }
    for (bytes, fits) in [(520, true), (521, false)] {
        let script = Builder::new().push_opcode(OP_DROP).push_int(1).into_script();
        let items = vec![vec![7; bytes]];
        assert_eq!((interpret(&script, &items).is_ok(), core(&script, &items)), (fits, fits), "{bytes}");
    }
}

#[test]
fn a_failure_names_its_place() {
    let script =
        Builder::new().push_int(1).push_int(2).push_opcode(OP_NUMEQUALVERIFY).push_int(1).into_script();
    let error = interpret(&script, &[]).unwrap_err();
    assert_eq!(error, InterpretError { position: 2, opcode: Some(OP_NUMEQUALVERIFY), fault: Fault::Verify });
    assert_eq!(error.to_string(), "at byte 2 of the script (OP_NUMEQUALVERIFY): the check failed");
}

#[test]
fn the_hash_runs_within_the_stack_that_its_assembler_counted() {
    let script = super::super::blake3::hash(Builder::new(), 128).unwrap();
    let script = completed(&script.into_script(), 64);
    let items = vec![vec![3]; 256];
    let summary = interpret(&script, &items).unwrap();
    assert!(core(&script, &items));
    assert_eq!(summary.places_max, 755);
}
