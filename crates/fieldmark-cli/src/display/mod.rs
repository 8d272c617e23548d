//! How a run is shown: Burn's dashboard on a terminal, or progress with a line a step; its curve is drawn at the end.

mod curve;
#[cfg_attr(not(all(unix, feature = "tui")), path = "no_dashboard.rs")]
mod dashboard;
mod progress;
mod run;
// Of these it is the dashboard that wants to know most.
#[cfg_attr(not(all(unix, feature = "tui")), allow(dead_code))]
mod screen;
mod stages;

pub use self::{
    progress::Progress,
    run::{RunDisplay, Shown},
    stages::StageDisplay,
};
