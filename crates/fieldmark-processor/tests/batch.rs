//! Padded batches against the reference's (fixture `qwen2_5_vl_tiny`), and what a batch must refuse.

use std::{path::PathBuf, sync::Arc};

use burn::tensor::Device;
use fieldmark_model::{GridThw, ModelInputs, Padding, Qwen25VlConfig, RopePosition};
use fieldmark_processor::{PatchedImage, ProcessorError, Sequence, collate};
use proptest::prelude::*;
use safetensors::SafeTensors;

const PAD: u32 = 0;
const IMAGE: u32 = 6;

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/qwen2_5_vl_tiny").join(file)
}

fn config() -> Qwen25VlConfig {
    Qwen25VlConfig::from_json_file(&fixture("config.json")).unwrap()
}

fn batch(sequences: &[Sequence], padding: Padding) -> Result<ModelInputs, ProcessorError> {
    collate(sequences, padding, PAD, None, &config(), &Device::default())
}

fn ints<const D: usize>(tensor: &burn::tensor::Tensor<D, burn::tensor::Int>) -> Vec<i64> {
    tensor.to_data().iter::<i64>().collect()
}

fn integers(file: &SafeTensors, name: &str) -> Vec<i64> {
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
}

fn image(grid: GridThw, value: f32) -> PatchedImage {
    PatchedImage { pixel_values: vec![value; grid.patches() * 1176].into(), grid }
}

/// Text, then each image with text after it; the sequence is well formed.
fn sample(name: &str, text: usize, images: &[PatchedImage]) -> Sequence {
    let mut ids = vec![20; text];
    for image in images {
        ids.push(3);
        ids.extend(vec![IMAGE; image.grid.tokens(2)]);
        ids.extend([4, 21, 22]);
    }
    Sequence { name: name.into(), ids, images: images.to_vec() }
}

