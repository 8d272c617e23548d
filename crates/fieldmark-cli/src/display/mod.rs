//! How a run is shown: Burn's dashboard on a terminal, otherwise a line per step; at the end its curve is drawn.

mod curve;
mod curves;
#[cfg_attr(not(all(unix, feature = "tui")), path = "no_dashboard.rs")]
mod dashboard;
mod progress;
mod pulse;
mod run;
// Only the dashboard uses all of it.
#[cfg_attr(not(all(unix, feature = "tui")), allow(dead_code))]
mod screen;
mod stages;

pub use self::{
    progress::Progress,
    run::{RunDisplay, Shown},
    stages::StageDisplay,
};
