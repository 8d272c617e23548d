//! A folder of labelled photographs for training and evaluation: seen and unseen classes, and which classes look alike.
//!
//! Similarity is the cosine of mean colour histograms within a family. The paper's way of choosing is not released.

use std::path::{Path, PathBuf};

use fieldmark_data::{
    ClassFeature, ClassSplit, ColourHistogram, DataError, HeldOutClasses, ImageRoots, LabelledFolder, LabelledPhoto,
    SimilarClasses, SourceSplit, Split, Unseen,
};
use fieldmark_processor::{DecodeOptions, Photo};
use image::RgbImage;

use crate::error::RunError;

/// The photographs of a folder, and the split of their classes.
#[derive(Debug)]
pub struct Labels {
    /// Path of `labels.csv`.
    pub table: PathBuf,
    /// The photographs.
    pub folder: LabelledFolder,
    split: ClassSplit,
}

impl Labels {
    /// Reads `labels.csv`. Training never sees the classes `unseen`. Every photograph must exist.
    ///
    /// # Errors
    /// Returns an error for the first bad line or missing photograph, for an unknown class, or if no class would be left as
    /// seen.
    pub fn open(path: &Path, unseen: &Unseen) -> Result<Self, RunError> {
        let (table, folder) = (path.join("labels.csv"), LabelledFolder::open(path)?);
        if let Some(photo) = folder.photos.iter().find(|photo| !folder.file(photo).is_file()) {
            let problem = ImageRoots::new(path).not_found(&photo.path);
            return Err(DataError::Row { file: table, row: photo.row, problem }.into());
        }
        let split = ClassSplit::choose(&folder.families(), unseen)?;
        Ok(Self { table, folder, split })
    }

    /// The unseen classes, with their photographs.
    pub fn held_out(&self) -> HeldOutClasses {
        HeldOutClasses::of(&self.folder, &self.split)
    }

    /// Training photographs of seen classes.
    pub fn training(&self) -> Vec<&LabelledPhoto> {
        self.of(SourceSplit::Train, Split::Seen)
    }

    /// Test photographs of the classes in `split`.
    pub fn test(&self, split: Split) -> Vec<&LabelledPhoto> {
        self.of(SourceSplit::Test, split)
    }

    /// Training photographs of all classes. They decide which classes look alike in a question.
    pub fn all_training(&self) -> Vec<&LabelledPhoto> {
        self.folder.select(SourceSplit::Train, |_| true).collect()
    }

    /// Finds which classes of `photos` look alike.
    ///
    /// # Errors
    /// Returns an error if a photograph cannot be read, or if there are fewer than two classes.
    pub fn similar(&self, photos: &[&LabelledPhoto], decode: DecodeOptions) -> Result<SimilarClasses, RunError> {
        let mut histograms = Vec::with_capacity(photos.len());
        for photo in photos {
            let decoded = Photo::open(self.folder.file(photo), &decode).map_err(|error| {
                RunError::path(format!("{}:{}", self.table.display(), photo.row), error.to_string())
            })?;
            let (width, height) = (decoded.width() as u32, decoded.height() as u32);
            let image = RgbImage::from_raw(width, height, decoded.rgb().to_vec()).unwrap_or_default();
            histograms.push(ColourHistogram::of(&image));
        }
        let features: Vec<ClassFeature<'_>> = photos
            .iter()
            .zip(&histograms)
            .map(|(photo, histogram)| ClassFeature {
                class: &photo.class,
                super_category: &photo.super_category,
                values: &histogram.values,
            })
            .collect();
        Ok(SimilarClasses::from_features(&features)?)
    }

    fn of(&self, source: SourceSplit, split: Split) -> Vec<&LabelledPhoto> {
        self.folder.select(source, move |class| self.split.of(class) == Some(split)).collect()
    }
}
