//! Shows the stages of the demo, each with a bar.

use fieldmark::{
    RunError,
    run::{Observer, RunEvent},
    train::trainer::TrainEvent,
};

use super::{curves::draw_curves, progress::Progress, run::Shown};
use crate::tell::tell;

/// Shows one stage after another.
#[derive(Default)]
pub struct StageDisplay {
    stage: String,
    progress: Option<Progress>,
    reward: f64,
    /// The stage whose curves are drawn when it has ended.
    shown: Option<Shown>,
}

impl StageDisplay {
    fn step(&mut self, done: usize, total: usize, message: String) {
        let stage = &self.stage;
        self.progress.get_or_insert_with(|| Progress::new(stage, total)).step(done, message);
    }

    fn close(&mut self) {
        self.progress.take().iter().for_each(Progress::finish);
    }
}

impl Observer for StageDisplay {
    fn event(&mut self, event: RunEvent<'_>) -> Result<(), RunError> {
        match event {
            RunEvent::Note(text) => tell(format_args!("{text}")),
            RunEvent::Stage(name) => {
                self.close();
                self.stage = name.into();
            }
            RunEvent::Begin(course) => {
                self.progress = Some(Progress::new(&self.stage, course.steps).from(course.done));
            }
            RunEvent::Train(TrainEvent::SftUpdate(row, _)) => {
                self.shown = Some(Shown::Sft);
                self.step(row.step, 0, format!("loss {:.3}", row.loss));
            }
            RunEvent::Train(TrainEvent::Finding(found)) => match &self.progress {
                Some(progress) => progress.note(&format!("note: {found}")),
                None => tell(format_args!("note: {found}")),
            },
            RunEvent::Train(TrainEvent::Drawn(row, _)) => {
                self.shown = Some(Shown::Tapo(row.rewards.keys().cloned().collect()));
                self.reward = row.reward;
            }
            RunEvent::Train(TrainEvent::TapoUpdate(row, _)) => {
                let message = format!("reward {:.3}, ratio {:.3}", self.reward, row.parts.ratio);
                self.step(row.rollout_step, 0, message);
            }
            RunEvent::Answered { done, total } | RunEvent::Written { done, total } => {
                self.step(done, total, String::new());
                if done == total {
                    self.close();
                }
            }
            RunEvent::Trained(folder) => {
                self.close();
                self.shown.take().iter().for_each(|shown| draw_curves(shown, folder));
            }
            _ => {}
        }
        Ok(())
    }
}
