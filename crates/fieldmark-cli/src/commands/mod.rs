//! The commands, one file each, and how they end.

mod ask;
mod assets;
mod base;
mod data;
mod demo;
mod devices;
mod eval;
mod init;
mod parity;
mod photos;
mod plan;
mod prompt;
mod sft;
mod show;
mod tapo;
mod training;
mod world;

use std::{io::Write, path::Path};

use anyhow::bail;
use fieldmark::recipe::Recipe;

use crate::arguments::{Cli, Command, DataCommand, RecipeArgs};

/// How a command ended that was not given wrong input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Done,
    /// A check failed.
    Failed,
    /// It was stopped and has saved; it can be continued.
    Interrupted,
}

/// Runs the command of a command line.
///
/// # Errors
/// Returns an error if the input is wrong.
pub fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::World(args) => world::run(args),
        Command::Base(args) => base::run(args),
        Command::Init(args) => init::run(args),
        Command::Sft(args) => sft::run(args),
        Command::Tapo(args) => tapo::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Ask(args) => ask::run(args),
        Command::Prompt(args) => prompt::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Show(args) => show::run(args),
        Command::Data(DataCommand::Check(args)) => data::check(args),
        Command::Data(DataCommand::Options(args)) => data::options(args),
        Command::Devices => devices::run(),
        Command::Parity(args) => parity::run(args),
    }
}

/// Says how to continue what was stopped in `out`. Nothing is lost if nobody can read this, because the terminal was closed.
fn stopped(out: &Path) -> Outcome {
    let _ = say(&format!("stopped and saved in {}. To continue, add --resume to the same command", out.display()));
    Outcome::Interrupted
}

/// Reads the recipe of `command`. Without `-c` and `--set` the error says which keys it needs: `needs`, as `--set` takes them.
///
/// # Errors
/// Returns an error if there is no recipe or it is wrong.
fn recipe(args: &RecipeArgs, command: &str, needs: &[&str]) -> anyhow::Result<Recipe> {
    if args.config.is_empty() && args.set.is_empty() {
        let keys: Vec<String> = needs.iter().map(|key| format!("--set {key}")).collect();
        bail!("{command} needs a recipe; give a file with -c FILE, or set its keys: {}", keys.join(" "));
    }
    Ok(Recipe::read(&args.config, &args.set)?)
}

/// A number of parameters in words.
fn count(parameters: u64) -> String {
    match parameters {
        0..1_000_000 => parameters.to_string(),
        1_000_000..999_950_000 => format!("{:.1} million", parameters as f64 / 1e6),
        _ => format!("{:.2} billion", parameters as f64 / 1e9),
    }
}

/// Writes lines to standard output. Unlike `println!`, it does not panic if nobody reads them.
fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_in_millions_or_billions() {
        for (parameters, words) in [
            (65_432, "65432"),
            (1_000_000, "1.0 million"),
            (3_310_000, "3.3 million"),
            (999_949_999, "999.9 million"),
            (999_950_000, "1.00 billion"),
            (8_292_166_656, "8.29 billion"),
        ] {
            assert_eq!(count(parameters), words);
        }
    }
}
