//! Builds triplets for TAPO (paper 4.3). The positive is another photograph of the anchor's class, the negative one of
//! the most similar other class.

use std::collections::BTreeMap;

use fieldmark_stream::RandomStream;

use super::similar::SimilarClasses;
use crate::error::DataError;
use crate::format::labels::LabelledPhoto;

/// What to do with a class that has a single photograph, and so no other one for the positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinglePhotoPolicy {
    /// Return an error that names the class.
    Refuse,
    /// Use the anchor as its own positive; only augmentation makes them differ.
    ReuseAnchor,
}

/// Three photographs: anchor and positive of one class, the negative of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triplet<'a> {
    /// The photograph that the question is about.
    pub anchor: &'a LabelledPhoto,
    /// Another photograph of the same class.
    pub positive: &'a LabelledPhoto,
    /// A photograph of the most similar other class.
    pub negative: &'a LabelledPhoto,
}

/// Builds one triplet for each photograph as anchor, in the order given. `stream` draws positives and negatives.
///
/// Positives and negatives come from `photos` only. Pass seen training photographs, so that no unseen class and no test
/// photograph gets in.
///
/// # Errors
/// Returns [`DataError::Classes`] if a class has one photograph and `single` refuses that, or if no other class in
/// `similar` has a photograph.
pub fn build_triplets<'a>(
    photos: &[&'a LabelledPhoto],
    similar: &SimilarClasses,
    single: SinglePhotoPolicy,
    stream: &mut RandomStream,
) -> Result<Vec<Triplet<'a>>, DataError> {
    let mut by_class: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, photo) in photos.iter().enumerate() {
        by_class.entry(&photo.class).or_default().push(index);
    }
    let no_negative = |class: &str| {
        DataError::Classes(format!(
            "class {class:?} has no negative, because no class similar to it has a photograph; add one"
        ))
    };
    let mut triplets = Vec::with_capacity(photos.len());
    for (index, &anchor) in photos.iter().enumerate() {
        let class = anchor.class.as_str();
        let same = by_class.get(class).map_or(&[][..], Vec::as_slice);
        let others: Vec<usize> = same.iter().copied().filter(|&other| other != index).collect();
        let positive = match (stream.choose(&others), single) {
            (Some(&other), _) => photos[other],
            (None, SinglePhotoPolicy::ReuseAnchor) => anchor,
            (None, SinglePhotoPolicy::Refuse) => {
                return Err(DataError::Classes(format!(
                    "class {class:?} has no positive, because {} is its only photograph; add one or reuse the anchor",
                    anchor.path.display()
                )));
            }
        };
        let negative = similar
            .most_similar(class, |other| by_class.contains_key(other))
            .and_then(|other| stream.choose(by_class.get(other)?))
            .map(|&other| photos[other])
            .ok_or_else(|| no_negative(class))?;
        triplets.push(Triplet { anchor, positive, negative });
    }
    Ok(triplets)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::classes::similar::ClassFeature;
    use crate::format::labels::SourceSplit;

    fn photo(class: &str, index: usize) -> LabelledPhoto {
        LabelledPhoto {
            row: index,
            path: format!("{class}/{index}.jpg").into(),
            class: class.into(),
            super_category: "Fruit".into(),
            group: String::new(),
            split: SourceSplit::Train,
            aliases: Vec::new(),
        }
    }

    /// A is nearest to B, B to A, C to B.
    fn similar() -> SimilarClasses {
        let rows: [(&str, [f32; 2]); 3] = [("A", [1.0, 0.0]), ("B", [1.0, 0.2]), ("C", [1.0, 1.0])];
        let features: Vec<_> =
            rows.iter().map(|(class, values)| ClassFeature { class, super_category: "Fruit", values }).collect();
        SimilarClasses::from_features(&features).unwrap()
    }

    fn stream(seed: u64) -> RandomStream {
        RandomStream::new(seed, &["triplets"])
    }

    #[test]
    fn roles_hold_and_every_partner_is_reached() {
        let photos: Vec<_> = ["A", "B", "C"].iter().flat_map(|class| (0..3).map(|index| photo(class, index))).collect();
        let photos: Vec<_> = photos.iter().collect();
        let (mut positives, mut negatives) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..60 {
            let triplets = build_triplets(&photos, &similar(), SinglePhotoPolicy::Refuse, &mut stream(seed)).unwrap();
            let again = build_triplets(&photos, &similar(), SinglePhotoPolicy::Refuse, &mut stream(seed)).unwrap();
            assert_eq!(triplets, again);
            assert_eq!(triplets.len(), 9);
            for (triplet, anchor) in triplets.iter().zip(&photos) {
                assert_eq!(triplet.anchor, *anchor);
                assert_eq!(triplet.positive.class, anchor.class);
                assert_ne!(triplet.positive.path, anchor.path);
                let nearest = if anchor.class == "B" { "A" } else { "B" };
                assert_eq!(triplet.negative.class, nearest);
                positives.insert((&anchor.path, &triplet.positive.path));
                negatives.insert((&anchor.path, &triplet.negative.path));
            }
        }
        assert_eq!((positives.len(), negatives.len()), (9 * 2, 9 * 3));
    }

    #[test]
    fn negatives_come_only_from_classes_at_hand() {
        let photos = [photo("A", 0), photo("A", 1), photo("C", 0), photo("C", 1)];
        let photos: Vec<_> = photos.iter().collect();
        let triplets = build_triplets(&photos, &similar(), SinglePhotoPolicy::Refuse, &mut stream(0)).unwrap();
        assert!(triplets.iter().all(|triplet| triplet.negative.class != triplet.anchor.class));
    }

    #[test]
    fn a_single_photograph_or_class_is_named() {
        let photos = [photo("A", 0), photo("B", 0), photo("B", 1)];
        let photos: Vec<_> = photos.iter().collect();
        let refused = build_triplets(&photos, &similar(), SinglePhotoPolicy::Refuse, &mut stream(0));
        assert!(refused.unwrap_err().to_string().contains("A/0.jpg"));
        let reused = build_triplets(&photos, &similar(), SinglePhotoPolicy::ReuseAnchor, &mut stream(0)).unwrap();
        assert_eq!(reused[0].positive, reused[0].anchor);
        assert_ne!(reused[1].positive, reused[1].anchor);
        let one_class = build_triplets(&photos[1..], &similar(), SinglePhotoPolicy::Refuse, &mut stream(0));
        assert!(one_class.unwrap_err().to_string().contains("\"B\""));
    }
}
