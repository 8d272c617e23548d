//! Data files, read and checked; splits, similar classes and triplets built from labelled photographs.
//!
//! [`format`](mod@format) has one file for each kind of data file, with an example and a table of its fields. Each
//! reader takes a plain or gzipped file and returns checked rows; each error names the file and row and says what to
//! do. Images stay paths here: `fieldmark-processor` decodes them.

pub mod answer;
pub mod augment;
pub mod check;
pub mod classes;
pub mod error;
pub mod format;
pub mod images;
pub mod prompt;

pub use answer::{is_python_space, normal_form, strict_answer};
pub use augment::RandomResizedCrop;
pub use check::{DataKind, DataReport, ImageCheck, check_file, check_file_with};
pub use classes::{
    class_split::ClassSplit,
    histogram::{ColourHistogram, NearestNeighbour},
    options::{eval_set_from_photos, options_for},
    similar::{ClassFeature, SimilarClasses},
    triplets::{SinglePhotoPolicy, Triplet, build_triplets},
};
pub use error::{DataError, RowProblem};
pub use format::{
    eval_rows::{EvalRow, EvalSet, EvalSetName, read_eval_rows},
    labels::{LabelledFolder, LabelledPhoto, SourceSplit, read_labels},
    reader::{Layout, ReadLimits, Record, Records, read_records},
    sharegpt::{SftExample, ShareGptFormat, Turn, TurnRole, read_sharegpt},
    split::Split,
    tapo_rows::{TapoRow, read_tapo_rows},
};
pub use images::ImageRoots;
pub use prompt::{IMAGE_PLACEHOLDER, Prompt, PromptTemplate};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
