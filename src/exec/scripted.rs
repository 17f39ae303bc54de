//! A stand-in for the machine's programs: tests say what each answers, and see what was run.
//!
//! Public so that tests of other modules, of `tests/` and of third parties' connectors can use it.

use super::{Command, Exec, Output};
use crate::call::Call;
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

type Answer = Arc<dyn Fn(&Command) -> Result<Output> + Send + Sync>;

struct Rule {
    start: String,
    answer: Answer,
    once: bool,
}

/// Answers commands from a list of rules; what no rule answers is an error. Clones share their rules.
#[derive(Clone, Default)]
pub struct ScriptedExec {
    rules: Arc<Mutex<Vec<Rule>>>,
    ran: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for ScriptedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedExec").field("ran", &self.ran()).finish_non_exhaustive()
    }
}

impl ScriptedExec {
    /// Without any rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every command line that starts so gets this answer, unless a later rule says otherwise.
    pub fn always(&self, start: &str, code: i32, stdout: &str, stderr: &str) {
        self.add(start, false, fixed(code, stdout, stderr));
    }

    /// The next command line that starts so gets this answer. Such rules come before all others, oldest first.
    pub fn once(&self, start: &str, code: i32, stdout: &str, stderr: &str) {
        self.add(start, true, fixed(code, stdout, stderr));
    }

    /// Every command line that starts so is answered by a function, which may have effects.
    pub fn does(&self, start: &str, answer: impl Fn(&Command) -> Result<Output> + Send + Sync + 'static) {
        self.add(start, false, Arc::new(answer));
    }

    /// The command lines that were run, oldest first.
    #[must_use]
    pub fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a command line that starts so was run.
    #[must_use]
    pub fn has_run(&self, start: &str) -> bool {
        self.ran().iter().any(|line| line.starts_with(start))
    }

    fn add(&self, start: &str, once: bool, answer: Answer) {
        let rule = Rule { start: start.to_owned(), answer, once };
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    fn answer(&self, line: &str) -> Option<Answer> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = rules.iter().position(|rule| rule.once && line.starts_with(&rule.start)) {
            return Some(rules.remove(place).answer);
        }
        rules.iter().rev().find(|rule| line.starts_with(&rule.start)).map(|rule| rule.answer.clone())
    }
}

fn fixed(code: i32, stdout: &str, stderr: &str) -> Answer {
    let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
    Arc::new(move |command| Ok(Output::of(command, code, stdout.clone(), stderr.clone())))
}

#[async_trait]
impl Exec for ScriptedExec {
    /// Those that the script has an answer for.
    fn finds(&self, program: &str) -> bool {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.iter().any(|rule| rule.start.split(' ').next() == Some(program))
    }

    async fn run(&self, call: &Call, command: Command) -> Result<Output> {
        let line = command.to_string();
        call.check(&format!("run `{line}`"))?;
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        match self.answer(&line) {
            Some(answer) => answer(&command),
            None => Err(Error::internal(format!("the script has no answer for `{line}`"))),
        }
    }
}
