//! What a model knows of a world before fine-tuning, as lessons: a question, an answer, and for some a picture.
//!
//! A pre-trained model knows more than it deploys: it has read about every species, unseen ones too; it can say what is in
//! a picture; it has seen captions of pictures of all species, of which some are wrong; and it has read reasoned answers in
//! words. Some questions list names, as questions of the closed world do. No lesson reasons from a picture to a name: that is
//! what fine-tuning adds.

use fieldmark_stream::{RandomStream, StreamKey};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::{
    category::{Category, PARTS},
    marks::{Marks, some_parts},
    reasoning::{Chain, analysis_alone},
    scene,
    species::World,
};

/// How many lessons there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lessons {
    /// Pictures of animals with any marks, described without a name.
    pub described: usize,
    /// Captions of pictures of each species: only a name, which is wrong in one of five.
    pub captions: usize,
    /// Reasoned answers in words about each species, to a request to think of one.
    pub thoughts: usize,
    /// Reasoned answers in words to a description of each species.
    pub riddles: usize,
    /// Descriptions of each species in words.
    pub descriptions: usize,
}

impl Default for Lessons {
    fn default() -> Self {
        Self { described: 72_000, captions: 12, thoughts: 240, riddles: 120, descriptions: 30 }
    }
}

/// A question and its answer, with a picture if it is about one.
#[derive(Debug, Clone)]
pub struct Lesson {
    /// What the picture shows.
    pub picture: Option<Subject>,
    /// The question, without a placeholder for the picture.
    pub question: String,
    /// The answer.
    pub answer: String,
}

/// What a picture shows, and the stream that draws it.
#[derive(Debug, Clone)]
pub struct Subject {
    category: Category,
    marks: Marks,
    key: StreamKey,
}

impl Subject {
    /// Draws the picture.
    pub fn draw(&self, side: u32) -> RgbImage {
        scene::draw(self.category, &self.marks, side, &mut self.key.stream())
    }
}

/// Questions about a picture that are answered with an analysis. `{}` is the category.
const LOOK: [&str; 5] = [
    "Analyse the {}.",
    "Which marks does this {} have?",
    "Look at this {}. What do you see?",
    "Describe what you see and think.",
    "What is in the picture?",
];
/// One of so many captions is wrong.
const WRONG_CAPTIONS: usize = 5;
/// One of so many questions that ask for a description or for reasoning lists names.
const WITH_NAMES: usize = 4;
/// Names in such a list.
const NAMES: usize = 4;

/// All lessons of a world. Each is made from its number alone.
#[derive(Debug, Clone)]
pub struct Knowledge<'a> {
    world: &'a World,
    lessons: Lessons,
    key: StreamKey,
}

impl<'a> Knowledge<'a> {
    /// The lessons that `seed` decides.
    pub fn new(world: &'a World, lessons: Lessons, seed: u64) -> Self {
        Self { world, lessons, key: StreamKey::new(seed).word("knowledge") }
    }

    /// Number of lessons.
    pub fn len(&self) -> usize {
        self.lessons.described + self.world.species().len() * self.each()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lessons about each species.
    fn each(&self) -> usize {
        let Lessons { captions, thoughts, riddles, descriptions, .. } = self.lessons;
        captions + thoughts + riddles + descriptions
    }

    /// The lesson with a number below [`Self::len`].
    pub fn lesson(&self, number: usize) -> Lesson {
        let key = self.key.number(number as u64);
        let stream = &mut key.word("words").stream();
        let picture = |category, marks| Some(Subject { category, marks, key: key.word("picture") });
        let Some(about) = number.checked_sub(self.lessons.described) else {
            let category = Category::ALL[number % Category::ALL.len()];
            let marks = Marks::random(self.world.colours(), stream);
            let (question, answer) = described(category, &marks, stream);
            let question = self.with_names(question, category, None, stream);
            return Lesson { picture: picture(category, marks), question, answer };
        };
        let (index, place) = (about / self.each(), about % self.each());
        let Lessons { captions, thoughts, riddles, .. } = self.lessons;
        let species = &self.world.species()[index];
        let word = species.category.word();
        if place < captions {
            let question = if place % 2 == 0 { format!("Name the {word}.") } else { "A photograph of".into() };
            let answer = self.caption(index, stream);
            return Lesson { picture: picture(species.category, species.marks), question, answer };
        }
        let (question, answer) = if place < captions + thoughts {
            let shown = if stream.below(3) == 0 { self.misread(index, stream) } else { species.marks };
            let answer = self.chain(index, &shown, &any_parts(stream));
            let question = format!("Think of a {word} and name it.");
            (self.with_names(question, species.category, Some(index), stream), answer)
        } else if place < captions + thoughts + riddles {
            let told = if place % 2 == 0 { self.misread(index, stream) } else { species.marks };
            let told = told.all_words(species.category);
            let question = format!("A {word} has {told}. Which {word} is it?");
            let question = self.with_names(question, species.category, Some(index), stream);
            (question, self.chain(index, &species.marks, &[0, 1, 2, 3, 4]))
        } else {
            (format!("What does {} look like?", species.name), species.marks.all_words(species.category))
        };
        Lesson { picture: None, question, answer }
    }

    /// Every kind of text in the lessons, for a tokenizer: those without pictures, and a share of the others.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        let words = self.lessons.described..self.len();
        (0..self.lessons.described.min(3000)).chain(words).flat_map(|number| {
            let lesson = self.lesson(number);
            [lesson.question, lesson.answer]
        })
    }

