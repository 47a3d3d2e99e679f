//! What a guest said: the steps that it ran, with their output and exit codes.
//!
//! In: the text of its channel, which may stop anywhere. Out: plain data. Invariant: only a step whose exit was
//! seen counts. Not here: what is right and wrong.

/// A step that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Its name.
    pub(super) name: String,
    /// Its exit code.
    pub(super) exit: i32,
    /// Its standard output.
    pub(super) output: String,
    /// Its standard error.
    pub(super) said: String,
}

/// All that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Transcript {
    /// Steps that ended, in order.
    pub(super) steps: Vec<Step>,
    /// The step that had begun when nothing more came.
    pub(super) unfinished: Option<String>,
    /// Whether the guest came to the end of its script.
    pub(super) is_complete: bool,
}

impl Transcript {
    /// Reads it.
    pub(super) fn of(text: &str) -> Self {
        let mut transcript = Self::default();
        let mut open: Option<Step> = None;
        for line in text.lines() {
            let line = line.trim_end_matches('\r');
            let Some(mark) = line.strip_prefix("== ") else {
                if let Some(step) = &mut open {
                    step.output.push_str(line);
                    step.output.push('\n');
                }
                continue;
            };
            if let Some(name) = mark.strip_prefix("step ") {
                open = Some(Step { name: name.to_owned(), ..Step::default() });
            } else if let (Some(said), Some(step)) = (mark.strip_prefix("said "), &mut open) {
                step.said.push_str(said);
                step.said.push('\n');
            } else if let Some(code) = mark.strip_prefix("exit ") {
                transcript
                    .steps
                    .extend(open.take().map(|step| Step { exit: code.parse().unwrap_or(-1), ..step }));
            } else if mark == "end" {
                transcript.is_complete = true;
            }
        }
        transcript.unfinished = open.map(|step| step.name);
        transcript
    }

    /// The step of that name, when it ended.
    pub(super) fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_ended_count() {
        let text =
            "== step kernel\r\n6.1.0\r\n== exit 0\r\n== step doctor\n{\n}\n== said oh\n== exit 3\n== end\n";
        let transcript = Transcript::of(text);
        assert!(transcript.is_complete);
        assert_eq!(transcript.step("kernel").map(|step| step.output.as_str()), Some("6.1.0\n"));
        let doctor = Step { name: "doctor".into(), exit: 3, output: "{\n}\n".into(), said: "oh\n".into() };
        assert_eq!(transcript.step("doctor"), Some(&doctor));
    }

    #[test]
    fn a_transcript_may_stop_anywhere() {
        let transcript = Transcript::of("== step kernel\n6.1.0\n== exit 0\n== step fault\n{\"ki");
        assert_eq!(transcript.unfinished.as_deref(), Some("fault"));
        assert!(!transcript.is_complete);
        assert_eq!(transcript.step("fault"), None);
        assert_eq!(Transcript::of(""), Transcript::default());
        assert_eq!(Transcript::of("== exit 0\n").steps, []);
    }
}
