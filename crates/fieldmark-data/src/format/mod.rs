//! Data files to checked rows: one file for each format.

pub(crate) mod columns;
pub mod eval_rows;
pub mod labels;
pub mod reader;
pub mod sharegpt;
pub mod split;
pub mod tapo_rows;
