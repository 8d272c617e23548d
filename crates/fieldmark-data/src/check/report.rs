//! The result of a check, and how it is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::error::DataError;

/// The kind of rows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Conversations for SFT.
    Conversations,
    /// Evaluation questions.
    EvalRows,
    /// TAPO triplets.
    TapoRows,
    /// The label table of a folder of photographs.
    Labels,
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Conversations => "conversations",
            Self::EvalRows => "evaluation rows",
            Self::TapoRows => "TAPO triplets",
            Self::Labels => "labelled photographs",
        })
    }
}

/// The content of a data file. It prints as a summary and one line for each problem.
#[derive(Debug)]
pub struct DataReport {
    /// The file.
    pub file: PathBuf,
    /// The kind of its rows.
    pub kind: DataKind,
    /// All rows, bad ones included.
    pub rows: usize,
    /// Rows without a problem.
    pub good_rows: usize,
    /// Number of different images in the good rows.
    pub images: usize,
    /// Images that exist, as files or in their rows, and have the header of an image file.
    pub images_found: usize,
    /// Images that do not exist.
    pub images_missing: usize,
    /// The folder in which images were looked for.
    pub image_folder: PathBuf,
    /// Number of rows of each class. The class of a conversation is the text of its last `<answer>`, otherwise its
    /// whole response.
    pub classes: BTreeMap<String, usize>,
    /// Remarks that are not errors.
    pub notes: Vec<String>,
    /// The problems of rows, then those of images.
    pub problems: Vec<DataError>,
}

impl DataReport {
    /// Returns true if there are no problems.
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
