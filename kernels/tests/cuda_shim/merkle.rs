//! `cuda/poseidon2.cu` against `src/poseidon2.rs` and `src/merkle.rs`.

use ark_bn254::Fr;
use ark_ff::{AdditiveGroup, UniformRand};
use assay_kernels::device::{decode, encode, Argument, Device, DeviceTree};
use assay_kernels::merkle::{MerkleTree, Rows};
use assay_kernels::poseidon2::{permute_one, Sponge};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::process::{threads, Shim};

struct Matrix {
    height: usize,
    width: usize,
    values: Vec<u32>,
}

impl Matrix {
    fn random(height: usize, width: usize) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64((height * 1000 + width) as u64);
        let mut values: Vec<u32> = (0..height * width).map(|_| rng.gen::<u32>() >> 1).collect();
        values.iter_mut().take(width).for_each(|value| *value = (1 << 31) - 1);
        Self { height, width, values }
    }
}

impl Rows for Matrix {
    fn height(&self) -> usize {
        self.height
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&self, index: usize, out: &mut [u32]) {
        out.copy_from_slice(&self.values[index * self.width..(index + 1) * self.width]);
    }
}

#[test]
fn permutations_are_those_of_the_cpu() {
    let Some(shim) = Shim::start(1) else { return };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for count in [1, 63, 65] {
        let mut states: Vec<[Fr; 3]> =
            (0..count).map(|_| std::array::from_fn(|_| Fr::rand(&mut rng))).collect();
        states[0] = [Fr::ZERO, -Fr::from(1), Fr::from(2)];
        let buffer = shim.upload(&encode(states.as_flattened())).unwrap();
        let launch = threads("poseidon2_permute_kernel", count);
        shim.launch(launch, &[Argument::Buffer(&buffer), Argument::Number(count as u32)]).unwrap();
        states.iter_mut().for_each(permute_one);
        assert_eq!(decode(&shim.download(&buffer, 0..96 * count).unwrap()), states.as_flattened());
    }
}

#[test]
fn trees_are_those_of_the_cpu() {
    // Around one launch of the top (256 leaves) and blocks of 128 rows; widths around 8 and 16.
    for (height, width) in [
        (1, 1),
        (2, 8),
        (3, 9),
        (5, 7),
        (31, 16),
        (64, 17),
        (127, 2),
        (129, 33),
        (256, 3),
        (257, 1),
        (513, 2),
    ] {
        let Some(shim) = Shim::start(height as u64) else { return };
        let matrix = Matrix::random(height, width);
        let rows = shim.words(&matrix.values);
        let tree = DeviceTree::build(&shim, &rows, height, width).unwrap();
        let cpu = MerkleTree::build(&matrix);
        let leaves = tree.level(&shim, 0).unwrap();
        for (row, leaf) in matrix.values.chunks(width).zip(&leaves) {
            assert_eq!(Sponge::hash_one(row), *leaf);
        }
        assert!(leaves[height..].iter().all(|leaf| *leaf == Fr::ZERO));
        for level in 1..=cpu.log_height() {
            let (below, above) = (tree.level(&shim, level - 1).unwrap(), tree.level(&shim, level).unwrap());
            let expected: Vec<Fr> =
                below.chunks(2).map(|pair| Sponge::compress_one(pair[0], pair[1])).collect();
            assert_eq!(above, expected, "level {level} of {height} rows");
        }
        assert_eq!(tree.level(&shim, cpu.log_height()).unwrap(), [cpu.root()], "{height} rows of {width}");
    }
}
