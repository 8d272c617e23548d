//! The terminal under the dashboard: whether there is one to take, how Ctrl-C stays a signal, and how the terminal is given
//! back if the process must end at once.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsRawFd,
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

/// The smallest size (columns, rows) at which the dashboard is readable.
const SMALLEST: (u16, u16) = (60, 20);

/// Returns true if the process has a terminal that it may draw on. The system stops a background process that changes its
/// terminal.
pub fn is_free() -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let drawable = set("TERM") && env::var_os("TERM").is_some_and(|name| name != "dumb") && !set("CI");
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal();
    let large = || tcgetwinsize(io::stdout()).is_ok_and(|size| (size.ws_col, size.ws_row) >= SMALLEST);
    let foreground = || tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
    drawable && terminal && large() && foreground()
}

/// Returns true while the dashboard has the terminal.
pub fn is_taken() -> bool {
    is_raw_mode_enabled().unwrap_or(false)
}

/// Returns true if the terminal was closed.
pub fn is_gone() -> bool {
    tcgetattr(io::stdin()).is_err()
}

/// Sends what is written from now on nowhere, if the terminal was closed: the renderer ends with lines of its own, and one
/// that cannot be written ends the process.
#[allow(unsafe_code)]
pub fn leave_if_gone() {
    if !is_gone() {
        return;
    }
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        for stream in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: `dup2` has no conditions on memory. Both descriptors are open, and stay so.
            unsafe { libc::dup2(nowhere.as_raw_fd(), stream) };
        }
    }
}

/// Makes Ctrl-C a signal again, which the renderer has turned into a key. Ctrl-Z and Ctrl-\ stay keys, because their signals
/// would leave the terminal in raw mode.
///
/// # Errors
/// Returns the system's error.
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

/// Saves the cursor position if the renderer's panic hook has given the terminal back. The renderer gives it back a second time
/// and restores the cursor; without this call, later lines would overwrite the message of the panic.
pub fn keep_cursor() {
    if !is_taken() {
        let _ = execute!(io::stdout(), SavePosition);
    }
}

/// Holds standard output until it is dropped; see [`hold_output`].
pub struct Held {
    _release: mpsc::Sender<()>,
}

/// Gives the terminal back if that has not happened, and keeps the renderer from drawing. Does not wait for a terminal that
/// accepts no more output.
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
