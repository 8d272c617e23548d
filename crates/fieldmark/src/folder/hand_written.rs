//! Tells a recipe that a person wrote from the one that a run keeps in its folder: a run must not replace the former.

use std::path::Path;

use super::inputs::INPUTS;
use crate::recipe::Recipe;

/// Returns true if `file` is a recipe that no run has written: nothing of a run lies beside it, and it has not the form
/// in which a run writes its whole recipe.
pub(super) fn is_hand_written(file: &Path) -> bool {
    let of_a_run = [INPUTS, "metrics.jsonl", "checkpoints", "checkpoint"];
    if !file.is_file() || of_a_run.iter().any(|name| file.with_file_name(name).exists()) {
        return false;
    }
    let written = Recipe::read(&[file.into()], &[]).ok().and_then(|recipe| recipe.to_toml().ok());
    written != std::fs::read_to_string(file).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_recipe_is_a_runs_by_its_form_or_by_what_lies_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("recipe.toml");
        assert!(!is_hand_written(&file));
        let whole = Recipe { output: Some("x".into()), ..Recipe::default() }.to_toml().unwrap();
        for (text, by_hand) in [(whole.clone(), false), (format!("# mine\n{whole}"), true), ("seed = 1".into(), true)] {
            fs::write(&file, text).unwrap();
            assert_eq!(is_hand_written(&file), by_hand);
        }
        fs::write(&file, "not = = toml").unwrap();
        assert!(is_hand_written(&file));
        fs::write(place.path().join("metrics.jsonl"), "").unwrap();
        assert!(!is_hand_written(&file));
    }
}
