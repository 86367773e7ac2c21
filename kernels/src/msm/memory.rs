//! A chunk's points and their images, copied to memory of their own.
//!
//! Points are read in random order, once for every window: with small pages nearly every read would miss the translation cache,
//! so the copy lies on huge pages where the system gives them. It also takes the points from a mapped file in one pass.

#![allow(
    unsafe_code,
    reason = "anonymous memory read and written as points; every block says why it is sound"
)]

use super::Point;
use crate::field::{dispatch, Arch, Kernel, Lanes, LANES};
use ark_bn254::Fq;
use memmap2::MmapMut;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use zeroize::Zeroize;

/// Bytes from which on huge pages are asked for.
const HUGE: usize = 4 << 20;
/// Points that a task copies.
const GRAIN: usize = 1 << 11;

/// Room for the points of a chunk and their images.
pub(super) struct Memory<P> {
    bytes: Bytes<P>,
}

enum Bytes<P> {
    Heap(Vec<MaybeUninit<P>>),
    Mapped(MmapMut, PhantomData<P>),
}

impl<P: Point> Memory<P> {
    /// Room for `points` points and as many images.
    pub(super) fn new(points: usize) -> Self {
        let bytes = 2 * points * size_of::<P>();
        let mapped = if bytes < HUGE { None } else { MmapMut::map_anon(bytes).ok() };
        let bytes = match mapped {
            Some(map) => {
                #[cfg(target_os = "linux")]
                if let Err(error) = map.advise(memmap2::Advice::HugePage) {
                    tracing::debug!(%error, "no huge pages");
                }
                Bytes::Mapped(map, PhantomData)
            }
            None => Bytes::Heap(vec![MaybeUninit::uninit(); 2 * points]),
        };
        Self { bytes }
    }

    /// Copies `points`, at most as many as there is room for; then follow their images, or anything for points whose image is
    /// not used.
    pub(super) fn fill(&mut self, points: &[P], uses_image: impl Fn(usize) -> bool + Sync) -> &[P] {
        let room: &mut [MaybeUninit<P>] = match &mut self.bytes {
            Bytes::Heap(room) => room,
            // SAFETY: a map is page-aligned, which is enough for any point; it is as long as `new` asked for, a whole number of
            // points; any bytes are a `MaybeUninit`; the result borrows the map.
            Bytes::Mapped(map, _) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), map.len() / size_of::<P>())
            },
        };
        let (copies, rest) = room[..2 * points.len()].split_at_mut(points.len());
        let parts =
            copies.par_chunks_mut(GRAIN).zip(rest.par_chunks_mut(GRAIN)).zip(points.par_chunks(GRAIN));
        parts.enumerate().for_each(|(part, ((copies, images), points))| {
            let from = part * GRAIN;
            dispatch(Fill { points, copies, images, uses_image: |at| uses_image(from + at) });
        });
        // SAFETY: `Fill` wrote all of the first `2 * points.len()` points, and the result borrows the room.
        unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), 2 * points.len()) }
    }
}

/// Which images there are follows from the scalars. A map goes back to the system, which shows its contents to nobody.
impl<P> Drop for Memory<P> {
    fn drop(&mut self) {
        if let Bytes::Heap(room) = &mut self.bytes {
            room.as_mut_slice().zeroize();
        }
    }
}

/// Writes all of `copies` and `images`.
struct Fill<'a, P, U> {
    points: &'a [P],
    copies: &'a mut [MaybeUninit<P>],
    images: &'a mut [MaybeUninit<P>],
    uses_image: U,
}

impl<P: Point, U: Fn(usize) -> bool> Kernel for Fill<'_, P, U> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let factor = arch.splat::<Fq>(P::ENDOMORPHISM);
        for (copy, point) in self.copies.iter_mut().zip(self.points) {
            copy.write(*point);
        }
        let (groups, rest) = self.points.as_chunks::<LANES>();
        let (images, last) = self.images.split_at_mut(groups.len() * LANES);
        for (group, (points, images)) in groups.iter().zip(images.as_chunks_mut::<LANES>().0).enumerate() {
            let mut found = *points;
            if (0..LANES).any(|lane| (self.uses_image)(group * LANES + lane)) {
                for part in 0..P::WIDTH {
                    let x = arch.unpack_words::<Fq>(points.each_ref().map(|point| point.part(part)));
                    for (image, x) in found.iter_mut().zip(x.mul(factor).pack()) {
                        *image.part_mut(part) = x.0;
                    }
                }
            }
            for (image, found) in images.iter_mut().zip(found) {
                image.write(found);
            }
        }
        for (image, point) in last.iter_mut().zip(rest) {
            image.write(point.endomorphism());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msm::{G1Point, G2Point};
    use ark_ec::short_weierstrass::{Affine, Projective};
    use ark_ec::{AffineRepr, CurveGroup};

    fn filled<P: Point + PartialEq + std::fmt::Debug>(room: usize, counts: &[usize]) {
        let mut memory = Memory::<P>::new(room);
        let generator = Affine::<P::Curve>::generator().into_group();
        let all: Vec<_> =
            std::iter::successors(Some(generator), |point| Some(*point + generator)).take(room).collect();
        let all: Vec<P> =
            Projective::normalize_batch(&all).iter().map(|point| P::from_affine(point).unwrap()).collect();
        for &count in counts {
            let used = |at: usize| at % 100 < 50;
            let found = memory.fill(&all[room - count..], used);
            assert_eq!(found.len(), 2 * count);
            assert_eq!(found[..count], all[room - count..]);
            for at in (0..count).filter(|at| used(*at)) {
                assert_eq!(found[count + at], all[room - count + at].endomorphism());
            }
        }
    }

    #[test]
    fn copies_and_images_are_those_of_the_points() {
        filled::<G1Point>(4000, &[4000, 1, 9, 2049]);
        filled::<G2Point>(300, &[300, 7]);
        // On a map.
        filled::<G1Point>(40_001, &[40_001, 3000]);
    }
}
