//! Texts: where a name occurs, and whether the sentence around it denies it.

mod denial;
mod phrases;
mod python;

// The strict rules compare texts in the form that the rewards use too.
pub(crate) use fieldmark_data::normal_form as normalise;

pub(crate) use self::{
    denial::Answer,
    python::{strip, words},
};
