//! `fieldmark prompt`: the wording of the prompt templates, alone or in a checkpoint's chat template.

use anyhow::bail;
use fieldmark::{
    Checkpoint,
    data::{Prompt, PromptTemplate},
    processor::{Message, ProcessOptions, Processor},
};

use super::{Outcome, say};
use crate::{arguments::PromptArgs, tell::tell};

/// Options that show the form of a closed question.
const EXAMPLES: [&str; 2] = ["Song Sparrow", "Fox Sparrow"];

/// Prints one template, or all.
///
/// # Errors
/// Returns an error if the question or an option is empty, or the checkpoint cannot be read.
pub fn run(args: &PromptArgs) -> anyhow::Result<Outcome> {
    if args.question.trim().is_empty() {
        bail!("--question is empty; write the question in quotes");
    }
    let options: Vec<String> = args.options.iter().map(|option| option.trim().to_owned()).collect();
    if options.iter().any(String::is_empty) {
        bail!("--options has an empty option; write them as \"A,B,C\"");
    }
    let checkpoint = args.model.as_ref().map(Checkpoint::at).transpose()?;
    for note in checkpoint.iter().flat_map(|checkpoint| checkpoint.notes.iter().chain(&checkpoint.contradictions)) {
        tell(format_args!("note: {note}"));
    }
    let text = |template: PromptTemplate| -> anyhow::Result<String> {
        let prompt = render(template, &args.question, &options);
        checkpoint.as_ref().map_or_else(|| Ok(plain(&prompt)), |checkpoint| chat(&prompt, &checkpoint.processor))
    };
    match args.template {
        Some(template) => say(text(template)?.trim_end())?,
        None => {
            let all = PromptTemplate::ALL.into_iter();
            let all =
                all.map(|template| Ok(format!("== {template}: {}\n{}", used(template), text(template)?.trim_end())));
            say(&all.collect::<anyhow::Result<Vec<_>>>()?.join("\n\n"))?;
        }
    }
    Ok(Outcome::Done)
}

/// Without options a closed question would read as an open one.
fn render(template: PromptTemplate, question: &str, options: &[String]) -> Prompt {
    match template {
        PromptTemplate::EvalClosed | PromptTemplate::EvalClosedNoThink if options.is_empty() => {
            template.render(question, &EXAMPLES.map(str::to_owned))
        }
        _ => template.render(question, options),
    }
}

fn plain(prompt: &Prompt) -> String {
    let system = prompt.system.as_ref().map(|text| format!("[system]\n{text}\n")).unwrap_or_default();
    format!("{system}[user]\n{}", prompt.user)
}

fn chat(prompt: &Prompt, processor: &Processor) -> anyhow::Result<String> {
    let mut messages: Vec<Message> = prompt.system.iter().map(Message::system).collect();
    messages.push(Message::user(&prompt.user));
    Ok(processor.template.render(&messages, ProcessOptions::prompt().chat)?)
}

/// Which recipe key has the template by default.
fn used(template: PromptTemplate) -> &'static str {
    match template {
        PromptTemplate::Sft => "a wording for the conversations of SFT, whose files contain the whole text",
        PromptTemplate::Rl => "the default of data.tapo.prompt",
        PromptTemplate::EvalClosed => "the default of eval.closed_prompt",
        PromptTemplate::EvalOpen => "the default of eval.open_prompt",
        PromptTemplate::RlNoThink => "for data.tapo.prompt with tapo.think = false",
        PromptTemplate::EvalClosedNoThink => "for eval.closed_prompt, if the model answers without thinking",
        PromptTemplate::EvalOpenNoThink => "for eval.open_prompt, if the model answers without thinking",
        PromptTemplate::Bare => "no instructions; the demo uses it",
    }
}

#[cfg(test)]
mod tests {
    use fieldmark::recipe::Recipe;

    use super::*;

    #[test]
    fn the_named_keys_have_these_defaults() {
        let Recipe { data, eval, .. } = Recipe::default();
        let keys = [
            ("data.tapo.prompt", data.tapo.prompt),
            ("eval.closed_prompt", eval.closed_prompt),
            ("eval.open_prompt", eval.open_prompt),
        ];
        for (key, template) in keys {
            assert!(used(template).contains(key), "{key}");
        }
    }

    #[test]
    fn closed_questions_always_have_options() {
        for template in [PromptTemplate::EvalClosed, PromptTemplate::EvalClosedNoThink] {
            let user = |options: &[&str]| {
                let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
                plain(&render(template, "Which?", &options))
            };
            assert!(user(&[]).starts_with("[user]\n<image>") && user(&[]).contains("['Song Sparrow', 'Fox Sparrow']"));
            assert!(user(&["A", "B"]).contains("['A', 'B']"));
        }
        assert!(plain(&render(PromptTemplate::Sft, "Which?", &[])).starts_with("[system]\nYou answer"));
    }
}
