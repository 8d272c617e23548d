//! Recipes: one TOML file says what `fieldmark sft`, `tapo` and `eval` do.
//!
//! The defaults of `[sft]` and `[tapo]` are those of Fine-R1 on the 3B model (arXiv 2602.07605, section 4, and its
//! released scripts); each setting names its deviations. `document.rs` holds the whole recipe, `layers.rs` reads files
//! and overrides, `schema.rs` makes the JSON schema. Paths are relative to the current folder.

mod data;
mod difference;
mod document;
mod error;
mod eval;
mod forms;
mod given;
mod home;
mod keys;
mod layers;
mod model;
mod origin;
mod overrides;
mod paths;
mod run;
mod schema;
mod show;
mod table;
mod text;

pub use data::{DataSection, ImageSizes, ResizeRule, SftData, TapoData};
pub use difference::Difference;
pub use document::Recipe;
pub use error::RecipeError;
pub use eval::{EvalSection, Order};
pub use layers::LayeredRecipe;
pub use model::ModelSection;
pub use origin::Origin;
pub(crate) use paths::READ;
pub use run::RunSection;
