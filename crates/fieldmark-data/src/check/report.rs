//! What a data file holds, as it is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::error::DataError;

/// What kind of rows a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Conversations for supervised fine-tuning.
    ShareGpt,
    /// Evaluation questions.
    EvalRows,
    /// TAPO triplets.
    TapoRows,
    /// A label table of a folder of photographs.
    Labels,
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ShareGpt => "conversations (ShareGPT)",
            Self::EvalRows => "evaluation rows",
            Self::TapoRows => "TAPO triplets",
            Self::Labels => "labelled photographs",
        })
    }
}

/// What a data file holds. Printed, it is a summary followed by one line for each problem.
#[derive(Debug)]
pub struct DataReport {
    /// The file.
    pub file: PathBuf,
    /// What its rows are.
    pub kind: DataKind,
    /// All rows, bad ones included.
    pub rows: usize,
    /// Rows in order.
    pub good_rows: usize,
    /// Different image paths in the good rows.
    pub images: usize,
    /// How many of them are there and have an image's header.
    pub images_found: usize,
    /// How many are not there.
    pub images_missing: usize,
    /// The folder that images were looked for in.
    pub image_folder: PathBuf,
    /// Rows of each class; of conversations, the text of the last `<answer>` where there is one, else the whole response.
    pub classes: BTreeMap<String, usize>,
    /// What is no error but should be known.
    pub notes: Vec<String>,
    /// What is wrong, in the order of rows, then of images.
    pub problems: Vec<DataError>,
}

impl DataReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.file.display(), self.kind)?;
        writeln!(f, "  rows      {} ({} good)", self.rows, self.good_rows)?;
        writeln!(
            f,
            "  images    {} ({} found, {} missing, looked for in {})",
            self.images,
            self.images_found,
            self.images_missing,
            self.image_folder.display()
        )?;
        writeln!(f, "  classes   {}", self.classes.len())?;
        write!(f, "  problems  {}", self.problems.len())?;
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}
