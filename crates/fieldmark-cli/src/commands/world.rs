//! `fieldmark world`: writes a world of look-alikes as files.

use fieldmark::{
    field_guide::{self, WorldOptions},
    train::trainer::Interrupt,
    world::{ExportConfig, WorldConfig},
};

use super::{Outcome, say};
use crate::{arguments::WorldArgs, display::StageDisplay, signals::Listener};

/// Writes the world and prints what to do with it.
///
/// # Errors
/// Returns an error if there is no such world, or the folder cannot be written.
pub fn run(args: &WorldArgs) -> anyhow::Result<Outcome> {
    let interrupt = Interrupt::new();
    let _listener = Listener::new("picture", interrupt.clone())?;
    let options = WorldOptions {
        world: WorldConfig { seed: args.seed, species: args.species },
        export: ExportConfig {
            seed: args.pictures,
            test: args.images,
            side: args.side,
            robustness: args.robustness,
            ..ExportConfig::default()
        },
        out: args.out.clone(),
        interrupt,
    };
    if field_guide::world(&options, &mut StageDisplay::default())?.is_none() {
        let _ = say("stopped; nothing was written");
        return Ok(Outcome::Interrupted);
    }
    let folder = args.out.display();
    say(&format!("the world: {folder}; look at {folder}/sheet.png"))?;
    say(&format!(
        "to train on it: fieldmark sft -c {folder}/recipes/sft.toml --set model.path=BASE --set \
         data.sft.file={folder}/cot.jsonl --set data.images={folder} --set output=runs/sft"
    ))?;
    Ok(Outcome::Done)
}
