//! The demo's photographs: classes split into seen and unseen, look-alikes, and the reasoning that SFT teaches.
//!
//! A response follows the paper's four parts (analysis, options, comparison, prediction; table 5). There is no teacher
//! here: the analysis states the photograph's measured colours and its family, the comparison the typical colour of the
//! closest look-alike, and the prediction is the label. Where a prompt names options, they are not listed again.

use std::{collections::BTreeMap, path::Path};

use fieldmark_data::{
    ClassFeature, ClassSplit, ColourHistogram, EvalRow, EvalSet, EvalSetName, LabelledFolder, LabelledPhoto,
    NearestNeighbour, PromptTemplate, SimilarClasses, SourceSplit, Split,
};
use fieldmark_processor::{DecodeOptions, Photo};
use fieldmark_stream::{RandomStream, StreamKey};

use super::{
    colours::main_colours,
    requirements::{self, UNSEEN},
};
use crate::error::RunError;

/// Side of the demo's images in pixels.
pub(super) const SIDE: usize = 112;
/// The question of every prompt.
pub(super) const QUESTION: &str = "Which produce is this?";
/// Options of a closed-world question.
pub(super) const OPTIONS: usize = 4;

/// A training photograph, decoded.
pub(super) struct TrainPhoto {
    pub(super) photo: Photo,
    pub(super) label: LabelledPhoto,
    pub(super) colours: [&'static str; 2],
}

/// Everything the demo knows about its photographs.
pub(super) struct Produce {
    pub(super) folder: LabelledFolder,
    pub(super) split: ClassSplit,
    pub(super) similar: SimilarClasses,
    pub(super) train: Vec<TrainPhoto>,
    families: BTreeMap<String, String>,
    groups: Vec<Vec<String>>,
    typical: BTreeMap<String, &'static str>,
    histograms: Vec<(String, ColourHistogram)>,
}

impl Produce {
    /// Reads `labels.csv` and the training photographs of `folder`.
    pub(super) fn open(folder: &Path, seed: u64) -> Result<Self, RunError> {
        let folder = requirements::open(folder)?;
        let families = folder.families();
        let split = ClassSplit::draw(&families, UNSEEN, seed)?;
        let mut train = Vec::new();
        let mut histograms = Vec::new();
        for label in folder.select(SourceSplit::Train, |_| true) {
            let photo = Photo::open(folder.file(label), &DecodeOptions::default())?;
            histograms.push((label.clone(), ColourHistogram::of(&to_image(&photo)?)));
            let colours = main_colours(&photo);
            train.push(TrainPhoto { photo, label: label.clone(), colours });
        }
        let features: Vec<ClassFeature<'_>> = histograms
            .iter()
            .map(|(label, histogram)| ClassFeature {
                class: &label.class,
                super_category: &label.super_category,
                values: &histogram.values,
            })
            .collect();
        let similar = SimilarClasses::from_features(&features)?;
        let typical = typical_colours(&train);
        let seen = |class: &str| split.of(class) == Some(Split::Seen);
        train.retain(|photo| seen(&photo.label.class));
        let histograms = histograms
            .into_iter()
            .filter(|(label, _)| seen(&label.class))
            .map(|(label, histogram)| (label.class, histogram))
            .collect();
        let groups = groups(split.classes(Split::Seen), &similar);
        Ok(Self { folder, split, similar, train, families, groups, typical, histograms })
    }

    /// The test photographs of the seen or unseen classes as questions with options.
    ///
    /// The wrong options are drawn from the other classes of the split, each as likely: were they the truth's look-alikes,
    /// the set of options alone would give it away.
    pub(super) fn test_set(&self, split: Split, key: &StreamKey) -> Result<EvalSet, RunError> {
        let name = EvalSetName { dataset: "produce".into(), split, super_category: "fruit or vegetable".into() };
        let photos = self.folder.select(SourceSplit::Test, |class| self.split.of(class) == Some(split));
        let rows = photos.into_iter().map(|photo| EvalRow {
            row: photo.row,
            image_path: photo.path.clone(),
            question: QUESTION.into(),
            options: self.options(&photo.class, split, &mut key.word("options").number(photo.row as u64).stream()),
            ground_truth: photo.class.clone(),
            super_category: photo.super_category.to_lowercase(),
        });
        Ok(EvalSet { rows: rows.collect(), name })
    }

