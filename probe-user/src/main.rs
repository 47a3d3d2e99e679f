//! The binary `termite-probe`. All of it is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    probe_user::main()
}
