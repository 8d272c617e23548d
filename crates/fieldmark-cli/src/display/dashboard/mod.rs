//! Burn's dashboard (`burn::train::renderer::tui`) for a run: curves, progress, and keys that stop the run as Ctrl-C does.
//!
//! The renderer has its own thread. It signals "stop" by a flag, and "kill" by a panic in the next call to it. A second thread
//! watches for both, so that neither waits for the current step.

mod metrics;
mod terminal;

use std::{
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use burn::train::{
    Interrupter,
    logger::TrainingProgressLogger,
    metric::{MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry, SerializedEntry},
    renderer::{MetricState, MetricsRenderer, MetricsRendererTraining, tui::TuiMetricsRendererWrapper},
};
use fieldmark::{RunError, run::Course, train::trainer::Interrupt};
use serde::Serialize;
use signal_hook::iterator::Signals;

use crate::signals::{Listener, say_stopping, signals, stops_at_once};

pub use self::metrics::Part;
use self::{metrics::Metric, terminal::Held};

/// How often the renderer draws, and how often the flag is read.
const TICK: Duration = Duration::from_millis(100);
/// How long to wait until the renderer has the terminal.
const PATIENCE: Duration = Duration::from_secs(3);

/// The dashboard of a run. It closes when it is dropped.
pub struct Dashboard {
    screen: Arc<Mutex<Screen>>,
    wishes: Interrupter,
    is_open: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
    /// Holds the output after a panic, so that the renderer does not draw over its message.
    held: Arc<Mutex<Option<Held>>>,
}

impl Dashboard {
    /// Takes the terminal; returns `None` if there is none to take.
    ///
    /// # Errors
    /// Returns an error if the system refuses the signal handlers.
    pub fn open(stage: &'static str, course: Course, listener: &mut Listener) -> std::io::Result<Option<Self>> {
        if !terminal::is_free() {
            return Ok(None);
        }
        let wishes = Interrupter::new();
        let (is_open, held) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(None)));
        hold_after_panic(Arc::clone(&is_open), Arc::clone(&held));
        let renderer = TuiMetricsRendererWrapper::new(wishes.clone(), Some(course.round()));
        let start = Instant::now();
        while !terminal::is_taken() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        let screen = Screen {
            renderer,
            course,
            stage,
            phase: String::new(),
            is_stopping: false,
            known: BTreeSet::new(),
            held: Arc::clone(&held),
        };
        let mut dashboard = Self { screen: Arc::new(Mutex::new(screen)), wishes, is_open, watch: None, held };
        // Without it, Ctrl-C would not stop the run.
        if !dashboard.is_open() || terminal::keep_interrupt().is_err() {
            return Ok(None);
        }
        dashboard.with(|screen| screen.begin(metrics::first(stage)));
        let heard = Arc::new(AtomicBool::new(listener.interrupt().asked()));
        let mut signals = Signals::new(signals())?;
        listener.hand_over();
        let (answered, boundary) = (Arc::clone(&heard), listener.boundary());
        thread::spawn(move || {
            for signal in signals.forever() {
                if answered.swap(true, Ordering::SeqCst) && stops_at_once(signal) {
                    terminal::stop_at_once();
                }
                if !terminal::is_taken() {
                    say_stopping(boundary);
                }
            }
        });
        dashboard.watch = Some(dashboard.watch(listener.interrupt().clone(), heard, boundary));
        Ok(Some(dashboard))
    }

    /// Forwards the renderer's keys to the run until the dashboard closes.
    fn watch(&self, interrupt: Interrupt, heard: Arc<AtomicBool>, boundary: &'static str) -> JoinHandle<()> {
        let (screen, wishes, is_open) = (Arc::clone(&self.screen), self.wishes.clone(), Arc::clone(&self.is_open));
        thread::spawn(move || {
            while is_open.load(Ordering::SeqCst) {
                if wishes.should_stop() {
                    heard.store(true, Ordering::SeqCst);
                    interrupt.ask();
                }
                with(&screen, |screen| {
                    if interrupt.asked() && !screen.is_stopping {
                        screen.phase(&format!("stopping after this {boundary}"));
                        screen.is_stopping = true;
                    }
                    screen.place();
                });
                thread::sleep(TICK);
            }
        })
    }

    /// Returns true while the dashboard is on the screen. A fault in it, or a panic anywhere, closes it.
    pub fn is_open(&self) -> bool {
        terminal::is_taken()
    }

    /// Shows how far the run has come.
    pub fn at(&self, course: Course) {
        self.with(|screen| {
            screen.course = course;
            screen.place();
        });
    }

    /// Shows the current phase of the run.
    pub fn phase(&self, phase: &str) {
        self.with(|screen| screen.phase(phase));
    }

    /// Counts an event.
    pub fn count(&self, what: &str, times: usize) {
        self.with(|screen| (0..times).for_each(|_| screen.renderer.log_event_training(what.into())));
    }

    /// Plots a row.
    ///
    /// # Errors
    /// Returns an error if the row cannot be written as JSON.
    pub fn row(&self, part: Part, row: &impl Serialize, timing: &impl Serialize) -> Result<(), RunError> {
        let found = metrics::metrics(part, row, timing)?;
        self.with(|screen| found.into_iter().for_each(|metric| screen.draw(metric)));
        Ok(())
    }

    fn with(&self, work: impl FnOnce(&mut Screen)) {
        with(&self.screen, work);
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.is_open.store(false, Ordering::SeqCst);
        // The terminal is already given back, the renderer is held, and the process is about to end.
        if thread::panicking() {
            return;
        }
        lock(&self.held).take();
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        // The renderer waits for a key unless it is told to stop.
        self.wishes.stop(None);
        self.with(|screen| screen.renderer.manual_close());
    }
}

