//! A fish from the side.

use super::shapes::{Canvas, Rgb, ellipse, polygon, segment};
use crate::category::PARTS;

/// Draws a fish with the colours of head, back, belly, fin and tail.
pub(super) fn draw(canvas: &mut Canvas<'_>, [head, back, belly, fin, tail]: [Rgb; PARTS]) {
    canvas.part(polygon([(-1.8, 0.0), (-4.3, -2.3), (-3.7, 0.0), (-4.3, 2.3)]), tail);
    canvas.part(polygon([(-2.0, -1.2), (-1.4, -3.8), (1.3, -3.4), (1.6, -1.2)]), fin);
    canvas.part(ellipse(0.2, 0.0, 2.9, 2.0), back);
    canvas.part(segment(0.2, 0.15, 2.85, 1.85, 0.0, 180.0), belly);
    canvas.part(segment(0.2, 0.0, 2.9, 2.0, -80.0, 80.0), head);
    canvas.part(ellipse(2.1, -0.4, 0.26, 0.26), [250, 250, 250]);
    canvas.part(ellipse(2.1, -0.4, 0.12, 0.12), [0, 0, 0]);
}
