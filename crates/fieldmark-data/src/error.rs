//! What can be wrong with a data file: one error enum, each message names the file and the row and says what to do.

use std::path::PathBuf;

/// An error of a data file, a label folder or what is built from one.
///
/// Its text is one line. A row is counted from 1: the line of a JSONL or CSV file, the element of a JSON array.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file is missing, may not be read, or ends early.
    #[error("{}: cannot be read: {source}; check the path, its permissions and that the file is complete", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file, unpacked, is larger than the reader's limit.
    #[error("{}: more than {limit} bytes unpacked; split the file or raise the size limit", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file as a whole is not in a form that is read here.
    #[error("{}: {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// One row is wrong.
    #[error("{}:{row}: {problem}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// The row, from 1.
        row: usize,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// A split, triplets or options cannot be made of the classes that there are.
    #[error("{0}")]
    Classes(String),
}

/// What is wrong with one row; the text says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    /// The row is not JSON.
    #[error("not JSON ({0}); correct or remove the row")]
    NotJson(String),
    /// The row is JSON, but not an object.
    #[error("a JSON {0} where an object was expected; write one object with named fields for each row")]
    NotAnObject(&'static str),
    /// A required field is missing.
    #[error("no field {0:?}; add it")]
    MissingField(String),
    /// A field has the wrong type.
    #[error("field {field:?} is {found}, not {expected}; write it as {expected}")]
    WrongType {
        /// The field.
        field: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A field that must say something is empty or blank.
    #[error("field {0:?} is empty; fill it in or remove the row")]
    Empty(String),
    /// The row has no image.
    #[error("no image; name one in {0:?} and put <image> into the question")]
    NoImage(String),
    /// Image placeholders and images do not match in number.
    #[error("{placeholders} <image> in the text but {images} in {column:?}; write exactly one <image> for each image")]
    PlaceholderCount {
        /// How many `<image>` the text has.
        placeholders: usize,
        /// How many images are named.
        images: usize,
        /// The column that names them.
        column: String,
    },
    /// A column that takes one image names several, or none.
    #[error("{images} images in {column:?}; name exactly one")]
    OneImage {
        /// The column.
        column: String,
        /// How many it names.
        images: usize,
    },
    /// A TAPO row without a negative, where one is needed.
    #[error(
        "no negative; name one in \"negative\", set tapo.negative = \"patches\", or set tapo.loss.gamma = eta2 = 0"
    )]
    NoNegative,
    /// No image of the same class, in a run that samples from it.
    #[error("no positive; name one in \"positive\", or set tapo.positive_rollouts = 0")]
    NoPositive,
    /// Image bytes inside the row.
    #[error("image bytes inside {0:?} are not read; write the image to a file and give its path")]
    EmbeddedImage(String),
    /// A conversation role nobody knows.
    #[error("message {message} has the role {role:?}; use {expected}")]
    UnknownRole {
        /// The message, from 1.
        message: usize,
        /// Its role.
        role: String,
        /// The roles possible there.
        expected: String,
    },
    /// The conversation does not end with the assistant.
    #[error(
        "the conversation has {0} messages after the system text; end every user message with an assistant message"
    )]
    Unanswered(usize),
    /// Options that cannot be a choice.
    #[error("{0} option; give at least two, or none for an open-world row")]
    TooFewOptions(usize),
    /// The same option twice.
    #[error("the option {0:?} is there twice; remove one")]
    RepeatedOption(String),
    /// The truth is not one of the options.
    #[error("the ground truth {0:?} is not among the options; add it")]
    TruthNotAnOption(String),
    /// One class with two super-categories.
    #[error("class {class:?} is in {found:?} here and in {earlier:?} in row {row}; give it one super-category")]
    TwoSuperCategories {
        /// The class.
        class: String,
        /// Its super-category here.
        found: String,
        /// The one before.
        earlier: String,
        /// The row before.
        row: usize,
    },
    /// A value that is none of the known ones.
    #[error("{field} is {found:?}; use {expected}")]
    UnknownValue {
        /// The field.
        field: String,
        /// What it says.
        found: String,
        /// What it may say.
        expected: &'static str,
    },
    /// A row that repeats an earlier photograph.
    #[error("the same photograph as row {0}; remove one of them")]
    Repeated(usize),
    /// A CSV row that cannot be parsed.
    #[error("not a row of this table ({0}); correct or remove it")]
    NotCsv(String),
    /// An image file that is not there.
    #[error("image {0} not found; correct the path or the image folder")]
    ImageNotFound(String),
    /// A file that is not an image.
    #[error("image {path} cannot be read ({message}); replace it with a JPEG, PNG or WebP file")]
    ImageUnreadable {
        /// The file as found.
        path: String,
        /// What the decoder said.
        message: String,
    },
    /// A row that matches none of the known kinds.
    #[error("neither a conversation, nor an evaluation row, nor a TAPO row; it has the fields {0}")]
    UnknownKind(String),
}

impl DataError {
    /// An error of one row.
    pub(crate) fn row(file: impl Into<PathBuf>, row: usize, problem: RowProblem) -> Self {
        Self::Row { file: file.into(), row, problem }
    }

    /// An error of a whole file.
    pub(crate) fn file(file: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File { file: file.into(), problem: problem.into() }
    }
}
