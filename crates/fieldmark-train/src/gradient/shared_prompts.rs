//! Lays samples out in one row in which a prompt with several responses is there once: the responses follow it and see its
//! keys and values (shared prefixes; Liu et al. 2025, "Prefix Grouper", arXiv 2506.05433). Ten responses of 300 tokens to a
//! prompt of 1,300 are 4,300 tokens instead of 16,000.

use std::sync::Arc;

use fieldmark_processor::{Sequence, SupervisedSequence};

/// Samples in one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedRow {
    /// What the network reads, in order: whole samples, prompts, and responses without their prompt.
    pub(crate) segments: Vec<Sequence>,
    /// The segment that each segment continues.
    pub(crate) after: Vec<Option<usize>>,
    places: Vec<Place>,
}

/// Where the tokens of a sample are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Place of its first token in the row.
    first: usize,
    /// Number of tokens of its prompt.
    prompt: usize,
    /// Place of the first token after the prompt.
    rest: usize,
}

impl SharedRow {
    /// Lays out `samples`. Those that consist of a prompt and one response, and have the same prompt, share it: the same
    /// tokens with the same patches in memory.
    pub(crate) fn new(samples: &[SupervisedSequence]) -> Self {
        let mut families: Vec<Vec<usize>> = Vec::new();
        for (i, sample) in samples.iter().enumerate() {
            match families.iter_mut().find(|family| same_prompt(&samples[family[0]], sample)) {
                Some(family) => family.push(i),
                None => families.push(vec![i]),
            }
        }
        let none = Place { first: 0, prompt: 0, rest: 0 };
        let mut row = Self { segments: Vec::new(), after: Vec::new(), places: vec![none; samples.len()] };
        let mut end = 0;
        for family in families {
            let first = &samples[family[0]];
            let Some(prompt) = prompt_len(first).filter(|_| family.len() > 1) else {
                row.places[family[0]] = Place { first: end, prompt: 0, rest: end };
                end += row.push(first.sequence.clone(), None);
                continue;
            };
            let (shared, start) = (row.segments.len(), end);
            end += row.push(part(&first.sequence, 0..prompt, true), None);
            for i in family {
                let sequence = &samples[i].sequence;
                row.places[i] = Place { first: start, prompt, rest: end };
                end += row.push(part(sequence, prompt..sequence.ids.len(), false), Some(shared));
            }
        }
        row
    }

    /// Number of tokens in the row.
    pub(crate) fn tokens(&self) -> usize {
        self.segments.iter().map(|segment| segment.ids.len()).sum()
    }

    /// Place in the row of a token of a sample.
    pub(crate) fn place(&self, sample: usize, token: usize) -> usize {
        let Place { first, prompt, rest } = self.places[sample];
        if token < prompt { first + token } else { rest + token - prompt }
    }

    /// Appends a segment and returns its length.
    fn push(&mut self, segment: Sequence, after: Option<usize>) -> usize {
        let len = segment.ids.len();
        self.segments.push(segment);
        self.after.push(after);
        len
    }
}

/// Number of tokens before the response, if the sample is a prompt and one response to its end. A conversation of several
/// turns may show images after its first answer, so it is never split.
fn prompt_len(sample: &SupervisedSequence) -> Option<usize> {
    let SupervisedSequence { sequence, target_mask } = sample;
    let prompt = target_mask.iter().position(|&target| target)?;
    let whole = prompt > 0 && target_mask.len() == sequence.ids.len();
    (whole && target_mask[prompt..].iter().all(|&target| target)).then_some(prompt)
}

fn same_prompt(one: &SupervisedSequence, other: &SupervisedSequence) -> bool {
    let (Some(prompt), true) = (prompt_len(one), prompt_len(one) == prompt_len(other)) else { return false };
    let (one, other) = (&one.sequence, &other.sequence);
    let same = one.images.iter().zip(&other.images).all(|(one, other)| {
        // As collation decides: the same patches in memory are the same image.
        Arc::ptr_eq(&one.pixel_values, &other.pixel_values) && one.grid == other.grid
    });
    same && one.images.len() == other.images.len() && one.ids[..prompt] == other.ids[..prompt]
}

