//! Makes closed-world questions from labelled photographs. The options are the truth, then its most similar classes, as
//! in the released rows; the evaluation shuffles them.

use super::similar::SimilarClasses;
use crate::answer::aliases::Aliases;
use crate::error::DataError;
use crate::format::eval_rows::{EvalRow, EvalSet, EvalSetName};
use crate::format::labels::LabelledPhoto;

/// The truth and the `count − 1` classes most similar to it, whether seen or unseen.
///
/// # Errors
/// Returns [`DataError::Classes`] if there are not enough classes, or if `count` is below two.
pub fn options_for(class: &str, similar: &SimilarClasses, count: usize) -> Result<Vec<String>, DataError> {
    let others = similar.ranked(class);
    if count < 2 || others.len() + 1 < count {
        return Err(DataError::Classes(format!(
            "class {class:?} cannot have {count} options; ask for at least 2 and at most {}",
            others.len() + 1
        )));
    }
    let distractors = others.iter().map(|(other, _)| other.clone());
    Ok(std::iter::once(class.to_owned()).chain(distractors.take(count - 1)).collect())
}

/// Makes one evaluation row for each photograph, with the text that `question` returns and `count` options. The row
/// number is the photograph's line in its table.
///
/// # Errors
/// Returns the errors of [`options_for`].
pub fn eval_set_from_photos<'a>(
    name: EvalSetName,
    photos: impl IntoIterator<Item = &'a LabelledPhoto>,
    similar: &SimilarClasses,
    count: usize,
    question: impl Fn(&LabelledPhoto) -> String,
) -> Result<EvalSet, DataError> {
    let rows = photos.into_iter().map(|photo| {
        Ok(EvalRow {
            row: photo.row,
            image_path: photo.path.clone(),
            question: question(photo),
            options: options_for(&photo.class, similar, count)?,
            ground_truth: photo.class.clone(),
            super_category: photo.super_category.to_lowercase(),
        })
    });
    Ok(EvalSet { rows: rows.collect::<Result<_, DataError>>()?, name, aliases: Aliases::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classes::similar::ClassFeature;
    use crate::format::labels::SourceSplit;
    use crate::format::split::Split;

    #[test]
    fn the_truth_comes_first_then_its_look_alikes() {
        let rows: [(&str, &str, [f32; 2]); 4] = [
            ("Lemon", "Citrus", [1.0, 0.0]),
            ("Lime", "Citrus", [0.0, 1.0]),
            ("Banana", "Banana", [1.0, 0.1]),
            ("Plum", "Plum", [0.1, 1.0]),
        ];
        let features: Vec<_> =
            rows.iter().map(|(class, super_category, values)| ClassFeature { class, super_category, values }).collect();
        let similar = SimilarClasses::from_features(&features).unwrap();
        let photo = LabelledPhoto {
            row: 9,
            path: "a.jpg".into(),
            class: "Lemon".into(),
            super_category: "Citrus".into(),
            group: "Fruit".into(),
            split: SourceSplit::Test,
            aliases: Vec::new(),
        };
        let name = EvalSetName { dataset: "produce".into(), split: Split::Seen, super_category: "produce".into() };
        let set = eval_set_from_photos(name, [&photo], &similar, 3, |photo| format!("Which {}?", photo.group)).unwrap();
        let row = &set.rows[0];
        assert_eq!(row.options, ["Lemon", "Lime", "Banana"]);
        assert_eq!((row.row, row.question.as_str(), row.super_category.as_str()), (9, "Which Fruit?", "citrus"));
        assert_eq!(options_for("Lemon", &similar, 4).unwrap().len(), 4);
        for count in [0, 1, 5] {
            assert!(options_for("Lemon", &similar, count).is_err());
        }
        assert!(options_for("Kiwi", &similar, 2).is_err());
    }
}
