use assay_kernels::{merkle::*, poseidon2::*};
use std::time::Instant;
struct R(usize, usize);
impl Rows for R {
    fn height(&self) -> usize { self.0 }
    fn width(&self) -> usize { self.1 }
    fn read(&self, i: usize, out: &mut [u32]) { for (j, o) in out.iter_mut().enumerate() { *o = ((i * 77 + j * 13) & 0x7fff_ffff) as u32; } }
}
fn main() {
    for (h, w) in [(1 << 16, 32), (1 << 16, 8)] {
        for _ in 0..3 {
        let t = Instant::now();
        let tree = MerkleTree::build(&R(h, w));
        let d = t.elapsed();
        let perms = h * (w / 16).max(1) + h;
        println!("{h}x{w}: {:?} {:.0} ns/perm {}", d, d.as_nanos() as f64 / perms as f64, tree.root());
        }
    }
    let s = GrindState { sponge: [1u64.into(), 2u64.into(), 3u64.into()], pending: vec![1, 2, 3] };
    let t = Instant::now();
    let n = grind(&s, 1 << 18, |_| false);
    println!("grind 2^18: {:?} {n:?}", t.elapsed());
}
