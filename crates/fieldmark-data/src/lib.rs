//! Datasets and their formats, splits, triplets.
//!
//! Every reader takes a file, plain or gzipped, and gives rows that were checked whole; every error names file and row and
//! says what to do. Images stay paths here: decoding and resizing are the processor's.

pub mod answer;
pub mod augment;
pub mod check;
mod columns;
pub mod error;
pub mod eval_rows;
pub mod histogram;
pub mod images;
pub mod labels;
pub mod options;
pub mod prompt;
pub mod reader;
pub mod sharegpt;
pub mod similar;
pub mod split;
pub mod tapo_rows;
pub mod triplets;

pub use answer::{is_python_space, normal_form, strict_answer};
pub use augment::RandomResizedCrop;
pub use check::{DataKind, DataReport, check_file};
pub use error::{DataError, RowProblem};
pub use eval_rows::{EvalRow, EvalSet, EvalSetName, read_eval_rows};
pub use histogram::{ColourHistogram, NearestNeighbour};
pub use images::ImageRoots;
pub use labels::{LabelledFolder, LabelledPhoto, SourceSplit, read_labels};
pub use options::{eval_set_from_photos, options_for};
pub use prompt::{IMAGE_PLACEHOLDER, Prompt, PromptTemplate};
pub use reader::{Layout, ReadLimits, Record, Records, read_records};
pub use sharegpt::{Role, SftExample, ShareGptFormat, Turn, read_sharegpt};
pub use similar::{ClassFeature, SimilarClasses};
pub use split::{ClassSplit, Split};
pub use tapo_rows::{TapoRow, read_tapo_rows};
pub use triplets::{SinglePhotoPolicy, Triplet, build_triplets};
