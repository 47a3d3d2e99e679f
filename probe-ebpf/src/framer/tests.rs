//! Framer properties.
