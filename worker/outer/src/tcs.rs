//! The tensor commitment scheme of the wrap prover.

use std::{fmt, sync::Arc};

use assay_kernels::merkle::{MerkleError, MerkleTree, Rows};
use slop_algebra::PrimeField32;
use slop_alloc::CpuBackend;
use slop_challenger::IopCtx;
use slop_commit::Message;
use slop_futures::OwnedBorrow;
use slop_merkle_tree::{ComputeTcsOpenings, MerkleTreeTcsProof, TensorCsProver};
use slop_tensor::Tensor;
use sp1_primitives::SP1Field;

use crate::{convert::to_digest, OuterDigest, TreeCache};

/// Commits to tensors row by row, as the zkVM's `BnProver` does: same commitments, same openings.
#[derive(Clone, Debug, Default)]
pub struct OuterTcs {
    cache: Option<Arc<TreeCache>>,
}

impl OuterTcs {
    /// A scheme that looks in `cache` before it hashes. For the one thing that is committed to again and again only.
    #[must_use]
    pub fn with_cache(cache: Arc<TreeCache>) -> Self {
        Self { cache: Some(cache) }
    }
}

/// A committed tree, and the rows it was built from (shared with the prover, not copied).
#[derive(Clone)]
pub struct CommittedTree {
    tree: Arc<MerkleTree>,
    rows: Arc<dyn Rows>,
}

impl fmt::Debug for CommittedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommittedTree")
            .field("log_height", &self.tree.log_height())
            .field("width", &self.tree.width())
            .finish_non_exhaustive()
    }
}

/// Tensors of the same height side by side.
struct TensorRows<T> {
    tensors: Message<T>,
    height: usize,
    width: usize,
}

impl<T: OwnedBorrow<Tensor<SP1Field>>> TensorRows<T> {
    fn new(tensors: Message<T>) -> Self {
        let shapes: Vec<(usize, usize)> = tensors.iter().map(|tensor| shape(tensor)).collect();
        let height = shapes.first().expect("a commitment needs a tensor").0;
        assert!(shapes.iter().all(|shape| shape.0 == height), "tensors must have the same height");
        Self { tensors, height, width: shapes.iter().map(|shape| shape.1).sum() }
    }
}

fn tensor_of<T: OwnedBorrow<Tensor<SP1Field>>>(tensor: &Arc<T>) -> &Tensor<SP1Field> {
    let tensor: &T = tensor.as_ref();
    tensor.borrow()
}

/// Height and width.
fn shape<T: OwnedBorrow<Tensor<SP1Field>>>(tensor: &Arc<T>) -> (usize, usize) {
    let sizes = tensor_of(tensor).sizes();
    (sizes[0], sizes[1])
}

impl<T: OwnedBorrow<Tensor<SP1Field>>> Rows for TensorRows<T> {
    fn height(&self) -> usize {
        self.height
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&self, index: usize, out: &mut [u32]) {
        let mut rest = out;
        for tensor in self.tensors.iter() {
            let tensor = tensor_of(tensor);
            let width = tensor.sizes()[1];
            let row = &tensor.as_slice()[index * width..(index + 1) * width];
            let (place, after) = rest.split_at_mut(width);
            for (value, element) in place.iter_mut().zip(row) {
                *value = element.as_canonical_u32();
            }
            rest = after;
        }
    }
}

impl<GC: IopCtx<F = SP1Field, Digest = OuterDigest>> TensorCsProver<GC, CpuBackend> for OuterTcs {
    type ProverData = CommittedTree;
    type ProverError = MerkleError;

    fn commit_tensors<T>(&self, tensors: Message<T>) -> Result<(OuterDigest, CommittedTree), MerkleError>
    where
        T: OwnedBorrow<Tensor<SP1Field>>,
    {
        let rows: Arc<dyn Rows> = Arc::new(TensorRows::new(tensors));
        let span = tracing::debug_span!("outer merkle tree", height = rows.height(), width = rows.width());
        let tree = span.in_scope(|| match &self.cache {
            Some(cache) => cache.load_or_build(rows.as_ref()),
            None => Arc::new(MerkleTree::build(rows.as_ref())),
        });
        Ok((to_digest(tree.commitment()), CommittedTree { tree, rows }))
    }

    fn prove_openings_at_indices(
        &self,
        data: CommittedTree,
        indices: &[usize],
    ) -> Result<MerkleTreeTcsProof<OuterDigest>, MerkleError> {
        let CommittedTree { tree, rows } = data;
        let paths = tree.open(rows.as_ref(), indices)?;
        let log_tensor_height = tree.log_height() as usize;
        let storage: Vec<OuterDigest> = paths.into_iter().flatten().map(to_digest).collect();
        Ok(MerkleTreeTcsProof {
            merkle_root: to_digest(tree.root()),
            log_tensor_height,
            width: tree.width(),
            paths: Tensor::from(storage).reshape([indices.len(), log_tensor_height]),
        })
    }
}

impl<GC: IopCtx<F = SP1Field, Digest = OuterDigest>> ComputeTcsOpenings<GC, CpuBackend> for OuterTcs {
    fn compute_openings_at_indices<T>(&self, tensors: Message<T>, indices: &[usize]) -> Tensor<SP1Field>
    where
        T: OwnedBorrow<Tensor<SP1Field>>,
    {
        let width = tensors.iter().map(|tensor| shape(tensor).1).sum::<usize>();
        let mut values = Vec::with_capacity(indices.len() * width);
        for &index in indices {
            for tensor in tensors.iter() {
                let tensor = tensor_of(tensor);
                let width = tensor.sizes()[1];
                values.extend_from_slice(&tensor.as_slice()[index * width..(index + 1) * width]);
            }
        }
        Tensor::from(values).reshape([indices.len(), width])
    }
}
