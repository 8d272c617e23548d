//! The demo's photographs: classes split into seen and unseen, look-alikes, and the reasoning that SFT teaches.
//!
//! A response follows the paper's four parts (analysis, options, comparison, prediction; table 5). There is no teacher
//! here: the analysis states the photograph's measured colours, the comparison the typical colours of each option, and
//! the prediction is the label.

use std::{collections::BTreeMap, path::Path};

use fieldmark_data::{
    ClassFeature, ClassSplit, ColourHistogram, EvalSet, EvalSetName, LabelledFolder, LabelledPhoto, NearestNeighbour,
    PromptTemplate, SimilarClasses, SourceSplit, Split, eval_set_from_photos, options_for,
};
use fieldmark_generate::RandomStream;
use fieldmark_processor::{DecodeOptions, Photo};

use super::colours::main_colours;

/// The question of every prompt.
pub(super) const QUESTION: &str = "Which produce is this?";
/// Options of a closed-world question.
pub(super) const OPTIONS: usize = 4;
/// Classes that no training photograph shows.
pub(super) const UNSEEN: usize = 6;

/// A training photograph, decoded.
pub(super) struct TrainPhoto {
    pub(super) photo: Photo,
    pub(super) label: LabelledPhoto,
    pub(super) colours: [&'static str; 2],
}

/// Everything the demo knows about its photographs.
pub(super) struct Produce {
    pub(super) folder: LabelledFolder,
    pub(super) classes: Vec<String>,
    pub(super) split: ClassSplit,
    pub(super) similar: SimilarClasses,
    pub(super) train: Vec<TrainPhoto>,
    families: BTreeMap<String, String>,
    typical: BTreeMap<String, &'static str>,
    histograms: Vec<(String, ColourHistogram)>,
}

impl Produce {
    /// Reads `labels.csv` and the training photographs of `folder`.
    pub(super) fn open(folder: &Path, seed: u64) -> anyhow::Result<Self> {
        let folder = LabelledFolder::open(folder)?;
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
        let classes = families.keys().cloned().collect();
        Ok(Self { folder, classes, split, similar, train, families, typical, histograms })
    }

    /// The test photographs of the seen or unseen classes as questions with options.
    pub(super) fn test_set(&self, split: Split) -> anyhow::Result<EvalSet> {
        let name = EvalSetName { dataset: "produce".into(), split, super_category: "fruit or vegetable".into() };
        let photos = self.folder.select(SourceSplit::Test, |class| self.split.of(class) == Some(split));
        Ok(eval_set_from_photos(name, photos, &self.similar, OPTIONS, |_| QUESTION.into())?)
    }

    /// A nearest neighbour on colour histograms, which knows the seen classes' training photographs.
    pub(super) fn histogram_baseline(&self) -> NearestNeighbour {
        NearestNeighbour::new(self.histograms.clone())
    }

    /// The look-alikes of a class, itself included, in random order.
    pub(super) fn options(&self, class: &str, stream: &mut RandomStream) -> anyhow::Result<Vec<String>> {
        let mut options = options_for(class, &self.similar, OPTIONS)?;
        stream.shuffle(&mut options);
        Ok(options)
    }

    /// Look-alikes in a fixed order, as a response lists them where the prompt gives none.
    pub(super) fn candidates(&self, class: &str) -> anyhow::Result<Vec<String>> {
        let mut options = options_for(class, &self.similar, OPTIONS)?;
        options.sort();
        Ok(options)
    }

    /// The response that SFT teaches for a photograph.
    pub(super) fn response(&self, photo: &TrainPhoto, options: &[String]) -> String {
        let class = &photo.label.class;
        let [first, second] = photo.colours;
        let comparison: Vec<String> = options
            .iter()
            .map(|option| format!("{option} {}", self.typical.get(option).copied().unwrap_or("unknown")))
            .collect();
        format!(
            "<think>analysis: {first} and {second}, {}\noptions: {}\ncomparison: {}\nprediction: {class}</think>\
             <answer>{class}</answer>",
            self.families.get(class).map_or("unknown", String::as_str),
            options.join(", "),
            comparison.join(", "),
        )
    }

    /// Every text the tokenizer should know: prompts and responses of the training set, and all names.
    pub(super) fn corpus(&self) -> anyhow::Result<Vec<String>> {
        let mut texts = self.classes.clone();
        for photo in &self.train {
            let options = self.candidates(&photo.label.class)?;
            texts.push(PromptTemplate::Bare.render(QUESTION, &options).user);
            texts.push(self.response(photo, &options));
        }
        texts.push("You are a helpful assistant. system user assistant".into());
        Ok(texts)
    }
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
pub(super) fn to_image(photo: &Photo) -> anyhow::Result<image::RgbImage> {
    image::RgbImage::from_raw(photo.width() as u32, photo.height() as u32, photo.rgb().to_vec())
        .ok_or_else(|| anyhow::anyhow!("{}: pixels and size disagree", photo.name()))
}
