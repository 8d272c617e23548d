//! The classes that a recipe holds out of training: `data.unseen` of those in `data.labels`, or `data.unseen_classes`.

use fieldmark_data::{HeldOutClasses, Unseen};

use super::labels::Labels;
use crate::{error::RunError, recipe::DataSection};

/// The unseen classes of a recipe, as its keys say.
///
/// # Errors
/// Returns an error if classes are both counted and named, or counted without labels to draw from.
pub fn unseen(data: &DataSection) -> Result<Unseen, RunError> {
    let refuse = |problem: &str| {
        let value = data.unseen.to_string();
        Err(RunError::Setting { key: "data.unseen".into(), value, problem: problem.into() })
    };
    match (data.unseen, data.unseen_classes.is_empty(), &data.labels) {
        (0, false, _) => Ok(Unseen::Named(data.unseen_classes.clone())),
        (_, false, _) => refuse("must be 0 if `data.unseen_classes` names the classes"),
        (1.., true, None) => {
            refuse("needs labels to draw from; set `data.labels`, or name the classes in `data.unseen_classes`")
        }
        (count, true, _) => Ok(Unseen::Drawn { count, seed: data.unseen_seed }),
    }
}

/// The classes that a recipe holds out, with their photographs if it has labels.
///
/// # Errors
/// Returns the errors of [`unseen`], or an error if the labels cannot be read or do not allow it.
pub fn held_out_classes(data: &DataSection) -> Result<HeldOutClasses, RunError> {
    match (unseen(data)?, &data.labels) {
        (Unseen::Drawn { count: 0, .. }, _) => Ok(HeldOutClasses::default()),
        (Unseen::Named(names), None) => Ok(HeldOutClasses::named(names).with_aliases(&data.read_aliases()?)),
        (unseen, Some(folder)) => Ok(Labels::open(folder, &unseen)?.held_out().with_aliases(&data.read_aliases()?)),
        (Unseen::Drawn { .. }, None) => Ok(HeldOutClasses::default()),
    }
}

/// What every command says that uses a recipe with held-out classes.
pub fn held_out_note(held_out: &HeldOutClasses) -> Option<String> {
    (!held_out.is_empty()).then(|| format!("held out of training (data.unseen): {}", held_out.names().join(", ")))
}
