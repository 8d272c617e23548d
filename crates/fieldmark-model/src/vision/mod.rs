//! The vision encoder and the projector: windows, rotary positions and blocks.

mod block;
mod encoder;
mod layout;
mod merger;
mod plan;
mod rope;
mod windows;

pub use block::{VisionAttention, VisionBlock};
pub use encoder::{PatchEmbed, VisionEncoder, VisionTrace};
pub use merger::PatchMerger;
pub use plan::VisionPlan;
pub use rope::patch_positions;
pub use windows::{ImageRun, WindowGroup, WindowPlan};