/// Tokens of a sequence; `images` says whether its images are among them.
fn part(sequence: &Sequence, tokens: std::ops::Range<usize>, images: bool) -> Sequence {
    Sequence {
        name: sequence.name.clone(),
        ids: sequence.ids[tokens].to_vec(),
        images: if images { sequence.images.clone() } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldmark_model::GridThw;
    use fieldmark_processor::PatchedImage;
    use proptest::prelude::*;

    fn image(grid: GridThw) -> PatchedImage {
        PatchedImage { pixel_values: vec![0.0; 8].into(), grid }
    }

    fn sample(prompt: &[u32], response: &[u32], images: &[&PatchedImage]) -> SupervisedSequence {
        let sequence = Sequence {
            name: format!("{prompt:?}"),
            ids: [prompt, response].concat(),
            images: images.iter().map(|image| (*image).clone()).collect(),
        };
        let target_mask = (0..sequence.ids.len()).map(|token| token >= prompt.len()).collect();
        SupervisedSequence { sequence, target_mask }
    }

    fn ids(row: &SharedRow) -> Vec<Vec<u32>> {
        row.segments.iter().map(|segment| segment.ids.clone()).collect()
    }

    #[test]
    fn responses_follow_their_prompt_in_any_order_of_the_samples() {
        let (one, other) = (image(GridThw::image(4, 4)), image(GridThw::image(4, 4)));
        let samples = [
            sample(&[1, 2], &[7], &[&one]),
            sample(&[1, 2], &[8, 9], &[&other]),
            sample(&[1, 2], &[7, 7, 7], &[&one]),
            sample(&[1, 2, 3], &[5], &[&one]),
        ];
        let row = SharedRow::new(&samples);
        assert_eq!(ids(&row), [vec![1, 2], vec![7], vec![7, 7, 7], vec![1, 2, 8, 9], vec![1, 2, 3, 5]]);
        assert_eq!(row.after, [None, Some(0), Some(0), None, None]);
        let shown: Vec<usize> = row.segments.iter().map(|segment| segment.images.len()).collect();
        assert_eq!((shown, row.tokens()), (vec![1, 0, 0, 1, 1], 14));
    }

    #[test]
    fn other_images_other_sizes_and_several_turns_share_nothing() {
        let (one, large) = (image(GridThw::image(4, 4)), image(GridThw::image(4, 8)));
        let same = PatchedImage { pixel_values: one.pixel_values.clone(), grid: large.grid };
        for other in [&[&same][..], &[&one, &one], &[]] {
            let row = SharedRow::new(&[sample(&[1, 2], &[3], &[&one]), sample(&[1, 2], &[4], other)]);
            assert_eq!(row.after, [None, None]);
        }
        let mut turns = sample(&[1, 2], &[3, 4, 5], &[]);
        turns.target_mask[3] = false;
        assert_eq!(SharedRow::new(&[turns.clone(), turns]).after, [None, None]);
        let mut silent = sample(&[1, 2], &[3], &[]);
        silent.target_mask = vec![false; 3];
        assert_eq!(SharedRow::new(&[silent.clone(), silent]).after, [None, None]);
    }

    proptest! {
        #[test]
        fn every_token_of_every_sample_has_its_place(
            shapes in prop::collection::vec((0u32..3, prop::collection::vec(10u32..99, 1..5)), 1..12),
        ) {
            let samples: Vec<SupervisedSequence> = shapes
                .iter()
                .map(|(prompt, response)| sample(&(0..=*prompt).collect::<Vec<_>>(), response, &[]))
                .collect();
            let row = SharedRow::new(&samples);
            let all = ids(&row).concat();
            prop_assert_eq!(all.len(), row.tokens());
            for (i, sample) in samples.iter().enumerate() {
                let read: Vec<u32> = (0..sample.sequence.ids.len()).map(|token| all[row.place(i, token)]).collect();
                prop_assert_eq!(&read, &sample.sequence.ids);
            }
            let used = shapes.iter().map(|(prompt, _)| prompt).collect::<std::collections::BTreeSet<_>>();
            let prompts: usize = used.iter().map(|prompt| **prompt as usize + 1).sum();
            prop_assert_eq!(row.tokens(), prompts + shapes.iter().map(|(_, response)| response.len()).sum::<usize>());
        }
    }
}
