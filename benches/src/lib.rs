//! The 173 M parameter configuration that every benchmark here uses.
