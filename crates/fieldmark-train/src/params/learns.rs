//! Refuses a run in which nothing learns.

use fieldmark_model::{ModelPart, TrainableParts};

use crate::TrainError;

/// Checks that some part of a model is trained.
pub(crate) fn check_learns(train: TrainableParts) -> Result<(), TrainError> {
    if ModelPart::ALL.into_iter().any(|part| train.has(part)) {
        return Ok(());
    }
    let expected = "true for at least one part; otherwise nothing learns";
    Err(TrainError::Setting { key: "train", value: "false for vision, projector and decoder".into(), expected })
}
