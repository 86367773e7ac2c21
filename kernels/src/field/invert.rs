//! Inverses by the binary GCD on approximations (Pornin 2020, "Optimized binary GCD for modular inversion"): about a third of
//! the time of arkworks' binary GCD on whole numbers. Not constant-time.

use super::LaneField;

/// Steps on approximations between two updates of the whole numbers.
const STEPS: u32 = 31;

/// Four words of 64 bits, little-endian.
type Words = [u64; 4];

/// `1 / value`, or zero for zero.
pub(crate) fn invert<F: LaneField>(value: &F) -> F {
    let inverse = invert_words::<F>(*value.montgomery_words());
    // From `1 / (R value)` to `R / value`: a Montgomery product with R^3.
    F::from_montgomery_words(inverse) * F::from_montgomery_words(F::CONSTANTS.cubed)
}

/// Inverts all of `values` with one inversion; zeros stay zero.
pub(crate) fn invert_all<F: LaneField, const N: usize>(values: &mut [F; N]) {
    let mut before = [F::ONE; N];
    let mut product = F::ONE;
    for (value, before) in values.iter().zip(&mut before) {
        *before = product;
        if !value.is_zero() {
            product *= value;
        }
    }
    let mut inverse = invert(&product);
    for (value, before) in values.iter_mut().zip(&before).rev() {
        if !value.is_zero() {
            let inverted = inverse * before;
            inverse *= *value;
            *value = inverted;
        }
    }
}

/// The inverse modulo `p` of a number below `p`, zero for zero.
///
/// Throughout, `a = y u` and `b = y v` modulo `p`, and `b` is odd; in the end `a` is zero and `b` the common divisor.
fn invert_words<F: LaneField>(y: Words) -> Words {
    let (mut a, mut b) = (y, F::CONSTANTS.modulus_words);
    let (mut u, mut v) = ([1, 0, 0, 0], [0; 4]);
    while a != [0; 4] {
        let [to_a, to_b] = steps(approximate(&a, &b));
        let (next_a, to_a) = combine(&a, &b, to_a);
        let (next_b, to_b) = combine(&a, &b, to_b);
        (a, b) = (next_a, next_b);
        (u, v) = (combine_modulo::<F>(&u, &v, to_a), combine_modulo::<F>(&u, &v, to_b));
    }
    v
}

/// The lowest [`STEPS`] bits and the highest others, as many as fit, of two numbers in the scale of the larger one.
#[inline(always)]
fn approximate(a: &Words, b: &Words) -> (u64, u64) {
    let Some(top) = (1..4).rev().find(|&word| a[word] | b[word] != 0) else {
        return (a[0], b[0]);
    };
    let zeros = (a[top] | b[top]).leading_zeros();
    let low = (1 << STEPS) - 1;
    let join = |x: &Words| {
        let high = x[top] << zeros | x[top - 1] >> 1 >> (63 - zeros);
        high & !low | x[0] & low
    };
    (join(a), join(b))
}

/// [`STEPS`] steps: an odd `a` becomes the difference of both, the smaller one goes to `b`, and `a` is halved. Returns the factors
/// that make `2^STEPS` times the new numbers of the old ones.
#[inline(always)]
fn steps((mut a, mut b): (u64, u64)) -> [[i64; 2]; 2] {
    let [[mut f0, mut g0], [mut f1, mut g1]] = [[1i64, 0], [0, 1]];
    for _ in 0..STEPS {
        // Without branches: they could not be predicted.
        let odd = (a & 1).wrapping_neg();
        let swap = odd & u64::from(a < b).wrapping_neg();
        let change = (a ^ b) & swap;
        (a, b) = (a ^ change, b ^ change);
        let change = (f0 ^ f1) & swap.cast_signed();
        (f0, f1) = (f0 ^ change, f1 ^ change);
        let change = (g0 ^ g1) & swap.cast_signed();
        (g0, g1) = (g0 ^ change, g1 ^ change);
        a = a.wrapping_sub(b & odd) >> 1;
        f0 -= f1 & odd.cast_signed();
        g0 -= g1 & odd.cast_signed();
        (f1, g1) = (2 * f1, 2 * g1);
    }
    [[f0, g0], [f1, g1]]
}

/// `|a f + b g| / 2^STEPS`, which is an integer, and the factors with the signs that make it positive.
#[inline(always)]
fn combine(a: &Words, b: &Words, [f, g]: [i64; 2]) -> (Words, [i64; 2]) {
    let (sum, top) = signed_sum(a, b, [f, g]);
    let mut size = shifted(&sum, top);
    if top >= 0 {
        return (size, [f, g]);
    }
    let mut carry = true;
    for word in &mut size {
        (*word, carry) = (!*word).overflowing_add(u64::from(carry));
    }
    (size, [-f, -g])
}

