//! Texts: where a phrase occurs, and whether the sentence around it denies it.

mod denial;
mod python;

// The strict rules compare texts in the form that the rewards use too.
pub(crate) use fieldmark_data::{normal_form as normalise, occurrences};

pub(crate) use self::{
    denial::is_denied,
    python::{strip, words},
};
