//! Draws pictures on all cores and says how many a second: `cargo run --release -p fieldmark-world --example speed`.

use std::time::Instant;

use fieldmark_stream::StreamKey;
use fieldmark_world::{SIDE, World, WorldConfig, contact_sheet, draw};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = World::new(WorldConfig::default())?;
    const PICTURES: u64 = 10_000;
    let start = Instant::now();
    let sum: u64 = (0..PICTURES)
        .into_par_iter()
        .map(|number| {
            let species = &world.species()[number as usize % world.species().len()];
            let mut stream = StreamKey::new(1).word("speed").number(number).stream();
            u64::from(draw(species.category, &species.marks, SIDE, &mut stream).get_pixel(0, 0).0[0])
        })
        .sum();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.0} pictures of {SIDE}×{SIDE} a second on {} threads ({sum})",
        PICTURES as f64 / seconds,
        rayon::current_num_threads()
    );
    if let Some(path) = std::env::args().nth(1) {
        contact_sheet(&world, SIDE, 1).save(path)?;
    }
    Ok(())
}
