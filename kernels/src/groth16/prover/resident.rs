//! The points of a key that stay on a device for many proofs.

use crate::device::{
    building_bytes, layout_for, ntt_bytes, sum_bytes, table_bytes, Device, DeviceBases, DeviceError,
    DevicePoint, Layout, MsmPlan, LADDER,
};
use crate::groth16::key::{ProvingKey, Section};
use crate::msm::{G1Point, G2Point, Point};

/// All sections of points, each with as many tables as the others where their numbers allow it.
#[derive(Debug)]
pub(crate) struct DeviceKey<B> {
    pub(super) h: DeviceBases<B, G1Point>,
    pub(super) l: DeviceBases<B, G1Point>,
    pub(super) a: DeviceBases<B, G1Point>,
    pub(super) b1: DeviceBases<B, G1Point>,
    pub(super) b2: DeviceBases<B, G2Point>,
}

/// How the sections are laid out.
struct KeyPlan {
    h: Layout,
    l: Layout,
    a: Layout,
    b: Layout,
    /// Device memory for the tables and for a proof beside them.
    bytes: u64,
}

impl KeyPlan {
    fn new(key: &ProvingKey, tables: u32) -> Self {
        let count = |section| key.section(section).len();
        let [h, l, a, b] =
            [Section::H, Section::L, Section::A, Section::BG1].map(|at| count(at) / G1Point::BYTES);
        // Products are large; of a witness's scalars about half are.
        let layout = |count: usize, large: usize| layout_for(count, large as u32, tables);
        let layouts = [layout(h, h), layout(l, l / 2), layout(a, a / 2), layout(b, b / 2)];
        let g1 = [(h, layouts[0]), (l, layouts[1]), (a, layouts[2]), (b, layouts[3])];
        let [mut kept, mut building, mut proving] = needs::<G2Point>(b, layouts[3]);
        for [tables, scratch, sum] in g1.map(|(count, layout)| needs::<G1Point>(count, layout)) {
            kept += tables;
            building = building.max(scratch);
            proving = proving.max(sum);
        }
        let bytes = kept + building.max(proving + ntt_bytes(h, 2));
        let [h, l, a, b] = layouts;
        Self { h, l, a, b, bytes }
    }
}

/// Bytes of tables, of their making, and of a sum over them.
fn needs<P: DevicePoint>(count: usize, layout: Layout) -> [u64; 3] {
    let sum = sum_bytes::<P>(count, layout, MsmPlan::default().task);
    [table_bytes::<P>(count, layout), building_bytes::<P>(count, layout), sum]
}

impl<B> DeviceKey<B> {
    /// Uploads the points and makes as many tables as leave room for a proof; `None` if not even the points do.
    ///
    /// # Errors
    /// Those of the device, but for [`DeviceError::OutOfMemory`].
    pub(crate) fn load<D: Device<Buffer = B>>(
        device: &D,
        key: &ProvingKey,
    ) -> Result<Option<Self>, DeviceError> {
        // A part of what is free is left to the driver and to fragments.
        let free = device.memory_free()?;
        let fitting = LADDER.map(|tables| KeyPlan::new(key, tables)).into_iter();
        for plan in fitting.filter(|plan| plan.bytes <= free - free / 16) {
            match Self::build(device, key, &plan) {
                // Others use the device too.
                Err(DeviceError::OutOfMemory { .. }) => {}
                built => return built.map(Some),
            }
        }
        Ok(None)
    }

    /// Tables of the sections H, L, A and B.
    pub(crate) fn tables(&self) -> [u32; 4] {
        [self.h.layout(), self.l.layout(), self.a.layout(), self.b2.layout()].map(Layout::tables)
    }

    fn build<D: Device<Buffer = B>>(
        device: &D,
        key: &ProvingKey,
        plan: &KeyPlan,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            h: DeviceBases::load(device, key.section(Section::H), plan.h)?,
            l: DeviceBases::load(device, key.section(Section::L), plan.l)?,
            a: DeviceBases::load(device, key.section(Section::A), plan.a)?,
            b1: DeviceBases::load(device, key.section(Section::BG1), plan.b)?,
            b2: DeviceBases::load(device, key.section(Section::BG2), plan.b)?,
        })
    }
}
