//! The memory that a recipe needs on a device, computed from its settings and the sizes of the model before anything is
//! loaded, and the settings closest to a recipe that fit into a budget.

mod planned;
mod published;
mod search;

pub use crate::stage::Stage;
pub use planned::Planned;
pub use published::{published, published_text_encoder};
pub use search::{Fit, nearest_fit};
