//! The demo's photographs: seen and unseen classes, look-alikes, and the reasoning that SFT teaches.
//!
//! A response has the paper's four parts (table 5), made without a teacher model. The analysis gives the measured
//! colours and the family, the options are look-alikes, the comparison gives the typical colour of the closest one, and
//! the prediction is the label. If the prompt names options, the response does not list them.

use std::{collections::BTreeMap, path::Path};

use fieldmark_data::{
    Aliases, ClassFeature, ClassSplit, ColourHistogram, EvalRow, EvalSet, EvalSetName, LabelledFolder, LabelledPhoto,
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
/// The question in every prompt.
pub(super) const QUESTION: &str = "Which produce is this?";
/// Number of options of a closed-world question.
pub(super) const OPTIONS: usize = 4;

/// A training photograph, decoded.
pub(super) struct TrainPhoto {
    pub(super) photo: Photo,
    pub(super) label: LabelledPhoto,
    pub(super) colours: [&'static str; 2],
}

/// The demo's photographs and everything computed from them.
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
    pub(super) fn open(folder: &Path, seed: u64, decode: DecodeOptions) -> Result<Self, RunError> {
        let folder = requirements::open(folder)?;
        let families = folder.families();
        let split = ClassSplit::draw(&families, UNSEEN, seed)?;
        let mut train = Vec::new();
        let mut histograms = Vec::new();
        for label in folder.select(SourceSplit::Train, |_| true) {
            let photo = Photo::open(folder.file(label), &decode)?;
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

    /// Makes questions with options about the test photographs of the seen or unseen classes.
    ///
    /// The wrong options are drawn uniformly from the other classes of the split. If they were the look-alikes of the
    /// truth, the options alone would reveal it.
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
        Ok(EvalSet { rows: rows.collect(), name, aliases: Aliases::default() })
    }

    /// Returns the classes of the training photographs.
    pub(super) fn seen(&self) -> Vec<String> {
        self.split.classes(Split::Seen).map(str::to_owned).collect()
    }

    /// Makes a nearest-neighbour classifier on the colour histograms of the training photographs of seen classes.
    pub(super) fn histogram_baseline(&self) -> NearestNeighbour {
        NearestNeighbour::new(self.histograms.clone())
    }

    /// Returns a class, followed by other classes of the split drawn at random.
    pub(super) fn options(&self, class: &str, split: Split, stream: &mut RandomStream) -> Vec<String> {
        let mut others: Vec<String> =
            self.split.classes(split).filter(|other| *other != class).map(str::to_owned).collect();
        stream.shuffle(&mut others);
        others.truncate(OPTIONS - 1);
        std::iter::once(class.to_owned()).chain(others).collect()
    }

    /// Returns the group of look-alikes of a class, which a response compares if the prompt names no options. All
    /// classes of the group have the same look-alikes.
    pub(super) fn look_alikes(&self, class: &str) -> &[String] {
        self.groups.iter().find(|group| group.iter().any(|other| other == class)).map_or(&[], Vec::as_slice)
    }

    /// Makes the response that SFT teaches for a photograph. It compares look-alikes if the prompt names no options.
    pub(super) fn response(&self, photo: &TrainPhoto, options_shown: bool) -> String {
        let class = &photo.label.class;
        let [first, second] = photo.colours;
        let family = self.families.get(class).map_or("unknown", String::as_str);
        let weighed = if options_shown {
            // Naming the family would give the answer before the options are compared.
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

    /// Returns the texts that the tokenizer is trained on: class names, prompts and responses of the training set.
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

/// Puts classes into groups of [`OPTIONS`] look-alikes. Each group takes the most similar classes that are still free,
/// so the last group may be smaller.
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

/// The most common main colour in the training photographs of each class.
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

/// Converts a photograph to the `image` crate's type.
pub(super) fn to_image(photo: &Photo) -> Result<image::RgbImage, RunError> {
    image::RgbImage::from_raw(photo.width() as u32, photo.height() as u32, photo.rgb().to_vec())
        .ok_or_else(|| RunError::path(photo.name(), "the number of pixels does not match the size"))
}
