//! `fieldmark base`: trains the base model of a world from nothing.

use fieldmark::{
    device,
    field_guide::{self, BaseOptions, Reuse},
    train::trainer::Interrupt,
    world::{Lessons, WorldConfig},
};

use super::{Outcome, say, stopped};
use crate::{arguments::BaseArgs, display::StageDisplay, signals::Listener};

/// Trains the model and prints its folder.
///
/// # Errors
/// Returns an error if there is no such world or the output cannot be written.
pub fn run(args: &BaseArgs) -> anyhow::Result<Outcome> {
    let device = device::open(args.device.name().unwrap_or_else(|| device::default_name()))?;
    let interrupt = Interrupt::new();
    let _listener = Listener::new("step", interrupt.clone())?;
    let options = BaseOptions {
        world: WorldConfig { seed: args.world, species: args.species },
        lessons: Lessons { described: args.pictures, ..Lessons::default() },
        seed: args.seed,
        out: args.out.clone(),
        reuse: Reuse { resume: args.resume, overwrite: args.overwrite },
        device: device.device,
        interrupt,
    };
    match field_guide::base(&options, &mut StageDisplay::default())? {
        Some(model) => {
            say(&format!("the base model: {}", model.display()))?;
            Ok(Outcome::Done)
        }
        None => Ok(stopped(&args.out)),
    }
}
