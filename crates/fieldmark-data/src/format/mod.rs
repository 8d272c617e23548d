//! Reads data files into checked rows. Each file here is one format; its docs show a row and explain the fields.

pub(crate) mod columns;
pub mod conversations;
pub mod eval_rows;
pub(crate) mod image_values;
pub mod labels;
pub mod reader;
pub mod split;
pub(crate) mod table;
pub mod tapo_rows;
mod text;
