//! `fieldmark init`: a checkpoint from nothing, with random weights and a tokenizer trained on texts.

use anyhow::bail;
use fieldmark::{
    device,
    init::{NewModel, Shape, read_corpus},
};

use super::{Outcome, count, say};
use crate::arguments::InitArgs;

/// Makes the model and writes its folder.
///
/// # Errors
/// Returns an error if the shape, the corpus or the folder is wrong; nothing is written then.
pub fn run(args: &InitArgs) -> anyhow::Result<Outcome> {
    NewModel::check_folder(&args.out)?;
    let shape = args.shape.as_deref().map_or_else(|| Ok(Shape::default()), Shape::read)?;
    let parameters = shape.parameters();
    if parameters > args.max_parameters {
        let file = args.shape.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        let limit = args.max_parameters;
        bail!(
            "{file}a model of {parameters} parameters, over the limit of {limit}; make it smaller, or raise --max-parameters"
        );
    }
    let texts = read_corpus(&args.corpus)?;
    let device = device::open(device::default_name())?.device;
    let new = shape.make(&texts, args.seed, &device).map_err(|error| match &args.shape {
        Some(path) => Shape::in_file(path, error),
        None => error,
    })?;
    new.write(&args.out)?;
    let folder = args.out.display();
    let tokens = new.checkpoint.processor.tokenizer.vocab_size();
    say(&format!("{} parameters, {tokens} tokens: {folder}", count(new.parameters() as u64)))?;
    say(&format!(
        "to train it: fieldmark sft --set model.path={folder} --set sft.train.vision=true --set \
         sft.train.projector=true --set data.sft.file=FILE --set output=DIR"
    ))?;
    Ok(Outcome::Done)
}
