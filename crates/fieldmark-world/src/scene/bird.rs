//! A bird from the side.

use super::shapes::{Canvas, Rgb, ellipse, polygon, segment};
use crate::category::PARTS;

/// Draws a bird with the colours of head, back, breast, wing and tail.
pub(super) fn draw(canvas: &mut Canvas<'_>, [head, back, breast, wing, tail]: [Rgb; PARTS]) {
    canvas.part(polygon([(-1.4, -1.0), (-4.2, -1.6), (-4.2, 0.9), (-1.4, 1.0)]), tail);
    canvas.part(ellipse(-0.05, 0.05, 2.35, 2.15), back);
    canvas.part(segment(0.15, 0.3, 2.15, 1.9, 0.0, 180.0), breast);
    canvas.part(ellipse(-0.75, 0.6, 1.4, 0.95), wing);
    let (x, y) = (2.0, -2.0);
    canvas.part(polygon([(x + 0.9, y - 0.5), (x + 2.1, y + 0.1), (x + 0.9, y + 0.6)]), [235, 150, 30]);
    canvas.part(ellipse(x, y, 1.5, 1.5), head);
    canvas.part(ellipse(x + 0.5, y - 0.3, 0.22, 0.22), [250, 250, 250]);
    canvas.part(ellipse(x + 0.5, y - 0.3, 0.1, 0.1), [0, 0, 0]);
}
