//! Burn's dashboard (`burn::train::renderer::tui`) over a run: curves, progress, and keys that stop it as Ctrl-C does.
//!
//! The renderer lives in a thread of its own. It tells of a wish to stop by a flag, and of one to kill by a panic in whoever
//! speaks to it next; a second thread looks after both, so that neither waits for the step that is being made.

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

use crate::signals::{Listener, SIGNALS, say_stopping};

pub use self::metrics::Part;
use self::{metrics::Metric, terminal::Held};

/// How often the renderer draws, and is asked what its user wants.
const TICK: Duration = Duration::from_millis(100);
/// How long the renderer may take to get hold of the terminal.
const PATIENCE: Duration = Duration::from_secs(3);

/// The dashboard of a run. It closes when it is dropped.
pub struct Dashboard {
    screen: Arc<Mutex<Screen>>,
    wishes: Interrupter,
    is_open: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
    /// What a panic holds, so that what is said of it is not drawn over.
    held: Arc<Mutex<Option<Held>>>,
}

impl Dashboard {
    /// Takes the terminal, if there is one to take.
    ///
    /// # Errors
    /// If the system does not let signals be handled.
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
        // Otherwise nobody could stop the run by the keys that they know.
        if !dashboard.is_open() || terminal::keep_interrupt().is_err() {
            return Ok(None);
        }
        dashboard.with(|screen| screen.begin(metrics::first(stage)));
        let heard = Arc::new(AtomicBool::new(listener.interrupt().asked()));
        let mut signals = Signals::new(SIGNALS)?;
        listener.hand_over();
        let (answered, boundary) = (Arc::clone(&heard), listener.boundary());
        thread::spawn(move || {
            for _ in signals.forever() {
                if answered.swap(true, Ordering::SeqCst) {
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

    /// Brings the wishes of the renderer's user to the run until the dashboard closes.
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

    /// Whether it is still there: a fault in it, or a panic anywhere, closes it.
    pub fn is_open(&self) -> bool {
        terminal::is_taken()
    }

    /// So far the run has come.
    pub fn at(&self, course: Course) {
        self.with(|screen| {
            screen.course = course;
            screen.place();
        });
    }

    /// What the run is in the middle of.
    pub fn phase(&self, phase: &str) {
        self.with(|screen| screen.phase(phase));
    }

    /// Counts something that happened.
    pub fn count(&self, what: &str, times: usize) {
        self.with(|screen| (0..times).for_each(|_| screen.renderer.log_event_training(what.into())));
    }

    /// Draws a row.
    ///
    /// # Errors
    /// If it is not JSON.
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
        // The terminal is given back, the renderer held, and the process about to end.
        if thread::panicking() {
            return;
        }
        lock(&self.held).take();
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        // Without a wish to stop the renderer waits for one.
        self.wishes.stop(None);
        self.with(|screen| screen.renderer.manual_close());
    }
}

/// The renderer's panic hook gives the terminal back and calls the one before it, while the renderer goes on drawing.
fn hold_after_panic(is_open: Arc<AtomicBool>, held: Arc<Mutex<Option<Held>>>) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if is_open.load(Ordering::SeqCst) {
            let mut held = lock(&held);
            *held = Some(terminal::hold_output());
        }
        before(panic);
    }));
}

/// Speaks to the renderer, which panics here if its user has asked it to kill the process.
fn with(screen: &Mutex<Screen>, work: impl FnOnce(&mut Screen)) {
    let mut screen = lock(screen);
    if lock(&screen.held).is_none() {
        terminal::keep_cursor();
    }
    if panic::catch_unwind(AssertUnwindSafe(|| work(&mut screen))).is_err() {
        terminal::stop_at_once();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is on the dashboard.
struct Screen {
    renderer: TuiMetricsRendererWrapper,
    course: Course,
    stage: &'static str,
    phase: String,
    is_stopping: bool,
    /// Metrics that the renderer knows.
    known: BTreeSet<String>,
    /// What a panic holds, so that what is said of it is not drawn over.
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

    /// That the run is about to stop is the last that is said of it.
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

    /// What a metric says, which the renderer gets to know first.
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
