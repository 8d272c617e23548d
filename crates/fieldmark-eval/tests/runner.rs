//! The runner against the same questions asked one by one by hand, and against bad photographs.

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use fieldmark_data::{Aliases, EvalRow, EvalSet, EvalSetName, ImageRoots, PromptTemplate, Split};
use fieldmark_eval::{
    EvalError, EvalRun, OptionOrder, Question, QuestionSet, RunName, closed_questions, open_questions,
    read_predictions, rotations,
};
use fieldmark_generate::{FinishReason, GenerateError, GenerationConfig, Generator, Request, Sampling};
use fieldmark_model::{Qwen25Vl, Qwen25VlConfig, TextConfig, VisionConfig};
use fieldmark_processor::{
    ChatTemplate, DecodeOptions, ImageProcessor, ImageProcessorConfig, Message, Photo, PixelLimits, ProcessOptions,
    Processor, ProcessorError, SpecialTokens, train_tokenizer,
};
use fieldmark_stream::RandomStream;
use image::{Rgb, RgbImage};

fn processor() -> Processor {
    let texts = ["<think>a lime, not a lemon</think> <answer>Lime</answer>", "Answer the question: Which fruit?"];
    let limits = PixelLimits { min_pixels: 56 * 56, max_pixels: 84 * 84 };
    let images = ImageProcessorConfig { limits, ..ImageProcessorConfig::default() };
    let tokenizer = train_tokenizer(texts, &[], 300).unwrap();
    Processor::new(tokenizer, ImageProcessor::new(images), ChatTemplate::qwen2_5_vl().unwrap())
}

fn model(processor: &Processor, context: usize, device: &Device) -> Qwen25Vl {
    let text = TextConfig::new(processor.tokenizer.vocab_size(), 32, 48, 2, 4, 2, [1, 1, 2])
        .with_max_position_embeddings(context);
    let vision = VisionConfig::new(2, 32, 48, 4, 32, 56, vec![1]);
    device.seed(7);
    let model = Qwen25VlConfig::new(text, vision, processor.tokenizer.vision_tokens(), false).init(device);
    model.map(&mut LargeBlocks { inside: false })
}

/// Enlarges the blocks: Burn initialises them so small that a new model looks at nothing but the last token.
struct LargeBlocks {
    inside: bool,
}

impl ModuleMapper for LargeBlocks {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.inside |= name == "embed_tokens";
    }

    fn exit_module(&mut self, name: &str, _container_type: &str) {
        self.inside &= name != "embed_tokens";
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.inside || D != 2 { param } else { param.map(|tensor| tensor * 4.0) }
    }
}

/// Three rows, the last two about one photograph.
fn set(folder: &Path) -> EvalSet {
    for (name, shade, side) in [("a.png", 40, 60), ("b.png", 200, 90)] {
        RgbImage::from_fn(side, 70, |x, y| Rgb([(x * 2) as u8, (y * 3) as u8, shade])).save(folder.join(name)).unwrap();
    }
    let row = |row, image: &str, truth: &str| EvalRow {
        row,
        image_path: image.into(),
        question: format!("Which fruit is number {row}?"),
        options: ["Lime", "Lemon", "Plum"].map(str::to_owned).into(),
        ground_truth: truth.into(),
        super_category: "fruit".into(),
    };
    EvalSet {
        name: EvalSetName { dataset: "fruit".into(), split: Split::Seen, super_category: "fruit".into() },
        rows: vec![row(1, "a.png", "Lime"), row(2, "b.png", "Lemon"), row(3, "b.png", "Plum")],
        aliases: Aliases::default(),
    }
}

fn questions(set: &EvalSet) -> Vec<Question> {
    let orders = rotations(1, 2).chain([OptionOrder::Released]);
    let closed = orders.flat_map(|order| closed_questions(set, order, PromptTemplate::Sft).unwrap());
    closed.chain(open_questions(set, PromptTemplate::EvalOpen)).collect()
}

fn run<'a>(model: &'a Qwen25Vl, processor: &'a Processor, device: &'a Device) -> EvalRun<'a> {
    let generation = GenerationConfig { max_batch: 5, ..GenerationConfig::greedy(6, vec![processor.tokenizer.eos()]) };
    let name = RunName { model: "random".into(), device: "flex".into() };
    EvalRun { model, processor, decode: DecodeOptions::default(), generation, seed: 0, name, device }
}

