//! Constants against arkworks, and every operation on every architecture against arkworks.

use ark_bn254::{Fq, Fr};
use ark_ff::{BigInt, BigInteger, Field, One, UniformRand, Zero};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;

fn join(limbs: [u64; 5]) -> BigInt<4> {
    let mut sum = BigInt::<4>::zero();
    for limb in limbs.iter().rev() {
        sum <<= 52;
        sum.add_with_carry(&BigInt::from(*limb));
    }
    sum
}

fn constants_agree_with_arkworks<F: LaneField>() {
    let c = F::CONSTANTS;
    let two = F::from(2u64);
    assert_eq!(join(c.modulus), F::MODULUS);
    let mut doubled = F::MODULUS;
    doubled.mul2();
    assert_eq!(join(c.modulus_doubled), doubled);
    for (limbs, exponent) in [(c.one, 260u64), (c.from_ark, 264), (c.to_ark, 256), (c.from_integer, 520)] {
        assert_eq!(join(limbs), two.pow([exponent]).into_bigint());
    }
    assert_eq!(c.modulus[0].wrapping_mul(c.inverse_negated).wrapping_add(1) & ((1 << 52) - 1), 0);
    assert_eq!((c.modulus_words, c.modulus_doubled_words), (F::MODULUS.0, doubled.0));
    assert_eq!(c.modulus_words[0].wrapping_mul(c.inverse_negated_word), u64::MAX);
    assert_eq!(BigInt(c.cubed), two.pow([768]).into_bigint());
    // p + (2^260 - p): every limb of the sum is zero once carried.
    let mut carry = 0;
    for i in 0..5 {
        let sum = c.modulus[i] + c.modulus_negated[i] + carry;
        assert_eq!(sum & ((1 << 52) - 1), 0);
        carry = sum >> 52;
    }
    assert_eq!(carry, 1);
    // quotient_factor * p <= 2^260 < (quotient_factor + 1) * p, by the top words: 2^260 / 2^192 = 2^68.
    let p_top = u128::from(F::MODULUS.0[3]);
    assert!(u128::from(c.quotient_factor) * p_top <= 1 << 68);
    assert!(u128::from(c.quotient_factor + 1) * (p_top + 1) > 1 << 68);
}

#[test]
fn constants_of_both_fields_agree_with_arkworks() {
    constants_agree_with_arkworks::<Fr>();
    constants_agree_with_arkworks::<Fq>();
}

/// Runs every operation on one pair of inputs and compares with arkworks.
struct Check<F>([F; LANES], [F; LANES], u8);

impl<F: LaneField> Kernel for Check<F> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let Self(x, y, mask) = self;
        let (a, b) = (arch.load(&x), arch.load_refs(y.each_ref()));
        let each = |f: fn(F, F) -> F| -> [F; LANES] { std::array::from_fn(|i| f(x[i], y[i])) };
        assert_eq!(a.store(), x);
        assert_eq!(arch.unpack::<F>(&a.pack()).store(), x);
        assert_eq!(arch.unpack_splat::<F>(&a.pack()[3]).store(), [x[3]; LANES]);
        // Words in a foreign form stay in it through a linear map.
        let words = x.each_ref().map(|element| element.montgomery_words());
        let foreign = arch.unpack_words::<F>(words).mul(b).pack();
        assert_eq!(foreign.map(|words| F::from_montgomery_words(words.0)), each(|x, y| x * y));
        assert_eq!(arch.load_integers::<F>(&x.map(|v| v.into_bigint().0)).store(), x);
        assert_eq!(a.store_integers(), x.map(|v| v.into_bigint().0));
        assert_eq!(a.add(b).store(), each(|x, y| x + y));
        assert_eq!(a.sub(b).store(), each(|x, y| x - y));
        assert_eq!(a.neg().store(), each(|x, _| -x));
        assert_eq!(a.negate_where(mask).store(), A::Lanes::<F>::select(mask, a.neg(), a).store());
        assert_eq!(a.double().store(), each(|x, _| x + x));
        assert_eq!(a.mul(b).store(), each(|x, y| x * y));
        assert_eq!(a.mul_raw(b).carry().store(), each(|x, y| x * y));
        assert_eq!(a.mul_raw(b).add_raw(b).shrink().store(), each(|x, y| x * y + y));
        assert_eq!(a.square().store(), each(|x, _| x * x));
        assert_eq!(a.sub_raw(b).carry().mul(b).store(), each(|x, y| (x - y) * y));
        assert_eq!(a.sub_raw(b).add_raw(a).carry().shrink().store(), each(|x, y| x + x - y));
        assert_eq!(
            A::Lanes::<F>::select(mask, a, b).store(),
            std::array::from_fn(|i| {
                if mask >> i & 1 == 1 {
                    x[i]
                } else {
                    y[i]
                }
            })
        );
        assert_eq!(a.zero_mask(), bits(|i| x[i].is_zero()));
        assert_eq!(a.eq_mask(b), bits(|i| x[i] == y[i]));
        assert_eq!(a.sub(a).zero_mask(), 0xff);
        assert_eq!(a.add(a.neg()).zero_mask(), 0xff);
        assert_eq!(arch.splat(x[0]).eq_mask(a), bits(|i| x[i] == x[0]));
        assert_eq!(arch.one::<F>().mul(b).store(), y);
        assert_eq!(arch.zero::<F>().add(b).store(), y);
    }
}

