//! Reasoned answers in the paper's four parts (Fine-R1, arXiv 2602.07605, table 5): analysis, options, comparison, prediction.

use crate::species::World;

/// A reasoned answer about a species.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// What is seen, in words.
    pub analysis: String,
    /// The candidates, in the order of the alphabet.
    pub options: String,
    /// The marks in which the candidates differ.
    pub comparison: String,
    /// The name.
    pub prediction: String,
}

impl Chain {
    /// The chain that leads from `analysis` to a species. Its candidates are the species and its look-alike.
    pub fn new(world: &World, index: usize, analysis: String) -> Self {
        let this = &world.species()[index];
        let mut both = [this, &world.species()[world.look_alike(index)]];
        both.sort_by(|one, other| one.name.cmp(&other.name));
        let parts = both[0].marks.differences(&both[1].marks);
        let has = both.map(|species| format!("{} has {}", species.name, species.marks.words(species.category, &parts)));
        Self {
            analysis,
            options: both.map(|species| species.name.clone()).join(", "),
            comparison: has.join(", "),
            prediction: this.name.clone(),
        }
    }

    /// The whole response.
    pub fn response(&self) -> String {
        let Self { analysis, options, comparison, prediction } = self;
        format!(
            "{}\noptions: {options}\ncomparison: {comparison}\nprediction: {prediction}</think>{}",
            opening(analysis),
            answer(prediction)
        )
    }
}

/// A response that only says what is seen.
pub fn analysis_alone(analysis: &str) -> String {
    format!("{}</think>", opening(analysis))
}

fn opening(analysis: &str) -> String {
    format!("<think>analysis: {analysis}")
}

/// An answer without reasoning.
pub fn answer(name: &str) -> String {
    format!("<answer>{name}</answer>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::species::WorldConfig;

    #[test]
    fn a_chain_names_both_look_alikes_and_what_tells_them_apart() {
        let world = World::new(WorldConfig::default()).unwrap();
        let (one, other) = (&world.species()[0], &world.species()[1]);
        let chain = Chain::new(&world, 1, "red head".into());
        let part = one.marks.differences(&other.marks);
        let first = if one.name < other.name { one } else { other };
        assert!(chain.comparison.starts_with(&format!(
            "{} has {}",
            first.name,
            first.marks.words(first.category, &part)
        )));
        assert!(
            chain.options == format!("{}, {}", one.name, other.name)
                || chain.options == format!("{}, {}", other.name, one.name)
        );
        let text = chain.response();
        assert!(text.starts_with("<think>analysis: red head\noptions: "));
        assert!(text.ends_with(&format!("prediction: {0}</think><answer>{0}</answer>", other.name)), "{text}");
    }
}