#[test]
fn every_question_gets_the_answer_it_gets_alone() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let model = model(&processor, 4096, &device);
    let questions = questions(&set(folder.path()));
    let run = run(&model, &processor, &device);
    let path = folder.path().join("predictions.jsonl");
    let mut progress = Vec::new();
    let asked = QuestionSet::new(questions.clone(), ImageRoots::new(folder.path()));
    run.predict(&[asked], &path, |done, total| progress.push((done, total))).unwrap();
    assert_eq!(progress, [(0, 12), (5, 12), (10, 12), (12, 12)]);

    let found = read_predictions(&path).unwrap();
    assert_eq!(found.iter().map(|row| row.question.clone()).collect::<Vec<_>>(), questions);
    let generator = Generator::new(&model, run.generation.clone(), processor.tokenizer.pad(), &device).unwrap();
    for row in &found {
        let question = &row.question;
        let photo = Photo::open(folder.path().join(&question.image_path), &DecodeOptions::default()).unwrap();
        let mut messages = Vec::new();
        if let Some(system) = &question.system {
            messages.push(Message::system(system));
        }
        messages.push(Message::user(&question.prompt));
        let prompt = processor.process("alone", &messages, &[photo], ProcessOptions::prompt()).unwrap();
        let alone = Request { prompt, streams: vec![RandomStream::new(0, &[])] };
        let response = &generator.generate(&[alone]).unwrap()[0][0];
        let text = processor.tokenizer.decode(response.text_ids(), SpecialTokens::Skip).unwrap();
        assert_eq!(row.output, text);
        assert_eq!(row.output_tokens, response.ids.len());
        assert_eq!(row.finished, response.finish == FinishReason::Stop);
        assert_eq!(row.settings, run.settings());
    }
    let different: std::collections::BTreeSet<&str> = found.iter().map(|row| row.output.as_str()).collect();
    assert!(different.len() > 2, "{different:?}");
    let settings = run.settings();
    assert_eq!((settings.min_pixels, settings.max_pixels), (56 * 56, 84 * 84));
    assert_eq!((settings.dtype.as_str(), settings.sampling.temperature), ("f32", 0.0));
}

#[test]
fn every_set_is_asked_about_its_own_photographs() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let model = model(&processor, 4096, &device);
    let run = run(&model, &processor, &device);
    let questions = questions(&set(folder.path()));
    // The same names in another folder, for the other photograph each.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    for (from, to) in [("a.png", "b.png"), ("b.png", "a.png")] {
        fs::copy(folder.path().join(from), other.join(to)).unwrap();
    }
    let sets = [folder.path(), &other].map(|images| QuestionSet::new(questions.clone(), ImageRoots::new(images)));
    let predict = |sets: &[QuestionSet]| {
        let path = folder.path().join("predictions.jsonl");
        let mut progress = Vec::new();
        run.predict(sets, &path, |done, total| progress.push((done, total))).unwrap();
        (read_predictions(&path).unwrap(), progress)
    };
    let (both, progress) = predict(&sets);
    assert_eq!(progress, [(0, 24), (5, 24), (10, 24), (12, 24), (17, 24), (22, 24), (24, 24)]);
    let (first, second) = (predict(&sets[..1]).0, predict(&sets[1..]).0);
    assert_eq!(both, [first.clone(), second.clone()].concat());
    assert!(first.iter().zip(&second).any(|(one, other)| one.output != other.output));

    fs::remove_file(other.join("b.png")).unwrap();
    assert!(sets[0].check_images().is_ok());
    let error = sets[1].check_images().unwrap_err();
    assert!(matches!(error, EvalError::ImageNotFound { image, folder, .. } if image == "b.png" && folder == other));
}

#[test]
fn sampled_answers_depend_on_question_and_seed_alone() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let model = model(&processor, 4096, &device);
    let mut questions = questions(&set(folder.path()));
    let images = ImageRoots::new(folder.path());
    let mut run = run(&model, &processor, &device);
    run.generation.sampling = Sampling::nucleus(1.0, 1.0);
    let outputs = |run: &EvalRun<'_>, questions: &[Question]| -> Vec<String> {
        run.answer(questions, &images).unwrap().into_iter().map(|row| row.output).collect()
    };
    let first = outputs(&run, &questions);
    questions.reverse();
    let reversed = outputs(&run, &questions[..7]);
    assert!(reversed.iter().rev().eq(&first[5..]), "{reversed:?} {first:?}");
    run.seed = 1;
    assert_ne!(outputs(&run, &questions[..7]), reversed);
}

#[test]
fn bad_questions_are_named_and_leave_nothing() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let model = model(&processor, 150, &device);
    let mut set = set(folder.path());
    fs::write(folder.path().join("text.png"), "no image").unwrap();
    let images = ImageRoots::new(folder.path());
    let run = run(&model, &processor, &device);
    let out = folder.path().join("new/predictions.jsonl");
    let mut refused = |image: &str, question: &str| {
        set.rows[2].image_path = image.into();
        set.rows[2].question = question.into();
        let questions = open_questions(&set, PromptTemplate::Rl).split_off(2);
        let error = run.predict(&[QuestionSet::new(questions, images.clone())], &out, |_, _| ()).unwrap_err();
        assert!(error.to_string().starts_with("fruit seen, row 3: "), "{error}");
        assert_eq!(fs::read_dir(out.parent().unwrap()).map_or(0, Iterator::count), 0);
        error
    };
    assert!(matches!(refused("c.png", "?"), EvalError::ImageNotFound { image, .. } if image == "c.png"));
    let error = refused("text.png", "?");
    assert!(matches!(error, EvalError::Photo { .. }) && error.to_string().contains("text.png: "), "{error}");
    let error = refused("a.png", "<image><image>?");
    assert!(matches!(error, EvalError::Processor(ProcessorError::Placeholders { placeholders: 2, images: 1, .. })));
    let error = refused("a.png", &"many words ".repeat(60));
    assert!(matches!(error, EvalError::Generate(GenerateError::Context { context: 150, .. })), "{error}");
}
