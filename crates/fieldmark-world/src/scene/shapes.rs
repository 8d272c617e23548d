//! Shapes in units of a ninth of the picture's side, around its middle; y points down.

use tiny_skia::{FillRule, LineCap, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};

/// A colour of paint.
pub(super) type Rgb = [u8; 3];

/// The canvas of an animal: a picture, where the animal is in it, and the colour of outlines.
pub(super) struct Canvas<'a> {
    pub(super) pixels: &'a mut Pixmap,
    /// From units to pixels: scale, turn, flip and place.
    pub(super) place: Transform,
}

/// The colour of outlines.
const OUTLINE: Rgb = [20, 20, 20];
/// The width of outlines in units.
const LINE: f32 = 0.07;

impl Canvas<'_> {
    /// Fills a shape and draws its outline.
    pub(super) fn part(&mut self, path: Option<Path>, colour: Rgb) {
        let Some(path) = path else { return };
        self.pixels.fill_path(&path, &paint(colour), FillRule::Winding, self.place, None);
        let stroke = Stroke { width: LINE, ..Stroke::default() };
        self.pixels.stroke_path(&path, &paint(OUTLINE), &stroke, self.place, None);
    }

    /// Draws a line.
    pub(super) fn line(&mut self, points: &[(f32, f32)], width: f32, colour: Rgb) {
        let mut builder = PathBuilder::new();
        for (index, &(x, y)) in points.iter().enumerate() {
            if index == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
        }
        if let Some(path) = builder.finish() {
            let stroke = Stroke { width, line_cap: LineCap::Round, ..Stroke::default() };
            self.pixels.stroke_path(&path, &paint(colour), &stroke, self.place, None);
        }
    }
}

/// Paint of one colour.
pub(super) fn paint(rgb: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(rgb[0], rgb[1], rgb[2], 255);
    paint
}

/// A closed polygon.
pub(super) fn polygon(points: impl IntoIterator<Item = (f32, f32)>) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (index, (x, y)) in points.into_iter().enumerate() {
        if index == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
    }
    builder.close();
    builder.finish()
}

/// An ellipse with its middle and its two radii.
pub(super) fn ellipse(x: f32, y: f32, across: f32, up: f32) -> Option<Path> {
    PathBuilder::from_oval(Rect::from_xywh(x - across, y - up, 2.0 * across, 2.0 * up)?)
}

/// The part of an ellipse between two angles in degrees, closed by a straight line; 0 is right, 90 is down.
pub(super) fn segment(x: f32, y: f32, across: f32, up: f32, from: f32, to: f32) -> Option<Path> {
    const STEPS: u16 = 16;
    polygon((0..=STEPS).map(|step| {
        let angle = (from + (to - from) * f32::from(step) / f32::from(STEPS)).to_radians();
        (x + across * angle.cos(), y + up * angle.sin())
    }))
}
