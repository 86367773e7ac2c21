//! Set-up and proof of a synthetic circuit, with times per stage: `groth16 CONSTRAINTS FOLDER [rounds]`.
//!
//! Prints wall time and, where Linux tells it, CPU time (all threads), which a busy machine does not distort. Measure memory with
//! `/usr/bin/time -v`.

use assay_kernels::groth16::{prove, setup, synthetic, Check, ProvingKey, ToxicWaste};
use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(constraints), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: groth16 CONSTRAINTS FOLDER [rounds]".into());
    };
    let rounds: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let path = Path::new(&folder).join("synthetic.key");

    let last = Mutex::new((Clock::now(), ""));
    let progress = |stage: &'static str, done: u64, total: u64| {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.1 != stage {
            *last = (Clock::now(), stage);
        }
        if done == total {
            println!("{stage:28} {}  ({total})", last.0.elapsed());
            *last = (Clock::now(), "");
        }
    };

    let start = Clock::now();
    let (system, z) = synthetic::circuit(constraints.parse()?);
    let entries = system.a.entries() + system.b.entries() + system.c.entries();
    println!("circuit {}, {} variables, {entries} entries", start.elapsed(), z.len());
    let start = Clock::now();
    setup(&system, [0; 32], &path, ToxicWaste::random()?, &progress)?;
    println!("set-up {}", start.elapsed());
    for (name, check) in [("hashes", Check::Hashes), ("hashes and points", Check::Points)] {
        let start = Clock::now();
        ProvingKey::open(&path, &[0; 32], check)?;
        println!("open, {name} checked {}", start.elapsed());
    }
    for _ in 0..rounds {
        let start = Clock::now();
        let key = ProvingKey::open(&path, &[0; 32], Check::Quick)?;
        println!("open {}, {} bytes", start.elapsed(), key.file_bytes());
        let start = Clock::now();
        prove(&key, &system, &z, &progress)?;
        println!("prove {}", start.elapsed());
    }
    Ok(())
}

/// Wall and CPU time.
struct Clock(Instant, f64);

impl Clock {
    fn now() -> Self {
        Self(Instant::now(), cpu_seconds())
    }

    fn elapsed(&self) -> String {
        format!("{:8.2} s wall {:8.2} s cpu", self.0.elapsed().as_secs_f64(), cpu_seconds() - self.1)
    }
}

/// User and system time of the process, from `/proc` (hundredths of a second); 0 elsewhere.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
