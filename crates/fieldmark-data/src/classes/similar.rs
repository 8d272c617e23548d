//! Ranks the classes that look alike: the same family first, then by the cosine similarity of mean features.
//! It chooses negatives and wrong options, in place of the paper's "most similar subcategory", which is not released.

use std::collections::BTreeMap;

use crate::error::DataError;

/// The features of one photograph, with its class and family.
#[derive(Clone, Debug)]
pub struct ClassFeature<'a> {
    /// The class.
    pub class: &'a str,
    /// Its super-category.
    pub super_category: &'a str,
    /// The feature vector. All photographs have vectors of the same length.
    pub values: &'a [f32],
}

/// For each class, all other classes, most similar first.
#[derive(Clone, Debug, PartialEq)]
pub struct SimilarClasses {
    ranked: BTreeMap<String, Vec<(String, f64)>>,
}

impl SimilarClasses {
    /// Ranks classes by the cosine similarity of their mean features. Classes of the same family come first; equal
    /// similarities are in the order of the names.
    ///
    /// # Errors
    /// Returns [`DataError::Classes`] if features differ in length or are not finite, or if there are fewer than two
    /// classes.
    pub fn from_features(features: &[ClassFeature]) -> Result<Self, DataError> {
        let length = features.first().map_or(0, |feature| feature.values.len());
        let mut means: BTreeMap<&str, (&str, Vec<f64>)> = BTreeMap::new();
        for feature in features {
            if feature.values.len() != length || !feature.values.iter().all(|v| v.is_finite()) {
                return Err(DataError::Classes(format!(
                    "the features of a photograph of class {:?} have {} values, but {length} finite ones were expected; \
                     compute them again",
                    feature.class,
                    feature.values.len()
                )));
            }
            let (_, sum) = means.entry(feature.class).or_insert_with(|| (feature.super_category, vec![0.0; length]));
            // A sum and a mean have the same cosine.
            for (total, value) in sum.iter_mut().zip(feature.values) {
                *total += f64::from(*value);
            }
        }
        if means.len() < 2 {
            return Err(DataError::Classes(format!(
                "there is only {} class, so no class is similar to it; give photographs of two or more classes",
                means.len()
            )));
        }
        let ranked = means.iter().map(|(class, (family, mean))| {
            let mut others: Vec<(bool, f64, &str)> = means
                .iter()
                .filter(|(other, _)| *other != class)
                .map(|(other, (of, other_mean))| (of == family, cosine(mean, other_mean), *other))
                .collect();
            others.sort_by(|a, b| {
                let family_then_similarity = b.0.cmp(&a.0).then(b.1.total_cmp(&a.1));
                family_then_similarity.then(a.2.cmp(b.2))
            });
            let others = others.into_iter();
            let others = others.map(|(_, similarity, other)| (other.to_owned(), similarity));
            ((*class).to_owned(), others.collect())
        });
        Ok(Self { ranked: ranked.collect() })
    }

    /// All other classes with their cosine similarity, most similar first; empty if the class is unknown.
    pub fn ranked(&self, class: &str) -> &[(String, f64)] {
        self.ranked.get(class).map_or(&[], Vec::as_slice)
    }

    /// The most similar class that `allowed` accepts.
    pub fn most_similar(&self, class: &str, allowed: impl Fn(&str) -> bool) -> Option<&str> {
        let mut others = self.ranked(class).iter();
        others.find(|(other, _)| allowed(other)).map(|(other, _)| other.as_str())
    }
}

/// The cosine of two vectors; 0 if one of them is zero.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> SimilarClasses {
        let rows: [(&str, &str, [f32; 2]); 6] = [
            ("Royal Gala", "Apple", [1.0, 0.0]),
            ("Royal Gala", "Apple", [0.0, 1.0]),
            ("Granny Smith", "Apple", [0.0, 3.0]),
            ("Pink Lady", "Apple", [2.0, 1.0]),
            ("Vine Tomato", "Tomato", [5.0, 5.0]),
            ("Lime", "Citrus", [0.0, 0.1]),
        ];
        let features: Vec<_> =
            rows.iter().map(|(class, super_category, values)| ClassFeature { class, super_category, values }).collect();
        SimilarClasses::from_features(&features).unwrap()
    }

    #[test]
    fn family_first_then_cosine_of_means() {
        let table = table();
        let order: Vec<&str> = table.ranked("Royal Gala").iter().map(|(name, _)| name.as_str()).collect();
        // The tomato has cosine 1 with the mean (½, ½), yet comes after the apples.
        assert_eq!(order, ["Pink Lady", "Granny Smith", "Vine Tomato", "Lime"]);
        let cosines: Vec<f64> = table.ranked("Royal Gala").iter().map(|(_, cosine)| *cosine).collect();
        let expected = [3.0 / 10f64.sqrt(), 0.5f64.sqrt(), 1.0, 0.5f64.sqrt()];
        for (found, expected) in cosines.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
        assert_eq!(table.most_similar("Lime", |_| true), Some("Granny Smith"));
        assert_eq!(table.most_similar("Lime", |class| class == "Royal Gala"), Some("Royal Gala"));
        assert_eq!(table.most_similar("Kiwi", |_| true), None);
    }

    #[test]
    fn unusable_features_are_errors() {
        let feature = |class, values| ClassFeature { class, super_category: "x", values };
        let cases: [&[ClassFeature]; 4] = [
            &[],
            &[feature("a", &[1.0]), feature("a", &[2.0])],
            &[feature("a", &[1.0]), feature("b", &[1.0, 2.0])],
            &[feature("a", &[1.0]), feature("b", &[f32::NAN])],
        ];
        for features in cases {
            assert!(SimilarClasses::from_features(features).is_err());
        }
        let zero = [feature("a", &[0.0]), feature("b", &[1.0])];
        assert_eq!(SimilarClasses::from_features(&zero).unwrap().ranked("a"), [("b".to_owned(), 0.0)]);
    }
}
