//! Eight arkworks elements: works everywhere, and is what the vector lanes are tested against.

use super::{Arch, LaneField, Lanes, Packed, Routine, LANES};

/// No special instructions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

/// Eight arkworks elements, fully reduced after every operation.
#[derive(Clone, Copy, Debug)]
pub struct PortableLanes<F>([F; LANES]);

impl Arch for Portable {
    type Lanes<F: LaneField> = PortableLanes<F>;

    const NAME: &'static str = "portable";

    #[inline(never)]
    fn call<R: Routine<Self>>(self, routine: R) -> R::Output {
        routine.run(self)
    }

    #[inline(always)]
    fn load<F: LaneField>(self, elements: &[F; LANES]) -> PortableLanes<F> {
        PortableLanes(*elements)
    }

    #[inline(always)]
    fn load_refs<F: LaneField>(self, elements: [&F; LANES]) -> PortableLanes<F> {
        PortableLanes(elements.map(|element| *element))
    }

    #[inline(always)]
    fn load_integers<F: LaneField>(self, integers: &[[u64; 4]; LANES]) -> PortableLanes<F> {
        PortableLanes(
            integers.map(|words| {
                F::from_bigint(ark_ff::BigInt(words)).expect("integers must be below the modulus")
            }),
        )
    }

    #[inline(always)]
    fn unpack_words<F: LaneField>(self, words: [&[u64; 4]; LANES]) -> PortableLanes<F> {
        PortableLanes(words.map(|words| F::from_montgomery_words(*words)))
    }

    #[inline(always)]
    fn unpack_splat<F: LaneField>(self, packed: &Packed) -> PortableLanes<F> {
        PortableLanes([F::from_montgomery_words(packed.0); LANES])
    }

    #[inline(always)]
    fn splat<F: LaneField>(self, element: F) -> PortableLanes<F> {
        PortableLanes([element; LANES])
    }

    #[inline(always)]
    fn zero<F: LaneField>(self) -> PortableLanes<F> {
        PortableLanes([F::ZERO; LANES])
    }

    #[inline(always)]
    fn one<F: LaneField>(self) -> PortableLanes<F> {
        PortableLanes([F::ONE; LANES])
    }
}

impl<F: LaneField> Lanes<F> for PortableLanes<F> {
    #[inline(always)]
    fn store(self) -> [F; LANES] {
        self.0
    }

    #[inline(always)]
    fn store_integers(self) -> [[u64; 4]; LANES] {
        self.0.map(|element| element.into_bigint().0)
    }

    #[inline(always)]
    fn pack(self) -> [Packed; LANES] {
        self.0.map(|element| Packed(*element.montgomery_words()))
    }

    #[inline(always)]
    fn add(self, rhs: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + rhs.0[i]))
    }

    #[inline(always)]
    fn sub(self, rhs: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - rhs.0[i]))
    }

    #[inline(always)]
    fn neg(self) -> Self {
        Self(self.0.map(|element| -element))
    }

    #[inline(always)]
    fn mul(self, rhs: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * rhs.0[i]))
    }

    #[inline(always)]
    fn mul_raw(self, rhs: Self) -> Self {
        self.mul(rhs)
    }

    #[inline(always)]
    fn square(self) -> Self {
        Self(self.0.map(|element| element.square()))
    }

    #[inline(always)]
    fn zero_mask(self) -> u8 {
        (0..LANES).fold(0, |mask, i| mask | u8::from(self.0[i].is_zero()) << i)
    }

    #[inline(always)]
    fn select(mask: u8, on: Self, off: Self) -> Self {
        Self(std::array::from_fn(|i| if mask >> i & 1 == 1 { on.0[i] } else { off.0[i] }))
    }

    #[inline(always)]
    fn add_raw(self, rhs: Self) -> Self {
        self.add(rhs)
    }

    #[inline(always)]
    fn sub_raw(self, rhs: Self) -> Self {
        self.sub(rhs)
    }

    #[inline(always)]
    fn carry(self) -> Self {
        self
    }

    #[inline(always)]
    fn shrink(self) -> Self {
        self
    }
}