/// `(u f + v g) / 2^STEPS` modulo `p`, for `|f| + |g|` of at most `2^STEPS`.
#[inline(always)]
fn combine_modulo<F: LaneField>(u: &Words, v: &Words, factors: [i64; 2]) -> Words {
    let p = F::CONSTANTS.modulus_words;
    let (mut sum, top) = signed_sum(u, v, factors);
    // A multiple of p makes the lowest bits vanish.
    let multiple = sum[0].wrapping_mul(F::CONSTANTS.inverse_negated_word) & ((1 << STEPS) - 1);
    let mut carry = 0;
    for (word, p) in sum.iter_mut().zip(p) {
        let total = u128::from(p) * u128::from(multiple) + u128::from(*word) + carry;
        (*word, carry) = (total as u64, total >> 64);
    }
    let top = top + carry as i64;
    // Between -p and 2p.
    let value = shifted(&sum, top);
    if top < 0 {
        return add(&value, &p);
    }
    let (less, negative) = subtract(&value, &p);
    if negative {
        value
    } else {
        less
    }
}

/// `a f + b g`: four words and a signed fifth.
#[inline(always)]
fn signed_sum(a: &Words, b: &Words, [f, g]: [i64; 2]) -> (Words, i64) {
    let mut carry = 0;
    let words = std::array::from_fn(|word| {
        carry += i128::from(a[word]) * i128::from(f) + i128::from(b[word]) * i128::from(g);
        let low = carry as u64;
        carry >>= 64;
        low
    });
    (words, carry as i64)
}

/// The low four words of a number over `2^STEPS`.
#[inline(always)]
fn shifted(words: &Words, top: i64) -> Words {
    let [a, b, c, d] = *words;
    let shift = |low: u64, high: u64| low >> STEPS | high << (64 - STEPS);
    [shift(a, b), shift(b, c), shift(c, d), shift(d, top.cast_unsigned())]
}

/// `a + b` modulo `2^256`.
#[inline(always)]
fn add(a: &Words, b: &Words) -> Words {
    let mut carry = false;
    std::array::from_fn(|word| {
        let (sum, over) = a[word].overflowing_add(b[word]);
        let (sum, more) = sum.overflowing_add(u64::from(carry));
        carry = over | more;
        sum
    })
}

/// `a - b` modulo `2^256`, and whether it is negative.
#[inline(always)]
fn subtract(a: &Words, b: &Words) -> (Words, bool) {
    let mut borrow = false;
    let difference = std::array::from_fn(|word| {
        let (difference, under) = a[word].overflowing_sub(b[word]);
        let (difference, more) = difference.overflowing_sub(u64::from(borrow));
        borrow = under | more;
        difference
    });
    (difference, borrow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_bn254::{Fq, Fr};
    use ark_ff::AdditiveGroup;

    fn agrees<F: LaneField>() {
        let mut rng = ark_std::test_rng();
        let mut values: Vec<F> = (0..5_000).map(|_| F::rand(&mut rng)).collect();
        for power in 0..256 {
            let power = F::from(2u64).pow([power]);
            // Also as Montgomery forms: one word, a power, just below the modulus.
            for value in [power, -power, power - F::ONE, F::from_montgomery_words(power.into_bigint().0)] {
                values.extend([value, -value, F::from_montgomery_words((-value).into_bigint().0)]);
            }
        }
        values.extend((1..200u64).map(|low| F::from_montgomery_words([low, 0, 0, 0])));
        for value in &values {
            assert_eq!(Some(invert(value)), value.inverse().or(Some(F::ZERO)), "{value}");
        }
        let mut some: [F; 9] = std::array::from_fn(|at| if at % 4 == 1 { F::ZERO } else { values[at] });
        let expected = some.map(|value| value.inverse().unwrap_or(F::ZERO));
        invert_all(&mut some);
        assert_eq!(some, expected);
        let mut zeros = [F::ZERO; 3];
        invert_all(&mut zeros);
        assert_eq!(zeros, [F::ZERO; 3]);
    }

    #[test]
    fn inverses_are_those_of_arkworks() {
        agrees::<Fq>();
        agrees::<Fr>();
        assert_eq!(invert(&Fq::ZERO), Fq::ZERO);
    }
}
