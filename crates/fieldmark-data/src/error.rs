//! The errors of data files. Each message names the file and row and says what to do.

use std::path::PathBuf;

use crate::answer::truth::Unmatchable;

/// An error in a data file, or in the classes that something is built from.
///
/// Its text is one line. Rows count from 1: the line of a JSONL or CSV file, the element of a JSON array.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file is missing, cannot be read, or ends early.
    #[error("{}: cannot be read: {source}; check the path, the permissions and that the file is whole", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The unpacked file is larger than the reader's limit.
    #[error("{}: more than {limit} bytes when unpacked; split the file or raise the size limit", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file as a whole has the wrong form.
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
    /// The classes do not allow the split, triplets or options asked for.
    #[error("{0}")]
    Classes(String),
}

/// What is wrong with one row. Its text says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    /// The row is not JSON.
    #[error("not JSON ({0}); correct or remove the row")]
    NotJson(String),
    /// No row of the file is a JSON object.
    #[error("{first}; none of the {rows} rows is a JSON object, so perhaps the file is damaged or of another kind")]
    NoObjects {
        /// What is wrong with the first row.
        first: Box<RowProblem>,
        /// Number of rows.
        rows: usize,
    },
    /// The row is JSON, but not an object.
    #[error("a JSON {0} where an object was expected; write one object with named fields for each row")]
    NotAnObject(&'static str),
    /// A required field is missing.
    #[error("field {0:?} is missing; add it")]
    MissingField(String),
    /// A field has the wrong type.
    #[error("field {field:?} is {found}, not {expected}; write it as {expected}")]
    WrongType {
        /// The field.
        field: String,
        /// The right type.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A field that needs text is empty or blank.
    #[error("field {0:?} is empty; fill it in or remove the row")]
    Empty(String),
    /// The row has no image.
    #[error("no image; name one in {0:?} and put <image> into the question")]
    NoImage(String),
    /// The numbers of image placeholders and images differ.
    #[error("{placeholders} <image> in the text but {images} in {column:?}; write exactly one <image> for each image")]
    PlaceholderCount {
        /// Number of `<image>` in the text.
        placeholders: usize,
        /// Number of images.
        images: usize,
        /// The column that names the images.
        column: String,
    },
    /// A column for one image names none or several.
    #[error("{images} images in {column:?}; name exactly one")]
    OneImage {
        /// The column.
        column: String,
        /// Number of images that it names.
        images: usize,
    },
    /// A TAPO row has no negative, but the run needs one.
    #[error(
        "no negative; name one in \"negative\", set tapo.negative = \"patches\", or set tapo.loss.gamma = eta2 = 0 \
         and leave out tapo.loss.visual_tokens"
    )]
    NoNegative,
    /// A line is not a rollout of TAPO.
    #[error("not a rollout ({0}); name the rollouts.jsonl of a run of TAPO")]
    NoRollout(String),
    /// The row of a rollout has no number in a file.
    #[error("its row {0:?} is not a row of a file; the run must train on data.tapo.file")]
    NoRowNumber(String),
    /// Rollouts answer the rows of another file.
    #[error("its truth is {truth:?}, but {there}; name the file that the run trained on")]
    OtherRows {
        /// The truth of the rollout.
        truth: String,
        /// What is in the place of its row in the file.
        there: String,
    },
    /// A TAPO row has no positive, but the run samples rollouts from it.
    #[error("no positive; name one in \"positive\", or set tapo.positive_rollouts = 0")]
    NoPositive,
    /// The row contains the bytes of an image in a form that is not read.
    #[error(
        "{column:?} has image bytes that cannot be read ({problem}); write them in base64, or give the path of a file"
    )]
    EmbeddedImage {
        /// The column or part.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// An image is on the network.
    #[error("image {0} is on the network, and only files are read; download it and give its path")]
    ImageUrl(String),
    /// Both `image` and `images` name images.
    #[error("both \"image\" and \"images\" name images; keep one of the two")]
    TwoImageColumns,
    /// An answer or the system text has an image.
    #[error("message {0} has an image, but only user messages may; an image cannot be learned as an answer")]
    ImageInAnswer(usize),
    /// A part of a message is neither text nor image.
    #[error(
        "message {message} has a part of type {kind:?}; use {{\"type\": \"text\", \"text\": ...}} or \
         {{\"type\": \"image\", \"image\": PATH}}"
    )]
    UnreadPart {
        /// The message, from 1.
        message: usize,
        /// The type of the part.
        kind: String,
    },
    /// An image part sets the size of its image.
    #[error("message {message} sets {field:?} for its image, which is not read; remove it and set data.sft.sizes")]
    PartSize {
        /// The message, from 1.
        message: usize,
        /// The field.
        field: &'static str,
    },
    /// A column has content that would be left out in silence.
    #[error("{0:?} has content, but it is not read; write it into the text, or remove the column or the row")]
    Unread(String),
    /// The text has a tag that other programs replace with media.
    #[error("{tag} in {field:?} would be learned as text; only <image> is read, so remove the row or the tag")]
    UnreadTag {
        /// The field.
        field: String,
        /// The tag.
        tag: &'static str,
    },
    /// The text has the name of a control token.
    #[error(
        "{token} in {field:?} is a control token of the model and not text; remove it, because the chat template writes such \
         tokens itself and <image> marks the place of an image"
    )]
    ControlToken {
        /// The field.
        field: String,
        /// The token.
        token: &'static str,
    },
    /// No response of the conversation is learned.
    #[error("no response is learned, because each has the weight 0; give one the weight 1 or remove the row")]
    NothingLearned,
    /// The row is no conversation.
    #[error(
        "no conversation, with the fields {0}; write `messages` (role, content), `conversations` (from, value), `prompt` \
         and `completion` (lists of messages), or `instruction` and `output`"
    )]
    NoConversation(String),
    /// The negative shows the same image as the anchor or the positive.
    #[error("negative and {0} are the same image; name an image of another class as the negative")]
    SameImage(&'static str),
    /// Two classes have the same photograph.
    #[error("the photograph of row {0}, which is of another class, has the same content; correct one of the two")]
    SamePhotograph(usize),
    /// The row shows or names a class that is held out.
    #[error(
        "{how} the class {class:?}, which data.unseen holds out of training; remove the row, or hold out other classes"
    )]
    HeldOut {
        /// "shows" or "names".
        how: &'static str,
        /// The class.
        class: String,
    },
    /// A message has an unknown role, or one that is not allowed at its place.
    #[error("message {message} has the role {role:?}; use {expected}")]
    UnknownRole {
        /// The message, from 1.
        message: usize,
        /// The role found.
        role: String,
        /// The roles allowed there.
        expected: String,
    },
    /// The conversation does not end with the assistant.
    #[error(
        "the conversation has {0} messages after the system text; answer every user message with an assistant message"
    )]
    Unanswered(usize),
    /// There are too few options for a choice.
    #[error("only {0} option; give at least two, or none for an open-world row")]
    TooFewOptions(usize),
    /// An option occurs twice.
    #[error("option {0:?} occurs twice; remove one")]
    RepeatedOption(String),
    /// Two options are alike in the form that scoring compares.
    #[error(
        "options {0:?} and {1:?} are alike for scoring, so that no answer can choose between them; remove or rename one"
    )]
    AlikeOptions(String, String),
    /// The truth is not one of the options.
    #[error("the ground truth {0:?} is not among the options; add it")]
    TruthNotAnOption(String),
    /// No answer can match the truth.
    #[error("the answer {truth:?} {reason}, so that no answer can match it; correct it or remove the row")]
    Unmatchable {
        /// The truth.
        truth: String,
        /// Why nothing can match it.
        reason: Unmatchable,
    },
    /// A class has two super-categories.
    #[error("class {class:?} has super-category {found:?} here and {earlier:?} in row {row}; give it only one")]
    TwoSuperCategories {
        /// The class.
        class: String,
        /// Its super-category here.
        found: String,
        /// Its super-category in the earlier row.
        earlier: String,
        /// The earlier row.
        row: usize,
    },
    /// A field has a value that is not allowed.
    #[error("{field} is {found:?}; use {expected}")]
    UnknownValue {
        /// The field.
        field: String,
        /// The value found.
        found: String,
        /// The values allowed.
        expected: &'static str,
    },
    /// A row repeats the photograph of an earlier row.
    #[error("this photograph is already in row {0}; remove one of the rows")]
    Repeated(usize),
    /// A CSV row does not fit its table.
    #[error("the row does not fit the table ({0}); correct or remove it")]
    NotCsv(String),
    /// An image file is missing.
    #[error("image {image} not found{}; correct the path or the image folder", in_brackets(likely))]
    ImageNotFound {
        /// The image as the row names it.
        image: String,
        /// What is there instead, if something like it is.
        likely: Option<String>,
    },
    /// An image file is not an image.
    #[error("image {path} cannot be read ({message}); replace it with a JPEG, PNG or WebP file")]
    ImageUnreadable {
        /// The image file.
        path: String,
        /// The decoder's error.
        message: String,
    },
    /// A row is of no known kind.
    #[error(
        "unknown kind of row, with the fields {0}; a conversation has `messages`, `conversations`, `prompt` and \
         `completion`, or `instruction` and `output`; an evaluation row `image_path` and `ground_truth`; a TAPO row `problem`"
    )]
    UnknownKind(String),
}

fn in_brackets(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| format!(" ({text})"))
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
