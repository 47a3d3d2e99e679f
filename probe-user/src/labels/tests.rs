//! Labels of links.
