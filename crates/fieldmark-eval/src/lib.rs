//! Closed-world and open-world evaluation.
//!
//! Evaluation rows become questions, a model's raw outputs are written to a predictions file, and every figure is
//! computed from that file alone. So a score can be recomputed under another rule without running the model again.

pub mod closed_world;
pub mod compare;
pub mod error;
pub mod extract;
pub mod interval;
pub mod kept;
pub mod open_world;
pub mod over_seeds;
pub mod predictions;
pub mod question;
pub mod question_set;
pub mod read;
pub mod report;
pub mod runner;
pub mod score;
mod text;

pub use closed_world::{OptionOrder, rotations};
pub use compare::PairedComparison;
pub use error::EvalError;
pub use interval::Accuracy;
pub use kept::Kept;
pub use over_seeds::{MeanOverSeeds, PairedTest};
pub use predictions::{Prediction, PredictionWriter, RunSettings};
pub use question::{Question, World, closed_questions, open_questions};
pub use question_set::QuestionSet;
pub use read::{Predictions, read_predictions};
pub use report::{Report, TextTable};
pub use runner::{Answered, EvalRun, RunName};
pub use score::{Matching, Scores};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
