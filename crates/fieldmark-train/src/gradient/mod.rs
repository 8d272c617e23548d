//! From a micro-batch to log-probabilities, and from the loss's gradient back to the gradients of the parameters.
//!
//! [`Scorer`] leads through both ways: `shared_prompts` lays the samples out, `trunk` runs the network up to the head,
//! `packing` picks the states that predict tokens in the loss, `logprob` runs the head on them in chunks, and `sum`
//! collects the gradients.

mod contrast;
mod logit_rows;
mod logprob;
#[cfg(test)]
mod logprob_tests;
mod loss_norm;
mod micro_batches;
mod packing;
mod pass_flops;
mod passes;
mod scorer;
mod seed;
mod shared_prompts;
mod sum;
mod trunk;

pub use self::{
    contrast::TokenContrast,
    logprob::{ChunkedLogProbs, HeadGradients, TokenScores, backward_states, token_logprobs},
    loss_norm::{BatchSize, LossNorm, Normaliser},
    packing::{ResponseRows, TokenPacking},
    passes::Passes,
    scorer::{MicroBatch, Scored, Scorer},
    sum::GradientSum,
    trunk::TrunkSettings,
};
pub(crate) use self::{micro_batches::micro_batches, shared_prompts::SharedRow};
