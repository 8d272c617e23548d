//! The terminal under the dashboard: whether there is one to take, that Ctrl-C stays a signal on it, and how it is given back
//! where the process must end at once.

use std::{
    env,
    io::{self, IsTerminal},
    sync::mpsc,
    thread,
    time::Duration,
};

use crossterm::{
    cursor::{SavePosition, Show},
    event::DisableMouseCapture,
    execute,
    terminal::{LeaveAlternateScreen, disable_raw_mode, is_raw_mode_enabled},
};
use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr},
};

use crate::signals::INTERRUPTED;

/// Columns and rows below which nothing is to be read.
const SMALLEST: (u16, u16) = (60, 20);

/// Whether the process has a terminal that it may draw on. A process in the background that changes its terminal is stopped
/// by the system.
pub fn is_free() -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let drawable = set("TERM") && env::var_os("TERM").is_some_and(|name| name != "dumb") && !set("CI");
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal();
    let large = || tcgetwinsize(io::stdout()).is_ok_and(|size| (size.ws_col, size.ws_row) >= SMALLEST);
    let foreground = || tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
    drawable && terminal && large() && foreground()
}

/// Whether the dashboard has it.
pub fn is_taken() -> bool {
    is_raw_mode_enabled().unwrap_or(false)
}

/// The renderer takes every key as a key. Ctrl-C is a signal again after this, and Ctrl-Z and Ctrl-\, which would leave the
/// terminal as it is, are still none.
///
/// # Errors
/// What the system says.
pub fn keep_interrupt() -> io::Result<()> {
    // `_POSIX_VDISABLE`
    let none = if cfg!(any(target_os = "linux", target_os = "android")) { 0 } else { 0xff };
    let mut modes = tcgetattr(io::stdin())?;
    modes.local_modes |= LocalModes::ISIG;
    for key in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
        modes.special_codes[key] = none;
    }
    Ok(tcsetattr(io::stdin(), OptionalActions::Now, &modes)?)
}

/// Where the renderer's panic hook has given the terminal back it does so once more, and the cursor goes where it was saved.
/// To be called before that, lest lines be written over what was said in between.
pub fn keep_cursor() {
    if !is_taken() {
        let _ = execute!(io::stdout(), SavePosition);
    }
}

/// What [`hold_output`] holds until it is dropped.
pub struct Held {
    _release: mpsc::Sender<()>,
}

/// Gives the terminal back if that is not done, and keeps the renderer from drawing on what is there then. A terminal that
/// takes no more output is not waited for.
pub fn hold_output() -> Held {
    let (release, released) = mpsc::channel();
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        let mut out = io::stdout().lock();
        if is_taken() {
            let _ = disable_raw_mode();
            let _ = execute!(out, DisableMouseCapture, LeaveAlternateScreen);
        }
        let _ = execute!(out, Show);
        let _ = done.send(());
        let _ = released.recv();
    });
    let _ = wait.recv_timeout(Duration::from_secs(1));
    Held { _release: release }
}

/// Gives the terminal back and ends the process.
pub fn stop_at_once() -> ! {
    let _held = hold_output();
    signal_hook::low_level::exit(INTERRUPTED)
}
