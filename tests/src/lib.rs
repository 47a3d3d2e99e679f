//! What the tests across a process boundary are made of: real ensembles, load, faults, an
//! independent measurement, and the probe itself as a black box.
//!
//! Nothing here links to the other crates of the workspace: the probe is driven through its command
//! line and read through its output, and the measurement it is compared with shares no code with it.
//! What is missing on the host (Java, tcpdump, root) is an error that says what to install, never a
//! silent skip.

mod affinity;
pub mod agreement;
pub mod bpf;
pub mod cache_line;
pub mod capture;
pub mod container;
pub mod demo;
pub mod ensemble;
pub mod exposition;
pub mod fault;
pub mod flood;
pub mod holdings;
pub mod http;
pub mod judgement;
pub mod load;
pub mod machine;
pub mod markdown;
pub mod net;
pub mod page;
pub mod pairs;
pub mod poll;
mod priority;
pub mod probe;
pub mod process;
pub mod reborn;
pub mod relay;
pub mod scene;
pub mod tls;
pub mod unrest;
pub mod watching;
