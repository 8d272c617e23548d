//! `fieldmark show`: prints a whole recipe with the origin of each value, or the JSON schema of recipes.

use fieldmark::recipe::{LayeredRecipe, Recipe};

use super::{Outcome, say};
use crate::arguments::ShowArgs;

/// Prints the recipe or the schema.
///
/// # Errors
/// Returns an error if the recipe is invalid.
pub fn run(args: &ShowArgs) -> anyhow::Result<Outcome> {
    let text = if args.schema {
        serde_json::to_string_pretty(Recipe::schema())?
    } else {
        LayeredRecipe::read(&args.recipe.config, &args.recipe.set)?.to_toml()
    };
    say(text.trim_end())?;
    Ok(Outcome::Done)
}
