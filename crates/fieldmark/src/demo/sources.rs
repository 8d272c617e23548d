//! The demo's training data: conversations about cropped and flipped photographs, and triplets.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use fieldmark_data::{
    LabelledPhoto, PromptTemplate, RandomResizedCrop, SinglePhotoPolicy, Split, Triplet, build_triplets,
};
use fieldmark_processor::{
    Message, PatchedImage, Photo, ProcessOptions, Processor, Sequence, SupervisedSequence, TargetEnd,
};
use fieldmark_stream::{RandomStream, StreamKey};
use fieldmark_train::{
    TrainError,
    sft::SftSource,
    tapo::{TripletSource, rollout::TripletPrompt},
};

use super::produce::{Produce, QUESTION, SIDE, TrainPhoto, to_image};
use crate::error::RunError;

/// Smallest and largest share of the photograph that a crop keeps.
const CROP: (f64, f64) = (0.3, 1.0);
/// Smallest and largest share that a close-up keeps.
const CLOSE_UP: (f64, f64) = (0.01, 0.15);

/// The photographs and the processor of both stages.
pub(super) struct DemoData<'a> {
    pub(super) produce: &'a Produce,
    pub(super) processor: &'a Processor,
    pub(super) key: StreamKey,
}

impl DemoData<'_> {
    /// Makes a random crop, resized and perhaps flipped. With `close`, two of three crops are close-ups, which show
    /// colour and texture but hardly the object.
    fn patches(&self, photo: &Photo, close: bool, stream: &mut RandomStream) -> Result<PatchedImage, RunError> {
        let side = SIDE as u32;
        let scale = if close && stream.below(3) > 0 { CLOSE_UP } else { CROP };
        let crop = RandomResizedCrop { scale, ..RandomResizedCrop::new(side, side) };
        let image = crop.apply(&to_image(photo)?, stream);
        let photo = Photo::from_rgb(photo.name(), SIDE, SIDE, image.into_raw())?;
        Ok(self.processor.images.process(&photo)?)
    }

    /// Returns options for half of the questions, so that one model answers in both worlds.
    fn options(&self, photo: &TrainPhoto, stream: &mut RandomStream) -> Option<Vec<String>> {
        (stream.below(2) == 0).then(|| {
            let mut options = self.produce.options(&photo.label.class, Split::Seen, stream);
            stream.shuffle(&mut options);
            options
        })
    }

    fn sft_sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, RunError> {
        let photo = &self.produce.train[row];
        let mut stream = self.key.word("sft").word("sample").number(epoch as u64).number(row as u64).stream();
        let shown = self.options(photo, &mut stream);
        let shown_options = shown.is_some();
        let response = self.produce.response(photo, shown_options);
        let prompt = PromptTemplate::Bare.render(QUESTION, &shown.unwrap_or_default());
        let messages = [Message::user(&prompt.user), Message::assistant(response)];
        // The model soon memorises a few hundred photographs and then ignores the options. Close-ups keep the answer
        // uncertain, so that it learns to choose among the options.
        let images = vec![self.patches(&photo.photo, shown_options, &mut stream)?];
        let name = photo.photo.name();
        Ok(self.processor.encode_supervised(name, &messages, images, TargetEnd::ImEnd, None)?)
    }
}

impl SftSource for DemoData<'_> {
    fn len(&self) -> usize {
        self.produce.train.len()
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let name = || self.produce.train[row].photo.name().to_string();
        self.sft_sample(row, epoch).map_err(|error| TrainError::Sample { row: name(), reason: error.to_string() })
    }
}

/// Triplets of training photographs, drawn again in each epoch.
pub(super) struct DemoTriplets<'a> {
    data: &'a DemoData<'a>,
    /// The last requested epoch and its triplets.
    epoch: Mutex<Option<(usize, Vec<Triple>)>>,
}

/// Indices of anchor, positive and negative among the training photographs.
#[derive(Debug, Clone, Copy)]
struct Triple {
    anchor: usize,
    positive: usize,
    negative: usize,
}

impl<'a> DemoTriplets<'a> {
    pub(super) fn new(data: &'a DemoData<'a>) -> Self {
        Self { data, epoch: Mutex::new(None) }
    }

    /// Returns the triplet of a row in an epoch. All triplets of an epoch are drawn together.
    fn triple(&self, row: usize, epoch: usize) -> Result<Triple, RunError> {
        let mut known = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((of, triples)) if *of == epoch => Ok(triples[row]),
            _ => {
                let triples = self.draw(epoch)?;
                let found = triples[row];
                *known = Some((epoch, triples));
                Ok(found)
            }
        }
    }

    fn draw(&self, epoch: usize) -> Result<Vec<Triple>, RunError> {
        let DemoData { produce, key, .. } = self.data;
        let labels: Vec<_> = produce.train.iter().map(|photo| &photo.label).collect();
        let places: BTreeMap<usize, usize> =
            labels.iter().enumerate().map(|(place, label)| (label.row, place)).collect();
        let mut stream = key.word("tapo").word("triplets").number(epoch as u64).stream();
        let triplets = build_triplets(&labels, &produce.similar, SinglePhotoPolicy::Refuse, &mut stream)?;
        let place = |label: &LabelledPhoto| {
            let problem = "this photograph is in a triplet, but it is not a training photograph";
            places
                .get(&label.row)
                .copied()
                .ok_or_else(|| RunError::path(format!("labels.csv, row {}", label.row), problem))
        };
        let triple = |triplet: &Triplet<'_>| {
            let (anchor, positive) = (place(triplet.anchor)?, place(triplet.positive)?);
            Ok(Triple { anchor, positive, negative: place(triplet.negative)? })
        };
        triplets.iter().map(triple).collect()
    }

    fn triplet(&self, row: usize, epoch: usize) -> Result<TripletPrompt, RunError> {
        let DemoData { produce, key, .. } = self.data;
        let triple = self.triple(row, epoch)?;
        let photo = |place: usize| &produce.train[place];
        let anchor = photo(triple.anchor);
        let mut stream = key.word("tapo").word("sample").number(epoch as u64).number(row as u64).stream();
        let options = self.data.options(anchor, &mut stream).unwrap_or_default();
        let prompt = PromptTemplate::Bare.render(QUESTION, &options);
        let mut sequence = |photo: &TrainPhoto| -> Result<Sequence, RunError> {
            let images = vec![self.data.patches(&photo.photo, !options.is_empty(), &mut stream)?];
            let messages = [Message::user(&prompt.user)];
            Ok(self.data.processor.encode(photo.photo.name(), &messages, images, ProcessOptions::prompt())?)
        };
        Ok(TripletPrompt {
            anchor: sequence(anchor)?,
            positive: Some(sequence(photo(triple.positive))?),
            negative: Some(sequence(photo(triple.negative))?),
            truth: anchor.label.class.clone(),
            aliases: Vec::new(),
        })
    }
}

impl TripletSource for DemoTriplets<'_> {
    fn len(&self) -> usize {
        self.data.produce.train.len()
    }

    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError> {
        let name = || self.data.produce.train[row].photo.name().to_string();
        self.triplet(row, epoch).map_err(|error| TrainError::Sample { row: name(), reason: error.to_string() })
    }
}
