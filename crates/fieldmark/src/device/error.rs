//! Why a device cannot be used.

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("device `{name}` is unknown{suggestion}; this build has {available}")]
    Unknown {
        /// The name given.
        name: String,
        /// ": did you mean ...?", or nothing.
        suggestion: String,
        /// The devices of this build.
        available: String,
    },
    /// The device exists, but this build was compiled without it.
    #[error(
        "device `{name}` is not in this build, which has {available}; build with `cargo build --release --features {name}`"
    )]
    NotCompiled {
        /// The kind of device asked for.
        name: &'static str,
        /// The devices of this build.
        available: String,
    },
    /// The number of the card is wrong, or the list of devices is.
    #[error("device `{name}`: {reason}")]
    Index {
        /// The name given.
        name: String,
        /// What is wrong with the name.
        reason: String,
    },
    /// The cards fail to add up gradients with an all-reduce.
    #[error(
        "devices `{names}` cannot all-reduce: {reason}; check that NCCL is installed, or set `run.reduction` to \"gather\""
    )]
    AllReduce {
        /// The names given.
        names: String,
        /// What happened.
        reason: String,
    },
    /// This build has the device, but it does not work on this machine.
    #[error("device `{name}` does not start: {reason}; it needs {needs}; other devices of this build: {others}")]
    Start {
        /// The name given.
        name: String,
        /// What happened.
        reason: String,
        /// What a machine must have for it.
        needs: &'static str,
        /// The other devices of this build.
        others: String,
    },
}