#[test]
fn batches_equal_the_reference_on_either_side() {
    let bytes = std::fs::read(fixture("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let pixels: Vec<f32> = file
        .tensor("images.pixel_values")
        .unwrap()
        .data()
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    let mut start = 0;
    let images: Vec<PatchedImage> = integers(&file, "images.grid_thw")
        .chunks(3)
        .map(|grid| {
            let grid = GridThw { t: grid[0] as usize, h: grid[1] as usize, w: grid[2] as usize };
            let end = start + grid.patches() * 1176;
            let image = PatchedImage { pixel_values: Arc::from(&pixels[start..end]), grid };
            start = end;
            image
        })
        .collect();
    for (case, padding, rows) in [("batch", Padding::Left, 2), ("sft", Padding::Right, 2), ("multi", Padding::Left, 1)]
    {
        let ids = integers(&file, &format!("{case}.input_ids"));
        let mask = integers(&file, &format!("{case}.attention_mask"));
        let seq = ids.len() / rows;
        let mut rest = images.clone();
        let sequences: Vec<Sequence> = (0..rows)
            .map(|row| {
                let span = row * seq..(row + 1) * seq;
                let real = ids[span.clone()].iter().zip(&mask[span]).filter(|(_, mask)| **mask == 1);
                let ids: Vec<u32> = real.map(|(id, _)| *id as u32).collect();
                let mut features = ids.iter().filter(|id| **id == IMAGE).count();
                let mut own = Vec::new();
                while features > 0 {
                    let next = rest.remove(0);
                    features -= next.grid.tokens(2);
                    own.push(next);
                }
                Sequence { name: format!("row {row}"), ids, images: own }
            })
            .collect();
        let inputs = batch(&sequences, padding).unwrap();
        assert_eq!(ints(&inputs.input_ids), ids, "{case}");
        assert_eq!(ints(&inputs.position_ids), integers(&file, &format!("{case}.position_ids")), "{case}");
        let found = inputs.images.as_ref().unwrap();
        let found: Vec<f32> = found.pixel_values.to_data().iter::<f32>().collect();
        assert_eq!(found, pixels[..found.len()], "{case}");
        assert_eq!(found.len(), pixels.len(), "{case}");
        let at: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == i64::from(IMAGE)).collect();
        assert_eq!(inputs.image_index, at, "{case}");
        if case != "sft" {
            let next: Vec<i64> = inputs.next_position.iter().map(|position| position.0 as i64).collect();
            assert_eq!(next, integers(&file, &format!("{case}.next_position")));
        }
    }
}

#[test]
fn rollouts_of_one_prompt_share_its_image() {
    let prompt = sample("prompt", 3, &[image(GridThw::image(4, 4), 0.5)]);
    let other = sample("other", 1, &[image(GridThw::image(2, 6), 0.25)]);
    let rows = [prompt.with_response(&[30, 31]), prompt.with_response(&[32]), other];
    let inputs = batch(&rows, Padding::Right).unwrap();
    assert_eq!(inputs.images.unwrap().grids, [GridThw::image(4, 4), GridThw::image(2, 6)]);
    assert_eq!(inputs.image_features, [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn disagreements_name_the_sample() {
    let grid = GridThw::image(4, 4);
    let good = sample("good", 2, &[image(grid, 0.0)]);
    let refusal = |change: &dyn Fn(&mut Sequence)| {
        let mut bad = sample("sample 17", 2, &[image(grid, 0.0)]);
        change(&mut bad);
        let error = batch(&[good.clone(), bad], Padding::Left).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("sample 17: "), "{message}");
        match error {
            ProcessorError::ImageTokens { reason, .. } => reason,
            ProcessorError::TooLong { tokens: 610, image_tokens: 4, limit: 512, .. } => "610 tokens".into(),
            other => panic!("{other}"),
        }
    };
    assert!(
        refusal(&|bad| bad.images.push(image(grid, 0.0)))
            .contains("4 image placeholder tokens, but its 2 image(s) give 8 features")
    );
    assert!(refusal(&|bad| bad.images.clear()).contains("its 0 image(s)"));
    assert!(
        refusal(&|bad| {
            bad.ids.remove(3);
        })
        .contains("3 image placeholder tokens")
    );
    assert!(
        refusal(&|bad| bad.images[0].pixel_values = vec![0.0; 5].into()).contains("image 0 has 5 numbers in 1×4×4")
    );
    assert!(refusal(&|bad| bad.images[0] = image(GridThw { t: 1, h: 1, w: 16 }, 0.0)).contains("features"));
    assert!(refusal(&|bad| bad.ids.push(320)).contains("token id 320 "));
    // The sum is right, but no run is an image of its own.
    assert!(refusal(&|bad| bad.ids.swap(3, 9)).contains("features"));
    assert!(refusal(&|bad| bad.ids.extend(vec![20; 600])).contains("610 tokens"));
    let limited = collate(std::slice::from_ref(&good), Padding::Left, PAD, Some(9), &config(), &Device::default());
    assert!(matches!(limited, Err(ProcessorError::TooLong { tokens: 10, limit: 9, .. })));
    assert!(collate(&[good], Padding::Left, PAD, Some(10), &config(), &Device::default()).is_ok());
    assert!(matches!(batch(&[], Padding::Left), Err(ProcessorError::Empty)));
    assert!(matches!(batch(&[sample("empty", 0, &[])], Padding::Left), Err(ProcessorError::Empty)));
}

prop_compose! {
    fn any_sample()(text in 1usize..9, grids in prop::collection::vec((1usize..4, 1usize..4), 0..3)) -> Sequence {
        let images: Vec<PatchedImage> = grids.iter().map(|(h, w)| image(GridThw::image(2 * h, 2 * w), 0.0)).collect();
        sample("any", text, &images)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn padding_on_either_side_keeps_ids_positions_and_images(samples in prop::collection::vec(any_sample(), 1..4)) {
        let seq = samples.iter().map(|sample| sample.ids.len()).max().unwrap();
        for padding in [Padding::Left, Padding::Right] {
            let inputs = batch(&samples, padding).unwrap();
            prop_assert_eq!(inputs.dims(), [samples.len(), seq]);
            let (ids, positions) = (ints(&inputs.input_ids), ints(&inputs.position_ids));
            let mut image_tokens = 0;
            for (b, sample) in samples.iter().enumerate() {
                let row = inputs.rows[b].clone();
                let expected = if padding == Padding::Left { seq - sample.ids.len()..seq } else { 0..sample.ids.len() };
                prop_assert_eq!(&row, &expected);
                let alone = batch(std::slice::from_ref(sample), padding).unwrap();
                let alone_positions = ints(&alone.position_ids);
                for column in 0..seq {
                    let flat = b * seq + column;
                    if row.contains(&column) {
                        let i = column - row.start;
                        prop_assert_eq!(ids[flat], i64::from(sample.ids[i]));
                        for axis in 0..3 {
                            prop_assert_eq!(
                                positions[axis * samples.len() * seq + flat],
                                alone_positions[axis * sample.ids.len() + i]
                            );
                        }
                    } else {
                        prop_assert_eq!(ids[flat], i64::from(PAD));
                    }
                }
                prop_assert_eq!(inputs.next_position[b], alone.next_position[0]);
                // Text counts one by one, an image by its longer side.
                let next: usize = sample.ids.iter().filter(|&&id| id != IMAGE).count()
                    + sample.images.iter().map(|image| image.grid.h.max(image.grid.w) / 2).sum::<usize>();
                prop_assert_eq!(inputs.next_position[b], RopePosition(next));
                image_tokens += sample.images.iter().map(|image| image.grid.h * image.grid.w / 4).sum::<usize>();
            }
            prop_assert_eq!(inputs.image_index.len(), image_tokens);
            prop_assert!(inputs.image_index.iter().all(|&flat| ids[flat] == i64::from(IMAGE)));
            prop_assert_eq!(inputs.images.is_some(), image_tokens > 0);
        }
    }
}
