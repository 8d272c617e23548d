//! Turns a row of metrics or timings into named numbers, for TensorBoard and the command's dashboard.

use serde::Serialize;
use serde_json::Value;

use crate::error::RunError;

/// Returns every finite number of a row except `step`, in the order of the row. The name of a nested number is its
/// path.
///
/// # Errors
/// Returns an error if the row cannot be written as JSON.
///
/// ```
/// let row = serde_json::json!({ "step": 3, "lr": 1e-6, "rewards": { "format": 0.5, "accuracy": f64::NAN } });
/// let numbers = fieldmark::log::numbers(&row)?;
/// assert_eq!(numbers, [("lr".into(), 1e-6), ("rewards/format".into(), 0.5)]);
/// # Ok::<(), fieldmark::RunError>(())
/// ```
pub fn numbers(row: &impl Serialize) -> Result<Vec<(String, f64)>, RunError> {
    let row = serde_json::to_value(row).map_err(RunError::LogRow)?;
    let mut found = Vec::new();
    for (name, inner) in row.as_object().into_iter().flatten().filter(|(name, _)| *name != "step") {
        flatten(name.clone(), inner, &mut found);
    }
    Ok(found)
}

fn flatten(name: String, value: &Value, into: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => into.extend(number.as_f64().map(|number| (name, number))),
        Value::Object(inner) => {
            inner.iter().for_each(|(inside, inner)| flatten(format!("{name}/{inside}"), inner, into));
        }
        _ => {}
    }
}
