//! The rows of a padded batch in a reference folder, with their images.

use std::sync::Arc;

use burn::tensor::Device;
use fieldmark_model::{GridThw, ModelInputs, Padding, Qwen25VlConfig, Row};
use fieldmark_processor::{PatchedImage, Sequence};

use super::{error::ParityError, fixture::Fixture};

/// The rows of a padded batch, without padding.
pub(super) struct Rows {
    pub(super) ids: Vec<Vec<u32>>,
    pub(super) grids: Vec<Vec<GridThw>>,
    pub(super) padding: Padding,
    pub(super) pixels: Vec<f32>,
    /// File and tensor that the rows come from, for error messages.
    origin: String,
}

impl Rows {
    /// Reads `<prefix>.input_ids` and `.attention_mask`. The images go to the rows in order: each row takes as many as
    /// it has placeholders for.
    pub(super) fn read(fixture: &mut Fixture, prefix: &str, config: &Qwen25VlConfig) -> Result<Self, ParityError> {
        let (name, mask_name) = (format!("{prefix}.input_ids"), format!("{prefix}.attention_mask"));
        let shape: [usize; 2] = fixture.dims(&name)?;
        fixture.expect(&mask_name, shape)?;
        let ids = fixture.indices(&name, config.text.vocab_size)?;
        let mask = fixture.indices(&mask_name, 2)?;
        let (mut images, pixels) = images(fixture, prefix, config)?;
        images.reverse();
        let origin = fixture.malformed(&name, "").to_string();
        let mut rows = Self { ids: Vec::new(), grids: Vec::new(), padding: Padding::Left, pixels: Vec::new(), origin };
        for b in 0..shape[0] {
            let line = b * shape[1]..(b + 1) * shape[1];
            if mask[line.start] == 1 && mask[line.end - 1] == 0 {
                rows.padding = Padding::Right;
            }
            let real: Vec<u32> = line.filter(|&i| mask[i] == 1).map(|i| ids[i] as u32).collect();
            if real.is_empty() {
                return Err(fixture.malformed(&mask_name, format!("row {b} has no token")));
            }
            let mut left = real.iter().filter(|&&id| id == config.vision_tokens.image).count();
            let mut own = Vec::new();
            while left > 0 {
                let Some(grid) = images.pop() else { break };
                left = left.saturating_sub(grid.tokens(config.vision.spatial_merge_size));
                own.push(grid);
            }
            rows.ids.push(real);
            rows.grids.push(own);
        }
        if rows.grids.iter().any(|grids| !grids.is_empty()) {
            rows.pixels = pixels;
        }
        Ok(rows)
    }

    pub(super) fn inputs(&self, config: &Qwen25VlConfig, device: &Device) -> Result<ModelInputs, ParityError> {
        let mut next = 0..;
        let images: Vec<Vec<usize>> =
            self.grids.iter().map(|grids| next.by_ref().take(grids.len()).collect()).collect();
        let rows: Vec<Row<'_>> = self.ids.iter().zip(&images).map(|(ids, images)| Row::new(ids, images)).collect();
        let grids: Vec<GridThw> = self.grids.iter().flatten().copied().collect();
        let inputs = ModelInputs::new(&rows, &grids, self.pixels.clone(), self.padding, 0, config, device);
        inputs.map_err(|error| ParityError::Folder(format!("{}{error}", self.origin)))
    }

    /// Returns the rows as prompts with their images.
    pub(super) fn sequences(&self, patch_len: usize) -> Vec<Sequence> {
        let mut at = 0;
        let prompt = |(i, (ids, grids)): (usize, (&Vec<u32>, &Vec<GridThw>))| {
            let images = grids
                .iter()
                .map(|&grid| {
                    let len = grid.patches() * patch_len;
                    at += len;
                    PatchedImage { pixel_values: Arc::from(&self.pixels[at - len..at]), grid }
                })
                .collect();
            Sequence { name: format!("row {i}"), ids: ids.clone(), images }
        };
        self.ids.iter().zip(&self.grids).enumerate().map(prompt).collect()
    }
}

/// Returns grids and patches of the images in a batch.
pub(super) fn images(
    fixture: &mut Fixture,
    prefix: &str,
    config: &Qwen25VlConfig,
) -> Result<(Vec<GridThw>, Vec<f32>), ParityError> {
    if prefix == "text" {
        return Ok((Vec::new(), Vec::new()));
    }
    let own = format!("{prefix}.image_grid_thw");
    let name = if fixture.has(&own) { own.as_str() } else { "images.grid_thw" };
    let [count, _] = fixture.dims(name)?;
    fixture.expect(name, [count, 3])?;
    let [patches, _] = fixture.dims("images.pixel_values")?;
    let width = config.vision.patch_len();
    fixture.expect("images.pixel_values", [patches, width])?;
    let mut pixels: Vec<f32> = fixture.get("images.pixel_values")?.values.iter().map(|&x| x as f32).collect();
    let rows = format!("{prefix}.pixel_rows");
    if fixture.has(&rows) {
        match fixture.indices(&rows, patches + 1)?[..] {
            [from, to] if from <= to => pixels = pixels[from * width..to * width].to_vec(),
            _ => {
                return Err(fixture.malformed(&rows, "must hold two numbers: the first row and the row after the last"));
            }
        }
    }
    // A side is at most the number of patches, so that the size of the file bounds the work on a grid.
    let sides = fixture.indices(name, patches + 1)?;
    let grids: Vec<GridThw> = sides.as_chunks().0.iter().map(|&[t, h, w]| GridThw { t, h, w }).collect();
    let merge = config.vision.spatial_merge_size;
    let whole =
        |grid: &GridThw| grid.t * grid.h * grid.w > 0 && grid.h.is_multiple_of(merge) && grid.w.is_multiple_of(merge);
    if let Some(grid) = grids.iter().find(|grid| !whole(grid)) {
        let GridThw { t, h, w } = grid;
        return Err(fixture.malformed(name, format!("{t}x{h}x{w} patches cannot be merged {merge} by {merge}")));
    }
    let shown: usize = grids.iter().map(GridThw::patches).sum();
    if shown * width > pixels.len() {
        let there = pixels.len() / width;
        return Err(fixture.malformed(name, format!("needs {shown} patches, but there are {there}")));
    }
    Ok((grids, pixels))
}
