//! The course of a run as an SVG picture beside its `metrics.jsonl`.

use anyhow::anyhow;
use plotters::prelude::*;

/// One line of the picture.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is called in the legend.
    pub name: String,
    /// Its points, (step, value); values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A line without points.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), points: Vec::new() }
    }
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 90, 20), RGBColor(44, 140, 60), RGBColor(120, 80, 170)];

/// Draws the lines over a common axis of steps.
///
/// # Errors
/// If the picture cannot be drawn.
pub fn svg(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> anyhow::Result<String> {
    let mut picture = String::new();
    draw(&mut picture, title, x_label, y_label, series)
        .map_err(|error| anyhow!("the curve cannot be drawn: {error}"))?;
    Ok(picture)
}

fn draw(
    picture: &mut String,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
) -> Result<(), Box<dyn std::error::Error>> {
    let finite = |series: &Series| {
        let points = series.points.iter().copied();
        points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect::<Vec<_>>()
    };
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(finite).collect();
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            0.0..1.0
        } else {
            let margin = if high > low { 0.05 * (high - low) } else { 0.5 };
            low - margin..high + margin
        }
    };
    let x = span(&mut lines.iter().flatten().map(|point| point.0));
    let y = span(&mut lines.iter().flatten().map(|point| point.1));
    let root = SVGBackend::with_string(picture, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).light_line_style(RGBColor(235, 235, 235)).draw()?;
    for ((line, series), colour) in lines.into_iter().zip(series).zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(series.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_the_picture() {
        let mut loss = Series::new("loss");
        loss.points = vec![(1.0, 3.0), (2.0, f64::NAN), (3.0, 1.0)];
        let flat = Series { name: "reward".into(), points: vec![(1.0, 2.0)] };
        let picture = svg("SFT", "update", "loss", &[loss, flat, Series::new("empty")]).unwrap();
        for text in ["<svg", "SFT", "update", "loss", "reward", "polyline"] {
            assert!(picture.contains(text), "{text}");
        }
        assert!(!picture.contains("NaN") && picture.trim_end().ends_with("</svg>"));
        assert!(svg("nothing", "x", "y", &[]).unwrap().contains("</svg>"));
    }
}
