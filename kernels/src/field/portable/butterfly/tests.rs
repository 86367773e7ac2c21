//! Against arkworks' integers, at every bound that the sums and products may reach.

use ark_bn254::{Fq, Fr};
use ark_ff::{BigInt, BigInteger, Field, PrimeField, UniformRand};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::field::portable::lanes;

/// `count * p + plus`.
fn around<F: LaneField>(count: u64, plus: i64) -> Words {
    let mut value = BigInt::<4>::from(plus.unsigned_abs());
    if plus < 0 {
        value = BigInt([u64::MAX; 4]);
        value.sub_with_borrow(&BigInt::from(plus.unsigned_abs() - 1));
    }
    (0..count).for_each(|_| {
        value.add_with_carry(&F::MODULUS);
    });
    value.0
}

/// Every multiple of `p` below `2^256` and its neighbours, every step of [`reduce`]'s table and its neighbours, the largest
/// value, and random ones.
fn values<F: LaneField>() -> Vec<Words> {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let mut out = vec![[0; 4], [1, 0, 0, 0], [u64::MAX; 4]];
    for count in 1..=5 {
        out.extend([-1, 0, 1].map(|plus| around::<F>(count, plus)));
    }
    for step in 1..64 {
        let above = [0, 0, 0, step << 58];
        out.extend([above, difference(&above, &[1, 0, 0, 0]).0]);
    }
    for word in 0..4 {
        out.push(std::array::from_fn(|at| if at == word { u64::MAX } else { 0 }));
        out.push(std::array::from_fn(|at| if at == word { 0 } else { u64::MAX }));
    }
    out.extend((0..64).map(|_| rng.gen::<Words>()));
    out
}

/// Factors with extreme words, with a few leading or trailing ones, and random.
fn factors<F: LaneField>() -> Vec<F> {
    let mut rng = ChaCha20Rng::seed_from_u64(10);
    let mut out = vec![F::ZERO, F::ONE, -F::ONE];
    // Every row of the table at its largest: p - 1, each made from it by a step of the reduction.
    for steps in 0..4u64 {
        let step = F::from(2u64).pow([64 * steps]);
        out.push(F::from_montgomery_words(around::<F>(1, -1)) * step);
        out.push(F::from_montgomery_words([1, 0, 0, 0]) * step);
    }
    out.extend((0..16).map(|_| F::rand(&mut rng)));
    out
}

/// The residue of an integer.
fn residue<F: LaneField>(words: &Words) -> F {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    F::from_le_bytes_mod_order(&bytes)
}

fn packed<F: LaneField>(factor: F) -> Packed {
    Packed(*factor.montgomery_words())
}

fn below(words: &Words, bound: Words) -> bool {
    BigInt(*words) < BigInt(bound)
}

/// `count * p + 2^(250 + shift)`.
fn above<F: LaneField>(count: u64, shift: u32) -> Words {
    sum(&around::<F>(count, 0), &[0, 0, 0, 1 << 58 << shift])
}

fn products_and_reductions_hold<F: LaneField>() {
    for factor in factors::<F>() {
        let prepared = prepare::<F>(&packed(factor));
        for (row, words) in prepared.iter().enumerate() {
            assert_eq!(residue::<F>(words), factor * F::from(2u64).pow([64 * (row as u64 + 1)]));
            assert!(below(words, F::MODULUS.0));
        }
        for x in values::<F>() {
            let product = multiply::<F>(&x, &prepared);
            assert_eq!(residue::<F>(&product), residue::<F>(&x) * factor, "{x:?} * {factor}");
            assert!(below(&product, around::<F>(5, 0)), "{x:?} * {factor}");
        }
    }
    for x in values::<F>() {
        let reduced = reduce::<F>(&x);
        assert_eq!(residue::<F>(&reduced), residue::<F>(&x), "{x:?}");
        assert!(below(&reduced, above::<F>(1, 0)), "{x:?}");
        assert_eq!(reduce_fully::<F>(&x), residue::<F>(&x).into_bigint().0, "{x:?}");
    }
}

