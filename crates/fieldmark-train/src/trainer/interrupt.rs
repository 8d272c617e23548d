//! A wish to stop, which a trainer heeds at its next boundary: the end of an update (SFT) or of a rollout step (TAPO).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Shared between a trainer and whoever may stop it, such as a signal handler.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// What is true once somebody has asked, for those who can only set a flag.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Whether somebody has asked.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