    fn chain(&self, index: usize, marks: &Marks, parts: &[usize]) -> String {
        let analysis = marks.words(self.world.species()[index].category, parts);
        Chain::new(self.world, index, analysis).response()
    }

    /// Adds a list of names to one question in four: of the species that it is about and its look-alike, if there is one, and
    /// of others of the category.
    fn with_names(
        &self,
        question: String,
        category: Category,
        about: Option<usize>,
        stream: &mut RandomStream,
    ) -> String {
        if stream.below(WITH_NAMES) != 0 {
            return question;
        }
        let species = self.world.species();
        let all: Vec<usize> = (0..species.len()).filter(|&index| species[index].category == category).collect();
        let mut listed: Vec<usize> = about.iter().flat_map(|&index| [index, self.world.look_alike(index)]).collect();
        while listed.len() < NAMES {
            let other = all[stream.below(all.len())];
            if !listed.contains(&other) {
                listed.push(other);
            }
        }
        stream.shuffle(&mut listed);
        let names: Vec<String> = listed.iter().map(|&index| format!("'{}'", species[index].name)).collect();
        format!("{question} Choose one of [{}].", names.join(", "))
    }

    /// The name in a caption. A wrong one is the look-alike's or that of any species, equally often.
    fn caption(&self, index: usize, stream: &mut RandomStream) -> String {
        let named = match stream.below(2 * WRONG_CAPTIONS) {
            0 => self.world.look_alike(index),
            1 => stream.below(self.world.species().len()),
            _ => index,
        };
        self.world.species()[named].name.clone()
    }

    /// The marks of a species with one of them misread, such that no other species is as near, look-alikes aside.
    fn misread(&self, index: usize, stream: &mut RandomStream) -> Marks {
        let species = &self.world.species()[index];
        let other = self.world.look_alike(index);
        let shared: Vec<usize> = {
            let apart = species.marks.differences(&self.world.species()[other].marks);
            (0..PARTS).filter(|part| !apart.contains(part)).collect()
        };
        for _ in 0..20 {
            let part = shared[stream.below(shared.len())];
            let marks = species.marks.with_other(part, self.world.colours(), stream);
            let mut rest = self
                .world
                .species()
                .iter()
                .enumerate()
                .filter(|&(at, rival)| at != index && at != other && rival.category == species.category);
            if rest.all(|(_, rival)| rival.marks.differences(&marks).len() > 2) {
                return marks;
            }
        }
        species.marks
    }
}

/// A question about a picture and its answer, which names all marks or some of them.
fn described(category: Category, marks: &Marks, stream: &mut RandomStream) -> (String, String) {
    if stream.below(5) == 0 {
        return (format!("Describe the {}.", category.word()), marks.all_words(category));
    }
    let question = LOOK[stream.below(LOOK.len())].replace("{}", category.word());
    (question, analysis_alone(&marks.words(category, &any_parts(stream))))
}

