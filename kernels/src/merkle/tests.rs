//! Against a tree built level by level with the scalar hash, at shapes around every boundary.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;

struct Matrix {
    width: usize,
    values: Vec<u32>,
    height: usize,
}

impl Matrix {
    fn random(height: usize, width: usize, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Self { width, height, values: (0..height * width).map(|_| rng.gen::<u32>() >> 1).collect() }
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

/// Every level of the tree, leaves first.
fn plain(matrix: &Matrix) -> Vec<Vec<Fr>> {
    let mut leaves: Vec<Fr> = (0..matrix.height)
        .map(|row| Sponge::hash_one(&matrix.values[row * matrix.width..(row + 1) * matrix.width]))
        .collect();
    leaves.resize(matrix.height.next_power_of_two(), Fr::ZERO);
    let mut levels = vec![leaves];
    while levels[levels.len() - 1].len() > 1 {
        let below = &levels[levels.len() - 1];
        levels.push(below.chunks(2).map(|pair| Sponge::compress_one(pair[0], pair[1])).collect());
    }
    levels
}

const SHAPES: [(usize, usize); 14] = [
    (1, 1),
    (1, 40),
    (2, 8),
    (3, 9),
    (7, 16),
    (8, 17),
    (9, 7),
    (63, 15),
    (64, 24),
    (65, 33),
    (500, 31),
    (512, 32),
    (1000, 3),
    (4096, 8),
];

#[test]
fn roots_and_paths_are_those_of_a_plain_tree() {
    for (seed, (height, width)) in SHAPES.into_iter().enumerate() {
        let matrix = Matrix::random(height, width, seed as u64);
        let levels = plain(&matrix);
        let tree = MerkleTree::build(&matrix);
        assert_eq!(tree.root(), levels[levels.len() - 1][0], "{height} x {width}");
        let padded = height.next_power_of_two();
        let indices: Vec<usize> =
            [0, padded - 1, padded / 2, height - 1, padded / 3].into_iter().cycle().take(11).collect();
        let paths = tree.open(&matrix, &indices).unwrap();
        assert_eq!(paths.len(), indices.len());
        for (index, path) in indices.iter().zip(paths) {
            let expected: Vec<Fr> =
                (0..levels.len() - 1).map(|level| levels[level][(index >> level) ^ 1]).collect();
            assert_eq!(path, expected, "{height} x {width} at {index}");
        }
    }
}

#[test]
fn decoding_gives_the_tree_back_and_rejects_other_bytes() {
    for (height, width) in [(1, 3), (65, 4), (1000, 3)] {
        let tree = MerkleTree::build(&Matrix::random(height, width, 9));
        let bytes = tree.encode();
        assert_eq!(MerkleTree::decode(height, width, &bytes).unwrap(), tree);
        assert_eq!(
            MerkleTree::decode(height, width, &bytes[1..]),
            Err(MerkleError::Length { expected: bytes.len(), got: bytes.len() - 1 })
        );
        let mut large = bytes.clone();
        large[..32].fill(0xff);
        assert_eq!(MerkleTree::decode(height, width, &large), Err(MerkleError::Digest { index: 0 }));
    }
}

#[test]
fn opening_with_other_rows_or_beyond_the_end_is_refused() {
    let mut matrix = Matrix::random(1000, 5, 10);
    let tree = MerkleTree::build(&matrix);
    assert_eq!(tree.open(&matrix, &[1024]), Err(MerkleError::IndexOutOfRange { expected: 1024, got: 1024 }));
    matrix.values[5 * 130] ^= 1;
    assert_eq!(tree.open(&matrix, &[3, 190]), Err(MerkleError::RowsDiffer { subtree: 2 }));
    assert!(tree.open(&matrix, &[3, 192]).is_ok());
}

#[test]
fn commitment_binds_height_and_width() {
    let tree = MerkleTree::build(&Matrix::random(64, 5, 11));
    assert_eq!(tree.commitment(), Sponge::compress_one(tree.root(), Sponge::hash_one(&[6, 5])));
}
