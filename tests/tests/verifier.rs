//! How far the kernel's verifier has to walk through each program: that is most of the time until the probe measures, and
//! what no other test sees.

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use termite_probe_tests::ensemble::require_host;
use termite_probe_tests::holdings::{descriptors, number};
use termite_probe_tests::probe::Serve;

/// Instructions of one program, walked through by every way that the verifier cannot take for another. The kernel gives up
/// at 1,000,000 (BPF_COMPLEXITY_LIMIT_INSNS); with 730,000 the start took twice its time.
const MOST: u64 = 250_000;

#[test]
fn no_program_is_long_to_verify() -> Result<()> {
    require_host()?;
    let serve = Serve::start(&[])?;
    let mut programs = Vec::new();
    for fields in descriptors(serve.pid())? {
        let Some(id) = number(&fields, "prog_id").filter(|_| fields.contains_key("prog_type")) else {
            continue;
        };
        // Since Linux 5.16.
        let walked = number(&fields, "verified_insns").context("no verified_insns of a program in fdinfo")?;
        programs.push((walked, u32::try_from(id)?));
    }
    programs.sort_unstable_by(|a, b| b.cmp(a));
    let mut over = Vec::new();
    for (walked, id) in programs.iter().take(8) {
        let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == *id);
        let name = info
            .and_then(|info| info.name_as_str().map(str::to_owned))
            .context("a program without a name")?;
        println!("{walked:>9} instructions walked through: {name}");
        if *walked > MOST {
            over.push(format!("{name}: {walked}"));
        }
    }
    let smallest = programs.last().context("the probe holds no program")?.0;
    ensure!(programs.len() > 10 && smallest > 0, "{} programs, the least of {smallest}", programs.len());
    ensure!(over.is_empty(), "more than {MOST} instructions walked through: {}", over.join(", "));
    serve.interrupt()?.expect(0, &[])
}
