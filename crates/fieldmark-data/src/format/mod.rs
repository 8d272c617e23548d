//! Reads data files into checked rows. Each file here is one format; its docs show a row and explain the fields.

pub(crate) mod columns;
pub mod eval_rows;
pub mod labels;
pub mod reader;
pub mod sharegpt;
pub mod split;
pub mod tapo_rows;
