//! The runner against the same questions asked one by one by hand, and against bad photographs.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use fieldmark_data::{Aliases, EvalRow, EvalSet, EvalSetName, ImageRoots, PromptTemplate, Split};
use fieldmark_eval::{
    Answered, EvalError, EvalRun, Kept, OptionOrder, Question, QuestionSet, RunName, closed_questions, open_questions,
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

    let found = read_predictions(&path).unwrap().rows;
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
    let mut sets = [folder.path(), &other].map(|images| QuestionSet::new(questions.clone(), ImageRoots::new(images)));
    sets[1].questions.iter_mut().for_each(|question| question.file = Some("other/fruit_seen.jsonl".into()));
    let predict = |sets: &[QuestionSet]| {
        let path = folder.path().join("predictions.jsonl");
        let mut progress = Vec::new();
        run.predict(sets, &path, |done, total| progress.push((done, total))).unwrap();
        (read_predictions(&path).unwrap().rows, progress)
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
fn bad_questions_are_named_and_cost_their_row_alone() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let model = model(&processor, 256, &device);
    let mut set = set(folder.path());
    fs::write(folder.path().join("text.png"), "no image").unwrap();
    let images = ImageRoots::new(folder.path());
    let run = run(&model, &processor, &device);
    let out = folder.path().join("predictions.jsonl");
    let good = run.answer(&open_questions(&set, PromptTemplate::Rl)[..2], &images).unwrap();
    let mut refused = |image: &str, question: &str| {
        set.rows[2].image_path = image.into();
        set.rows[2].question = question.into();
        let mut questions = open_questions(&set, PromptTemplate::Rl);
        let error = run.answer(&questions[2..], &images).unwrap_err();
        assert!(error.to_string().starts_with("fruit seen, row 3: "), "{error}");
        if !matches!(error, EvalError::ImageNotFound { .. }) {
            // Between two good ones of the same batch, and as the first.
            questions.swap(1, 2);
            for order in [[0, 1, 2], [1, 0, 2]] {
                let asked = order.map(|place| questions[place].clone());
                let sets = [QuestionSet::new(asked.to_vec(), images.clone())];
                let answered = run.predict(&sets, &out, |_, _| ()).unwrap();
                assert_eq!(answered, Answered { done: 3, total: 3, failed: 1 });
                let rows = read_predictions(&out).unwrap().rows;
                assert_eq!(rows.iter().map(|row| row.question.clone()).collect::<Vec<_>>(), asked);
                let (bad, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.error.is_some());
                assert_eq!(others, good);
                assert_eq!((bad[0].error.clone(), bad[0].output.as_str()), (Some(error.to_string()), ""));
                assert_eq!((bad[0].output_tokens, bad[0].finished), (0, false));
            }
        }
        error
    };
    assert!(matches!(refused("c.png", "?"), EvalError::ImageNotFound { image, .. } if image == "c.png"));
    let error = refused("text.png", "?");
    assert!(matches!(error, EvalError::Photo { .. }) && error.to_string().contains("text.png: "), "{error}");
    let error = refused("a.png", "<image><image>?");
    assert!(matches!(error, EvalError::Processor(ProcessorError::Placeholders { placeholders: 2, images: 1, .. })));
    let error = refused("a.png", &"many words ".repeat(200));
    assert!(matches!(error, EvalError::Generate(GenerateError::Context { context: 256, .. })), "{error}");
}

#[test]
fn a_model_without_finite_logits_is_an_error_and_not_a_row() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let broken = model(&processor, 4096, &device).map(&mut NotANumber);
    let sets = [QuestionSet::new(questions(&set(folder.path())), ImageRoots::new(folder.path()))];
    let path = folder.path().join("predictions.jsonl");
    let error = run(&broken, &processor, &device).predict(&sets, &path, |_, _| ()).unwrap_err();
    assert!(matches!(error, EvalError::Generate(GenerateError::NotFinite { .. })), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"");
}

struct NotANumber;

impl ModuleMapper for NotANumber {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor * f32::NAN)
    }
}

#[test]
fn an_evaluation_goes_on_wherever_it_was_stopped() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let processor = processor();
    let model = model(&processor, 4096, &device);
    let mut set = set(folder.path());
    fs::copy(folder.path().join("b.png"), folder.path().join("c.png")).unwrap();
    set.rows[2].image_path = "c.png".into();
    let images = ImageRoots::new(folder.path());
    // Two sets, so that a batch ends before a set does and after.
    let sets = [questions(&set), questions(&set)].map(|asked| QuestionSet::new(asked, images.clone()));
    let run = run(&model, &processor, &device);
    let (whole, path) = (folder.path().join("whole.jsonl"), folder.path().join("predictions.jsonl"));
    run.predict(&sets, &whole, |_, _| ()).unwrap();
    let whole = fs::read(&whole).unwrap();
    let go_on = |stop: usize| {
        let kept = Kept::read(&path).unwrap();
        kept.check(&path, &sets, &run.settings()).unwrap();
        let mut seen = Vec::new();
        let answered = run.go_on(&sets, &path, kept, |answered| {
            seen.push(answered.done);
            if answered.done >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (answered.unwrap(), seen)
    };
    // Stopped between two batches.
    let (answered, seen) = go_on(5);
    assert_eq!((answered.done, answered.is_finished(), seen), (5, false, vec![0, 5]));
    assert_eq!(Kept::read(&path).unwrap().rows.len(), 5);
    // Killed at any byte: rows of a batch that is not whole are asked again.
    for (length, kept) in
        [(0, 0), (10, 0), (whole.len() / 3, 5), (whole.len() / 2, 12), (whole.len() - 1, 22), (whole.len(), 24)]
    {
        fs::write(&path, &whole[..length]).unwrap();
        let (answered, seen) = go_on(usize::MAX);
        assert_eq!((answered, seen[0]), (Answered { done: 24, total: 24, failed: 0 }, kept));
        assert!(fs::read(&path).unwrap() == whole, "{length}");
    }
    // A photograph that was damaged and is mended is asked about again, with the others of its batch.
    let photo = fs::read(folder.path().join("c.png")).unwrap();
    fs::write(folder.path().join("c.png"), "no image").unwrap();
    fs::remove_file(&path).unwrap();
    let (answered, _) = go_on(usize::MAX);
    assert_eq!(answered, Answered { done: 24, total: 24, failed: 8 });
    fs::write(folder.path().join("c.png"), photo).unwrap();
    let (answered, _) = go_on(usize::MAX);
    assert_eq!(answered.failed, 0);
    assert!(fs::read(&path).unwrap() == whole);
}