/// All parts, or in one of three cases any number of them.
fn any_parts(stream: &mut RandomStream) -> Vec<usize> {
    let count = if stream.below(3) == 0 { 1 + stream.below(PARTS) } else { PARTS };
    some_parts(count, stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::species::WorldConfig;

    fn world() -> World {
        World::new(WorldConfig::default()).unwrap()
    }

    #[test]
    fn no_lesson_reasons_from_a_picture_to_a_name() {
        let world = world();
        let knowledge = Knowledge::new(&world, Lessons { described: 600, ..Lessons::default() }, 1);
        let mut kinds = [0; 3];
        for number in 0..knowledge.len() {
            let lesson = knowledge.lesson(number);
            let reasons = lesson.answer.contains("<answer>");
            let names = world.species().iter().any(|species| lesson.answer.contains(&species.name));
            match (&lesson.picture, reasons) {
                (Some(_), true) => panic!("{}", lesson.answer),
                (Some(_), false) => kinds[usize::from(names)] += 1,
                (None, _) => kinds[2] += 1,
            }
        }
        assert!(kinds.iter().all(|&count| count > 500), "{kinds:?}");
    }

    #[test]
    fn one_caption_in_five_is_wrong() {
        let world = world();
        let lessons = Lessons { described: 0, captions: 100, thoughts: 0, riddles: 0, descriptions: 0 };
        let knowledge = Knowledge::new(&world, lessons, 3);
        let right = |number: &usize| knowledge.lesson(*number).answer == world.species()[number / 100].name;
        let share = (0..knowledge.len()).filter(right).count() as f64 / knowledge.len() as f64;
        assert!((0.78..0.83).contains(&share), "{share}");
    }

    #[test]
    fn every_chain_in_words_leads_to_its_species_with_at_most_one_mark_misread() {
        let world = world();
        let lessons = Lessons { described: 0, captions: 0, thoughts: 40, riddles: 20, descriptions: 0 };
        let knowledge = Knowledge::new(&world, lessons, 5);
        for number in 0..knowledge.len() {
            let answer = knowledge.lesson(number).answer;
            let index = number / 60;
            let species = &world.species()[index];
            assert!(answer.ends_with(&format!("<answer>{}</answer>", species.name)));
            let analysis = answer.lines().next().unwrap().strip_prefix("<think>analysis: ").unwrap();
            let wrong = analysis.split(", ").filter(|mark| !species.marks.all_words(species.category).contains(mark));
            assert!(wrong.count() <= 1, "{answer}");
        }
    }

    #[test]
    fn one_question_in_four_lists_four_names_with_the_right_one_among_them() {
        let world = world();
        let lessons = Lessons { described: 2000, captions: 2, thoughts: 20, riddles: 20, descriptions: 2 };
        let knowledge = Knowledge::new(&world, lessons, 7);
        let mut listed = 0;
        for number in 0..knowledge.len() {
            let lesson = knowledge.lesson(number);
            let Some((_, list)) = lesson.question.split_once(" Choose one of [") else { continue };
            let names: Vec<&str> =
                list.trim_end_matches("].").split(", ").map(|name| name.trim_matches('\'')).collect();
            let known = |name: &&str| world.species().iter().any(|species| species.name == **name);
            assert!(names.len() == 4 && names.iter().all(known), "{list}");
            assert!((1..4).all(|at| !names[..at].contains(&names[at])), "{list}");
            let answer = lesson.answer.split_once("<answer>").map(|(_, answer)| answer.trim_end_matches("</answer>"));
            assert_eq!(answer.is_some(), number >= 2000);
            assert!(answer.is_none_or(|answer| names.contains(&answer)), "{list}: {}", lesson.answer);
            listed += 1;
        }
        let share = f64::from(listed) / (2000 + 72 * 40) as f64;
        assert!((0.22..0.28).contains(&share), "{share}");
    }

    #[test]
    fn a_number_always_makes_the_same_lesson() {
        let world = world();
        let knowledge = Knowledge::new(&world, Lessons::default(), 1);
        for number in [0, 71_999, 72_000, knowledge.len() - 1] {
            let (one, other) = (knowledge.lesson(number), knowledge.lesson(number));
            assert_eq!((&one.question, &one.answer), (&other.question, &other.answer));
            let draw = |lesson: &Lesson| lesson.picture.as_ref().map(|subject| subject.draw(56));
            assert_eq!(draw(&one), draw(&other));
        }
    }
}