#[test]
fn products_with_a_prepared_factor_and_reductions_hold_for_all_256_bits() {
    products_and_reductions_hold::<Fr>();
    products_and_reductions_hold::<Fq>();
}

/// Eight lanes of values from a list, beginning anywhere.
fn take<F: LaneField>(values: &[Words], start: usize) -> PortableLanes<F> {
    lanes(std::array::from_fn(|lane| values[(start + lane) % values.len()]))
}

type Butterfly<F> = fn(&mut [PortableLanes<F>], &mut [PortableLanes<F>], Twiddle<'_>, bool);

/// Runs one butterfly on all pairs of neighbours and hands inputs, factor and outputs to `check`.
fn for_all<F: LaneField>(
    butterfly: Butterfly<F>,
    values: &[Words],
    distance: usize,
    check: impl Fn([&Words; 2], F, [&Words; 2]),
) {
    let factors = factors::<F>();
    let packs: Vec<Packed> = factors.iter().copied().map(packed).collect();
    for (start, negated) in (0..values.len()).flat_map(|start| [(start, false), (start, true)]) {
        let at = |lane: usize| (start + lane) % factors.len();
        let cases = [
            (Twiddle::One, [F::ONE; LANES]),
            (Twiddle::Same(&packs[at(0)]), [factors[at(0)]; LANES]),
            (
                Twiddle::Each(std::array::from_fn(|lane| &packs[at(lane)])),
                std::array::from_fn(|lane| factors[at(lane)]),
            ),
        ];
        for (twiddle, factors) in cases {
            // Two rows: a factor serves more than one.
            let before = [[start, start + LANES], [start + distance, start + distance + LANES]]
                .map(|starts| starts.map(|start| take::<F>(values, start)));
            let [mut left, mut right] = before;
            butterfly(&mut left, &mut right, twiddle, negated);
            for (row, lane) in (0..2).flat_map(|row| (0..LANES).map(move |lane| (row, lane))) {
                let factor = if negated { -factors[lane] } else { factors[lane] };
                check(
                    before.each_ref().map(|side| &side[row].0[lane]),
                    factor,
                    [&left[row].0[lane], &right[row].0[lane]],
                );
            }
        }
    }
}

fn splits_hold<F: LaneField>() {
    for distance in [0, 1, 7, 40] {
        for_all::<F>(split, &values::<F>(), distance, |[x, y], factor, [plus, minus]| {
            let product = residue::<F>(y) * factor;
            assert_eq!(residue::<F>(plus), residue::<F>(x) + product, "{x:?} {y:?} {factor}");
            assert_eq!(residue::<F>(minus), residue::<F>(x) - product, "{x:?} {y:?} {factor}");
            assert!(below(plus, above::<F>(3, 0)) && below(minus, above::<F>(3, 0)));
        });
    }
}

#[test]
fn splits_take_any_values_and_stay_below_their_bound() {
    splits_hold::<Fr>();
    splits_hold::<Fq>();
}

fn merges_hold<F: LaneField>() {
    let doubled = around::<F>(2, 0);
    let values: Vec<Words> = values::<F>().into_iter().filter(|x| below(x, doubled)).collect();
    for distance in [0, 1, 7, 40] {
        for_all::<F>(merge, &values, distance, |[x, y], factor, [sum, difference]| {
            let (a, b) = (residue::<F>(x), residue::<F>(y));
            assert_eq!(residue::<F>(sum), a + b, "{x:?} {y:?}");
            assert_eq!(residue::<F>(difference), (a - b) * factor, "{x:?} {y:?} {factor}");
            assert!(below(sum, doubled) && below(difference, doubled));
        });
    }
}

#[test]
fn merges_take_and_give_values_below_twice_the_modulus() {
    merges_hold::<Fr>();
    merges_hold::<Fq>();
}
