//! Data files, read and checked; splits, similar classes and triplets built from labelled photographs.
//!
//! [`format`](mod@format) has one file for each kind of data file, with an example and a table of its fields. Each
//! reader takes a plain or gzipped file and returns checked rows; each error names the file and row and says what to
//! do. Images stay paths or bytes of image files here: `fieldmark-processor` decodes them.

pub mod answer;
pub mod augment;
pub mod check;
pub mod classes;
pub mod confusions;
pub mod error;
pub mod format;
pub mod images;
pub mod prompt;
pub mod row_image;

pub use answer::{
    Aliases, AnswerReading, Unmatchable, is_python_space, nfc, normal_form, occurrences, plain_text, strict_answer,
    truth_text, unmatchable,
};
pub use augment::RandomResizedCrop;
pub use check::{DataKind, DataReport, ImageCheck, check_file, check_file_with};
pub use classes::{
    class_split::{ClassSplit, Unseen},
    held_out::HeldOutClasses,
    histogram::{ColourHistogram, NearestNeighbour},
    names::alike_options,
    options::{eval_set_from_photos, options_for},
    similar::{ClassFeature, SimilarClasses},
    triplets::{SinglePhotoPolicy, Triplet, build_triplets},
};
pub use confusions::ClosedRows;
pub use error::{DataError, RowProblem};
pub use format::{
    conversations::{SftExample, ShareGptFormat, Turn, TurnRole, read_conversations},
    eval_rows::{EvalRow, EvalSet, EvalSetName, read_eval_rows},
    labels::{LabelledFolder, LabelledPhoto, SourceSplit, read_labels},
    reader::{Layout, ReadLimits, Record, Records, read_records},
    split::Split,
    tapo_rows::{TapoRow, read_tapo_rows},
};
pub use images::ImageRoots;
pub use prompt::{IMAGE_PLACEHOLDER, Prompt, PromptTemplate};
pub use row_image::{ImageBytes, RowImage};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
