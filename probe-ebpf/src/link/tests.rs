//! Link properties.
