//! What the tests share: fixtures and comparisons.