fn bits(f: impl Fn(usize) -> bool) -> u8 {
    (0..LANES).fold(0, |mask, i| mask | u8::from(f(i)) << i)
}

/// Runs a kernel on every architecture this machine has.
fn on_every_arch<K: Kernel<Output = ()>>(make: impl Fn() -> K) {
    make().run(Portable);
    #[cfg(target_arch = "x86_64")]
    match Ifma::detect() {
        Some(arch) => arch.enter(make()),
        None => eprintln!("skipped the AVX-512 half: this CPU has no IFMA"),
    }
}

/// Values around every place where a carry or a subtraction can go wrong, and random ones.
fn edge_or_random<F: LaneField>() -> impl Strategy<Value = F> {
    prop_oneof![
        Just(F::zero()),
        Just(F::one()),
        Just(-F::one()),
        (0u32..256, any::<bool>()).prop_map(|(k, minus)| {
            let power = F::from(2u64).pow([u64::from(k)]);
            if minus {
                power - F::one()
            } else {
                power
            }
        }),
        any::<[u64; 4]>().prop_map(|words| F::from_montgomery_words(below_modulus::<F>(words))),
        any::<[u8; 32]>().prop_map(|bytes| F::from_le_bytes_mod_order(&bytes)),
    ]
}

fn below_modulus<F: LaneField>(mut words: [u64; 4]) -> [u64; 4] {
    words[3] %= F::MODULUS.0[3];
    words
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn scalar_field_operations_agree_with_arkworks(
        x in prop::array::uniform8(edge_or_random::<Fr>()), y in prop::array::uniform8(edge_or_random::<Fr>()), mask: u8
    ) {
        on_every_arch(|| Check(x, y, mask));
    }

    #[test]
    fn base_field_operations_agree_with_arkworks(
        x in prop::array::uniform8(edge_or_random::<Fq>()), y in prop::array::uniform8(edge_or_random::<Fq>()), mask: u8
    ) {
        on_every_arch(|| Check(x, y, mask));
    }
}

/// Sums up to the documented bound, then shrinks or multiplies.
struct WideSums([Fr; LANES]);

impl Kernel for WideSums {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let a = arch.load(&self.0);
        let mut sum = a;
        for count in 2..=31u64 {
            sum = sum.add_raw(a);
            assert_eq!(sum.shrink().store(), self.0.map(|x| x * Fr::from(count)), "{count} terms, raw");
            assert_eq!(sum.carry().shrink().store(), self.0.map(|x| x * Fr::from(count)), "{count} terms");
            if count <= 4 {
                assert_eq!(sum.carry().square().store(), self.0.map(|x| (x * Fr::from(count)).square()));
                assert_eq!(
                    sum.carry().mul(sum.carry()).store(),
                    self.0.map(|x| (x * Fr::from(count)).square())
                );
            }
        }
    }
}

#[test]
fn wide_sums_shrink_and_multiply_correctly_up_to_their_bounds() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut x: [Fr; LANES] = std::array::from_fn(|_| Fr::rand(&mut rng));
    // The largest internal representatives: those whose form with R = 2^260 is just below the modulus.
    let r = Fr::from(2u64).pow([260]).inverse().unwrap();
    x[0] = -r;
    x[1] = -Fr::one();
    on_every_arch(|| WideSums(x));
}

struct Invert(Vec<[Fq; LANES]>);

impl Kernel for Invert {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let mut values: Vec<_> = self.0.iter().map(|x| arch.load(x)).collect();
        let mut scratch = values.clone();
        batch_invert(arch, &mut values, &mut scratch);
        for (value, x) in values.iter().zip(&self.0) {
            assert_eq!(value.store(), x.map(|x| x.inverse().unwrap_or_default()));
        }
    }
}

#[test]
fn batch_inversion_agrees_with_arkworks_and_keeps_zeros() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for length in [0, 1, 2, 17] {
        let mut x: Vec<[Fq; LANES]> =
            (0..length).map(|_| std::array::from_fn(|_| Fq::rand(&mut rng))).collect();
        if length > 2 {
            x[0][3] = Fq::zero();
            x[5] = [Fq::zero(); LANES];
            x[16][7] = Fq::zero();
        }
        on_every_arch(|| Invert(x.clone()));
    }
}

#[test]
fn dispatch_runs_the_architecture_it_names() {
    struct Name;
    impl Kernel for Name {
        type Output = &'static str;
        fn run<A: Arch>(self, _: A) -> &'static str {
            A::NAME
        }
    }
    assert_eq!(dispatch(Name), arch_name());
}

/// [`dispatch`] decides once, so the library's other tests run again in a process of their own.
#[test]
fn everything_holds_without_vector_instructions() {
    if std::env::var_os(ARCH_VARIABLE).is_some() {
        assert_eq!(arch_name(), Portable::NAME);
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().expect("the test binary has a path"));
    let filters = ["field::", "groth16::", "merkle::", "msm::", "ntt::", "poseidon2::"];
    let run =
        again.args(filters).env(ARCH_VARIABLE, Portable::NAME).output().expect("the test binary starts");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    assert!(said.contains("field::tests::everything_holds_without_vector_instructions ... ok"), "{said}");
}
