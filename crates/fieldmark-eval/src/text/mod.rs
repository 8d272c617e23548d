//! Texts: where a phrase occurs, and whether the sentence around it denies it.

mod denial;
mod phrases;

pub(crate) use self::{
    denial::is_denied,
    phrases::{normalise, occurrences, strip, words},
};
