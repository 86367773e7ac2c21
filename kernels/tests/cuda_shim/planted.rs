//! The shim itself: planted errors are caught, warp operations and PTX instructions do what the manual says.

use assay_kernels::device::{Argument, Device, DeviceError, Launch};

use super::process::Shim;

fn outcome(shim: &Shim, kernel: &'static str, block: u32, numbers: &[u32]) -> Result<Vec<u32>, String> {
    let out = shim.alloc(4 * block as usize).unwrap();
    let mut arguments = vec![Argument::Buffer(&out)];
    arguments.extend(numbers.iter().map(|number| Argument::Number(*number)));
    match shim.launch(Launch { kernel, grid: 1, block, shared: 4 * block }, &arguments) {
        Ok(()) => Ok(shim.read_words(&out, block as usize)),
        Err(DeviceError::Lost { reason }) => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

fn is_caught(kernel: &'static str, block: u32, numbers: &[u32], message: &str) {
    for seed in 0..3 {
        let Some(shim) = Shim::start(seed) else { return };
        let reason = outcome(&shim, kernel, block, numbers).unwrap_err();
        assert!(reason.contains(message), "{kernel}: {reason}");
    }
}

#[test]
fn a_planted_divergent_barrier_is_caught() {
    is_caught("planted_exit_kernel", 64, &[], "divergent barrier");
    is_caught("planted_exit_kernel", 32, &[], "divergent barrier");
    is_caught("planted_barrier_kernel", 64, &[], "divergent barrier");
    is_caught("planted_barrier_kernel", 32, &[], "divergent barrier");
}

#[test]
fn a_planted_divergent_shuffle_is_caught() {
    is_caught("planted_shuffle_kernel", 32, &[], "divergent warp operation");
}

#[test]
fn a_planted_race_is_caught_and_its_repair_is_not() {
    is_caught("planted_race_kernel", 64, &[2 - 2], "shared memory");
    is_caught("planted_race_kernel", 64, &[1], "shared memory");
    let Some(shim) = Shim::start(7) else { return };
    let ring = |block: u32| (1..=block).map(|next| next % block).collect::<Vec<_>>();
    assert_eq!(outcome(&shim, "planted_race_kernel", 64, &[2]).unwrap(), ring(64));
    assert_eq!(
        outcome(&shim, "planted_race_kernel", 32, &[1]).unwrap(),
        ring(32),
        "a barrier of one warp is enough"
    );
}

#[test]
fn bad_memory_accesses_are_caught() {
    is_caught("planted_unwritten_kernel", 32, &[], "never written");
    is_caught("planted_overflow_kernel", 32, &[], "dynamic shared memory");
    is_caught("planted_bounds_kernel", 32, &[], "left its buffers");
}

#[test]
fn bad_launches_are_refused() {
    is_caught("planted_race_kernel", 48, &[2], "whole warps");
    is_caught("planted_race_kernel", 64, &[], "arguments");
    is_caught("no_such_kernel", 64, &[], "no kernel");
}

#[test]
fn warp_operations_are_those_of_the_manual() {
    let Some(shim) = Shim::start(11) else { return };
    let out = shim.alloc(4 * 6 * 64).unwrap();
    let launch = Launch { kernel: "probe_warp_kernel", grid: 1, block: 64, shared: 0 };
    shim.launch(launch, &[Argument::Buffer(&out)]).unwrap();
    let words = shim.read_words(&out, 6 * 64);
    let mut tickets = Vec::new();
    for (t, seen) in (0u32..).zip(words.chunks(6)) {
        let (warp, lane) = (t & !31, t % 32);
        let mask =
            |chosen: &dyn Fn(u32) -> bool| (0..32).filter(|i| chosen(warp + i)).map(|i| 1 << i).sum::<u32>();
        assert_eq!(seen[0], (warp + 5).pow(2));
        assert_eq!(seen[1], (if lane >= 3 { t - 3 } else { t }).pow(2));
        assert_eq!(seen[2], (t ^ 7).pow(2));
        assert_eq!(seen[3], mask(&|i| i % 3 == 0));
        assert_eq!(seen[4], mask(&|i| i % 5 == t % 5));
        tickets.push(seen[5]);
    }
    tickets.sort_unstable();
    assert!(tickets.into_iter().eq(0..64), "atomics lose nothing");
}

#[test]
fn the_order_of_execution_depends_on_the_seed_alone() {
    let order = |seed| {
        let shim = Shim::start(seed)?;
        let (counter, out) = (shim.words(&[0]), shim.alloc(4 * 256).unwrap());
        let launch = Launch { kernel: "probe_order_kernel", grid: 4, block: 64, shared: 0 };
        shim.launch(launch, &[Argument::Buffer(&counter), Argument::Buffer(&out)]).unwrap();
        Some(shim.read_words(&out, 256))
    };
    let Some(first) = order(1) else { return };
    assert_eq!(Some(&first), order(1).as_ref());
    assert_ne!(Some(&first), order(2).as_ref());
}

#[test]
fn ptx_instructions_are_those_of_the_manual() {
    let Some(shim) = Shim::start(1) else { return };
    let edges = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff, 0x1234_5678];
    let mut input = Vec::new();
    for a in edges {
        for b in edges {
            for c in edges {
                input.extend([[a, b, c, 0], [a, b, c, 1]].as_flattened());
            }
        }
    }
    let count = input.len() / 4;
    let (from, out) = (shim.words(&input), shim.alloc(4 * 28 * count).unwrap());
    let launch = Launch { kernel: "probe_ptx_kernel", grid: count.div_ceil(64) as u32, block: 64, shared: 0 };
    shim.launch(launch, &[Argument::Buffer(&from), Argument::Buffer(&out), Argument::Number(count as u32)])
        .unwrap();
    let out = shim.read_words(&out, 28 * count);
    for (given, seen) in input.chunks(4).zip(out.chunks(28)) {
        let [a, b, c, carry] = [given[0], given[1], given[2], given[3]].map(u64::from);
        let (low, high) = (a * b & 0xffff_ffff, a * b >> 32);
        // (value, whether the flag is written); a negative value borrows.
        let expected: [(i128, bool); 14] = [
            (i128::from(a + b), true),
            (i128::from(a + b + carry), true),
            (i128::from(a + b + carry), false),
            (i128::from(a) - i128::from(b), true),
            (i128::from(a) - i128::from(b + carry), true),
            (i128::from(a) - i128::from(b + carry), false),
            (i128::from(low), false),
            (i128::from(high), false),
            (i128::from(low + c), true),
            (i128::from(low + c + carry), true),
            (i128::from(high + c + carry), true),
            (i128::from(high + c + carry), false),
            (i128::from(high + c), true),
            (i128::from(low + c + carry), false),
        ];
        for (index, (value, writes)) in expected.into_iter().enumerate() {
            let flag = if writes { u32::from(!(0..1 << 32).contains(&value)) } else { carry as u32 };
            assert_eq!(
                seen[2 * index..2 * index + 2],
                [value as u32, flag],
                "instruction {index} on {given:x?}"
            );
        }
    }
}
