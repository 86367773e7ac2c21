//! What a worker signs about every attempt it has worked on: [`assay_schedule::receipt`], which coordinators verify with.

pub use assay_schedule::receipt::*;

#[cfg(test)]
pub(crate) mod tests {
    use assay_schedule::{AttemptId, BatchId, Hash, Kind};
    use serde_json::Value;

    use super::*;
    use crate::key::WorkerKey;

    pub(crate) fn key(seed: u8) -> WorkerKey {
        WorkerKey::from_seed([seed; 32])
    }

    pub(crate) fn receipt(key: &WorkerKey, attempt: u64) -> Receipt {
        Receipt {
            worker: key.worker(),
            batch: BatchId(7),
            attempt: AttemptId(attempt),
            key: Hash([3; 32]),
            kind: Kind::Shard,
            outcome: Outcome::Finished,
            inputs: vec![Content { hash: Hash([4; 32]), bytes: 100 }],
            outputs: vec![
                Content { hash: Hash([5; 32]), bytes: 200 },
                Content { hash: Hash([6; 32]), bytes: 0 },
            ],
            device: "NVIDIA H200".into(),
            build: "0.1.0+abc".into(),
            usage: Usage {
                wall_ms: 1000,
                cpu_ms: 900,
                gpu_ms: 800,
                memory_bytes_peak: 1 << 30,
                fetched_bytes: 100,
                published_bytes: 200,
                retries: 1,
                gpu_retries: 2,
                gpu_fallbacks: 3,
            },
        }
    }

    /// Every way to change one leaf of a JSON value, with the leaf's path.
    pub(crate) fn corruptions(value: &Value) -> Vec<(String, Value)> {
        fn change(leaf: &Value) -> Vec<Value> {
            match leaf {
                Value::Number(number) => {
                    let number = number.as_u64().unwrap();
                    vec![Value::from(number ^ 1), Value::from(number.wrapping_add(1 << 33))]
                }
                Value::String(text) => {
                    let mut flipped = text.clone().into_bytes();
                    let at = flipped.len() / 2;
                    flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
                    let longer = format!("{text}00");
                    vec![Value::from(String::from_utf8(flipped).unwrap()), Value::from(longer)]
                }
                Value::Bool(flag) => vec![Value::from(!flag)],
                other => panic!("no leaf: {other}"),
            }
        }
        match value {
            Value::Object(map) => {
                let changed = map.iter().flat_map(|(name, inner)| {
                    corruptions(inner).into_iter().map(move |(path, inner)| {
                        let mut map = map.clone();
                        map.insert(name.clone(), inner);
                        (format!("{name}.{path}"), Value::from(map))
                    })
                });
                changed.collect()
            }
            Value::Array(items) => {
                let mut all = Vec::new();
                for (at, inner) in items.iter().enumerate() {
                    for (path, inner) in corruptions(inner) {
                        let mut items = items.clone();
                        items[at] = inner;
                        all.push((format!("{at}.{path}"), Value::from(items)));
                    }
                    let mut fewer = items.clone();
                    fewer.remove(at);
                    all.push((format!("{at} removed"), Value::from(fewer)));
                    let mut more = items.clone();
                    more.insert(at, inner.clone());
                    all.push((format!("{at} doubled"), Value::from(more)));
                }
                all
            }
            leaf => change(leaf).into_iter().map(|leaf| (String::new(), leaf)).collect(),
        }
    }

    #[test]
    fn a_signed_receipt_verifies_and_survives_json() {
        let key = key(1);
        let signed = receipt(&key, 9).sign(&key).unwrap();
        signed.verify().unwrap();
        let text = serde_json::to_string(&signed).unwrap();
        assert!(text.contains("NVIDIA H200") && text.contains("\"kind\":\"shard\""), "{text}");
        let back: SignedReceipt = serde_json::from_str(&text).unwrap();
        assert_eq!(back, signed);
        back.verify().unwrap();
    }

    #[test]
    fn a_change_of_any_field_is_rejected() {
        let key = key(1);
        let signed = receipt(&key, 9).sign(&key).unwrap();
        let all = corruptions(&serde_json::to_value(&signed).unwrap());
        let mut paths: Vec<&str> = all.iter().map(|(path, _)| path.trim_end_matches('.')).collect();
        paths.dedup();
        // Every field: 8 of the receipt, 9 of its usage, 2 of each of 3 contents, key and signature.
        let leaves = paths.iter().filter(|path| !path.ends_with("removed") && !path.ends_with("doubled"));
        assert_eq!(leaves.count(), 8 + 9 + 6 + 2, "{paths:?}");
        for (path, value) in all {
            let Ok(changed) = serde_json::from_value::<SignedReceipt>(value) else { continue };
            assert!(changed.verify().is_err(), "a changed {path} is accepted");
        }
    }

    #[test]
    fn only_the_named_worker_signs() {
        let (one, two) = (key(1), key(2));
        let error = receipt(&one, 9).sign(&two).unwrap_err();
        assert_eq!(error, ReceiptError::Worker { worker: one.worker() });
        // A thief who puts his own key beside the receipt and signs it himself.
        let mut stolen = receipt(&one, 9).sign(&one).unwrap();
        stolen.public_key = two.public();
        stolen.signature = ReceiptKey::sign(&two, &stolen.receipt.encode(&two.public()).unwrap());
        assert_eq!(stolen.verify(), Err(ReceiptError::Worker { worker: one.worker() }));
    }

    #[test]
    fn the_encoding_is_the_documented_one() {
        let key = key(1);
        let mut plain = receipt(&key, 9);
        plain.inputs.clear();
        plain.outputs.truncate(1);
        let bytes = plain.encode(&key.public()).unwrap();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"assay-receipt-01");
        expected.extend_from_slice(&key.public());
        expected.extend_from_slice(&key.worker().0.to_le_bytes());
        expected.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[3; 32]);
        expected.extend_from_slice(b"\0\x05shard\x0b\0NVIDIA H200\x09\x000.1.0+abc");
        expected.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend_from_slice(&[5; 32]);
        expected.extend_from_slice(&[200, 0, 0, 0, 0, 0, 0, 0]);
        for number in [1000u64, 900, 800, 1 << 30, 100, 200] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[1, 0, 0, 0]);
        let without_faults = expected.len();
        expected.extend_from_slice(&[2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(bytes, expected);
        // A task whose GPU works is signed, and written, as before there were these two fields.
        (plain.usage.gpu_retries, plain.usage.gpu_fallbacks) = (0, 0);
        assert_eq!(plain.encode(&key.public()).unwrap(), expected[..without_faults]);
        let text = serde_json::to_string(&plain.sign(&key).unwrap()).unwrap();
        assert!(!text.contains("gpu_retries") && !text.contains("gpu_fallbacks"), "{text}");
        serde_json::from_str::<SignedReceipt>(&text).unwrap().verify().unwrap();
    }

    #[test]
    fn fields_have_limits() {
        let key = key(1);
        let mut long = receipt(&key, 9);
        long.device = "x".repeat(TEXT_BYTES_MAX + 1);
        assert!(matches!(long.sign(&key), Err(ReceiptError::TooLong { what: "the device", .. })));
        let mut many = receipt(&key, 9);
        many.inputs = vec![Content { hash: Hash([0; 32]), bytes: 0 }; CONTENTS_MAX + 1];
        assert!(matches!(many.sign(&key), Err(ReceiptError::TooLong { what: "the inputs", .. })));
    }
}
