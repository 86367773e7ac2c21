//! The kernels by name, with what they take: launches are checked against this table before they reach a driver.

/// One parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// An address.
    Buffer,
    /// 32 bits.
    Number,
}

/// Every kernel of `cuda/*.cu` and its parameters: `*` an address, `#` a number. A test holds it against the sources.
pub const KERNELS: [(&str, &str); 28] = [
    ("bench_integer_kernel", "*#"),
    ("bench_product_kernel", "*#"),
    ("msm_accumulate_g1_kernel", "*****##"),
    ("msm_accumulate_g2_kernel", "*****##"),
    ("msm_affine_g1_kernel", "***###"),
    ("msm_affine_g2_kernel", "***###"),
    ("msm_count_kernel", "***####"),
    ("msm_double_g1_kernel", "**###"),
    ("msm_double_g2_kernel", "**###"),
    ("msm_fold_g1_kernel", "**##"),
    ("msm_fold_g2_kernel", "**##"),
    ("msm_gather_g1_kernel", "****##"),
    ("msm_gather_g2_kernel", "****##"),
    ("msm_recode_kernel", "***#"),
    ("msm_scan_add_kernel", "**#"),
    ("msm_scan_kernel", "**#"),
    ("msm_scatter_kernel", "*****######"),
    ("msm_tasks_kernel", "***##"),
    ("msm_weigh_g1_kernel", "***###"),
    ("msm_weigh_g2_kernel", "***###"),
    ("ntt_merge_kernel", "****######"),
    ("ntt_multiply_kernel", "**#"),
    ("ntt_radix3_kernel", "**####"),
    ("ntt_split_kernel", "****######"),
    ("poseidon2_level_kernel", "*###"),
    ("poseidon2_permute_kernel", "*#"),
    ("poseidon2_rows_kernel", "**###"),
    ("poseidon2_top_kernel", "*##"),
];

/// What `kernel` takes; `None` for a name that is not in the table.
#[must_use]
pub fn parameters(kernel: &str) -> Option<Vec<Parameter>> {
    let (_, marks) = KERNELS.iter().find(|(name, _)| *name == kernel)?;
    Some(marks.chars().map(|mark| if mark == '*' { Parameter::Buffer } else { Parameter::Number }).collect())
}