/// Holds the output after a panic. The renderer's own panic hook gives the terminal back and calls the previous hook, but the
/// renderer continues to draw.
fn hold_after_panic(is_open: Arc<AtomicBool>, held: Arc<Mutex<Option<Held>>>) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        terminal::leave_if_gone();
        if is_open.load(Ordering::SeqCst) {
            let mut held = lock(&held);
            *held = Some(terminal::hold_output());
        }
        before(panic);
    }));
}

/// Calls the renderer, which panics here if the user asked it to kill the process, and if its terminal was closed: the
/// run then goes on without it.
fn with(screen: &Mutex<Screen>, work: impl FnOnce(&mut Screen)) {
    if terminal::is_gone() {
        return;
    }
    let mut screen = lock(screen);
    if lock(&screen.held).is_none() {
        terminal::keep_cursor();
    }
    if panic::catch_unwind(AssertUnwindSafe(|| work(&mut screen))).is_err() && !terminal::is_gone() {
        terminal::stop_at_once();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The content of the dashboard.
struct Screen {
    renderer: TuiMetricsRendererWrapper,
    course: Course,
    stage: &'static str,
    phase: String,
    is_stopping: bool,
    /// Metrics that are registered with the renderer.
    known: BTreeSet<String>,
    /// Holds the output after a panic, so that the renderer does not draw over its message.
    held: Arc<Mutex<Option<Held>>>,
}

impl Screen {
    fn begin(&mut self, first: &[&str]) {
        self.entitle();
        self.renderer.start_split("train", self.course.items());
        for name in first {
            let entry = self.entry(name, "-".into());
            self.renderer.update_train(MetricState::Generic(entry));
        }
        self.place();
    }

    fn entitle(&mut self) {
        let title = format!("{}{}", self.stage, self.phase);
        self.renderer.start(self.course.rounds, self.course.round(), None, Some(&title));
    }

    /// Shows a phase; "stopping" is the last one.
    fn phase(&mut self, phase: &str) {
        if !self.is_stopping {
            self.phase = format!(", {phase}");
            self.entitle();
        }
    }

    fn place(&mut self) {
        self.renderer.update_epoch(self.course.round());
        self.renderer.update_split(self.course.item());
    }

    fn draw(&mut self, metric: Metric) {
        let entry = self.entry(&metric.name, metric.text);
        let state = MetricState::Numeric(entry, Some(NumericEntry::Value(metric.value)));
        if metric.held_out {
            self.renderer.update_valid(state);
        } else {
            self.renderer.update_train(state);
        }
    }

    /// Returns the entry of a metric and registers the metric if it is new.
    fn entry(&mut self, name: &str, text: String) -> MetricEntry {
        let id = MetricId::new(Arc::new(name.into()));
        if self.known.insert(name.into()) {
            self.renderer.register_metric(MetricDefinition {
                metric_id: id.clone(),
                name: Arc::new(name.into()),
                description: None,
                attributes: NumericAttributes::default().into(),
            });
        }
        MetricEntry::new(id, SerializedEntry::new(text.clone(), text))
    }
}
