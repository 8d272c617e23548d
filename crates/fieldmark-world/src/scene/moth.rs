//! A moth from above.

use super::shapes::{Canvas, Rgb, ellipse, polygon};
use crate::category::PARTS;

/// Draws a moth with the colours of forewings, their tips, hindwings, the spots on them and the body.
pub(super) fn draw(canvas: &mut Canvas<'_>, [forewing, tip, hindwing, spot, body]: [Rgb; PARTS]) {
    for side in [-1.0, 1.0] {
        let mirrored = |points: &[(f32, f32)]| polygon(points.iter().map(|&(x, y)| (side * x, y)).collect::<Vec<_>>());
        canvas.part(ellipse(side * 2.0, 1.6, 1.85, 1.85), hindwing);
        canvas.part(ellipse(side * 2.25, 2.0, 1.1, 1.1), spot);
        canvas.part(mirrored(&[(0.2, -1.7), (2.6, -3.2), (4.2, -3.5), (4.1, -0.9), (2.4, 0.5), (0.2, 0.4)]), forewing);
        canvas.part(mirrored(&[(2.7, -3.22), (4.2, -3.5), (4.1, -0.9), (3.0, 0.0)]), tip);
        canvas.line(&[(side * 0.2, -2.2), (side * 0.9, -3.6)], 0.12, [60, 50, 40]);
    }
    canvas.part(ellipse(0.0, 0.2, 0.95, 2.7), body);
}
