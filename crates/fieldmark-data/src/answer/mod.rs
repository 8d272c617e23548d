//! Answers and truths: the one reader of an answer, the one form in which texts are compared, other names of a class,
//! and truths that no answer can match. Rewards, evaluation and data checks use the same functions, so that what is
//! learned is what is scored. The rules of the released code are beside those rewards and scores.

pub(crate) mod aliases;
pub(crate) mod alike;
pub(crate) mod phrases;
pub(crate) mod reading;
pub(crate) mod truth;

pub use self::{
    aliases::Aliases,
    alike::{is_python_space, nfc, normal_form, plain_text},
    phrases::occurrences,
    reading::{AnswerReading, strict_answer},
    truth::{Unmatchable, truth_text, unmatchable},
};
