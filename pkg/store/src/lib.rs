//! Revisioned key-value store: the `Store` trait and its engines.