    /// The classes of the training photographs.
    pub(super) fn seen(&self) -> Vec<String> {
        self.split.classes(Split::Seen).map(str::to_owned).collect()
    }

    /// A nearest neighbour on colour histograms, which knows the seen classes' training photographs.
    pub(super) fn histogram_baseline(&self) -> NearestNeighbour {
        NearestNeighbour::new(self.histograms.clone())
    }

    /// A class and other classes of the split drawn at random, the class first.
    pub(super) fn options(&self, class: &str, split: Split, stream: &mut RandomStream) -> Vec<String> {
        let mut others: Vec<String> =
            self.split.classes(split).filter(|other| *other != class).map(str::to_owned).collect();
        stream.shuffle(&mut others);
        others.truncate(OPTIONS - 1);
        std::iter::once(class.to_owned()).chain(others).collect()
    }

    /// The look-alikes that a response weighs where the prompt gives no options, the same for all of them.
    pub(super) fn look_alikes(&self, class: &str) -> &[String] {
        self.groups.iter().find(|group| group.iter().any(|other| other == class)).map_or(&[], Vec::as_slice)
    }

    /// The response that SFT teaches for a photograph: look-alikes are weighed where the prompt names no options.
    pub(super) fn response(&self, photo: &TrainPhoto, options_shown: bool) -> String {
        let class = &photo.label.class;
        let [first, second] = photo.colours;
        let family = self.families.get(class).map_or("unknown", String::as_str);
        let weighed = if options_shown {
            // Naming the family would settle the answer before the options are weighed.
            String::new()
        } else {
            let alike = self.look_alikes(class);
            let nearest = self.similar.most_similar(class, |other| alike.iter().any(|option| option == other));
            let nearest = nearest.unwrap_or(class);
            let typical = self.typical.get(nearest).copied().unwrap_or("unknown");
            format!(" {family}\noptions: {}\ncomparison: {nearest} {typical}", alike.join(", "))
        };
        format!("<think>analysis: {first} {second}{weighed}\nprediction: {class}</think><answer>{class}</answer>")
    }

    /// Every text the tokenizer should know: prompts and responses of the training set, and the names of its classes.
    pub(super) fn corpus(&self) -> Vec<String> {
        let mut texts = self.seen();
        for photo in &self.train {
            let options = self.look_alikes(&photo.label.class);
            texts.push(PromptTemplate::Bare.render(QUESTION, options).user);
            texts.push(self.response(photo, false));
        }
        texts.push("You are a helpful assistant. system user assistant".into());
        texts
    }
}

/// Puts classes into groups of [`OPTIONS`] look-alikes: each takes the most similar ones that are still free. What is left
/// over is a smaller group.
fn groups<'a>(classes: impl Iterator<Item = &'a str>, similar: &SimilarClasses) -> Vec<Vec<String>> {
    let mut free: Vec<&str> = classes.collect();
    let mut groups = Vec::new();
    while !free.is_empty() {
        let first = free.remove(0);
        let mut group = vec![first.to_owned()];
        for (other, _) in similar.ranked(first) {
            if group.len() < OPTIONS
                && let Some(at) = free.iter().position(|class| class == other)
            {
                group.push(free.remove(at).to_owned());
            }
        }
        group.sort();
        groups.push(group);
    }
    groups
}

/// The commonest main colour of each class's training photographs.
fn typical_colours(photos: &[TrainPhoto]) -> BTreeMap<String, &'static str> {
    let mut counts: BTreeMap<String, BTreeMap<&'static str, usize>> = BTreeMap::new();
    for photo in photos {
        *counts.entry(photo.label.class.clone()).or_default().entry(photo.colours[0]).or_default() += 1;
    }
    counts
        .into_iter()
        .filter_map(|(class, counts)| Some((class, counts.into_iter().max_by_key(|&(_, count)| count)?.0)))
        .collect()
}

/// A photograph as the `image` crate has it.
pub(super) fn to_image(photo: &Photo) -> Result<image::RgbImage, RunError> {
    image::RgbImage::from_raw(photo.width() as u32, photo.height() as u32, photo.rgb().to_vec())
        .ok_or_else(|| RunError::path(photo.name(), "its pixels and its size disagree"))
}
