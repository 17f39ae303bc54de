//! External programs: argv only (never a shell), a time limit, `LC_ALL=C`, secrets on stdin only, and everything
//! logged without them.
//!
//! A program that only looks ends with the [`Call`] it runs for. One that changes something (mkfs, resize, fsck) is
//! declared [`Command::to_the_end`]: killing it half-way would leave a wreck, so only its own limit ends it.

pub mod scripted;

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// The time that a program gets unless its [`Command`] says otherwise.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Where programs are looked for: never in `PATH`, which may be unset or somebody else's.
pub const PROGRAM_DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The most that is taken of a program's standard output; more is an error, since half an answer is none.
const LONGEST_STDOUT: usize = 4 << 20;

/// How much is kept of the end of a program's standard error.
const KEPT_STDERR: usize = 16 << 10;

/// How many of the last lines of standard error go into an error message.
const SHOWN_LINES: usize = 6;

/// How much of a line goes into an error message, in bytes.
const SHOWN_OF_A_LINE: usize = 300;

/// What stands for a secret in whatever is shown.
const REDACTED: &str = "[redacted]";

/// A program to run: its name or absolute path, its arguments, and what it reads.
#[derive(Debug, Clone)]
pub struct Command {
    program: String,
    arguments: Vec<OsString>,
    stdin: Option<SecretSlice<u8>>,
    hidden: Vec<SecretString>,
    limit: Duration,
    to_the_end: bool,
}

impl Command {
    /// A program by its name (looked up in [`PROGRAM_DIRECTORIES`]) or its absolute path.
    #[must_use]
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            stdin: None,
            hidden: Vec::new(),
            limit: DEFAULT_LIMIT,
            to_the_end: false,
        }
    }

    /// Adds an argument. Never a secret: every user of the machine sees arguments.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// What the program reads from standard input; taken as secret, so it shows nowhere.
    #[must_use]
    pub fn stdin(mut self, bytes: SecretSlice<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Parts of what the program reads that are secret by themselves: they are taken out of its last words.
    #[must_use]
    pub fn hiding(mut self, secrets: impl IntoIterator<Item = SecretString>) -> Self {
        self.hidden.extend(secrets);
        self
    }

    /// How long the program may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The program changes something: it is not killed because a caller went away, only at its own limit.
    #[must_use]
    pub fn to_the_end(mut self) -> Self {
        self.to_the_end = true;
        self
    }

    /// The program's name or path.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The arguments.
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Takes the secret out of what a program said.
    fn redact(&self, text: &str) -> String {
        let stdin = self.stdin.as_ref().map(|stdin| String::from_utf8_lossy(stdin.expose_secret()));
        // A secret may be echoed without the line break that ended it.
        let all = stdin.iter().map(|stdin| stdin.trim());
        let parts = self.hidden.iter().map(|secret| secret.expose_secret());
        all.chain(parts)
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, REDACTED))
    }
}

/// The command line, for people.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                write!(f, " {text:?}")?;
            } else {
                write!(f, " {text}")?;
            }
        }
        Ok(())
    }
}

/// How a program ended by itself, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// All that it wrote to standard output.
    pub stdout: String,
    /// The end of what it wrote to standard error, without secrets.
    pub stderr: String,
    command: String,
}

impl Output {
    /// The output of a command.
    #[must_use]
    pub fn of(command: &Command, code: i32, stdout: impl Into<String>, stderr: impl Into<String>) -> Self {
        Self { code, stdout: stdout.into(), stderr: command.redact(&stderr.into()), command: command.to_string() }
    }

    /// The same if the exit code is 0, else an error.
    ///
    /// # Errors
    /// `Internal`, naming program, exit code and its last words.
    pub fn success(self) -> Result<Self> {
        if self.code == 0 { Ok(self) } else { Err(self.failure(Kind::Internal)) }
    }

    /// The exit code as an error: program, code, and the last lines of what it said.
    #[must_use]
    pub fn failure(&self, kind: Kind) -> Error {
        Error::new(kind, format!("`{}` ended with exit code {}: {}", self.command, self.code, self.last_words()))
    }

    /// The last lines that the program wrote, on one line; of standard output if it wrote no error.
    #[must_use]
    pub fn last_words(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
        let shown: Vec<_> = shown.iter().map(|line| beginning(line, SHOWN_OF_A_LINE)).collect();
        if shown.is_empty() { "it said nothing".to_owned() } else { shown.join(" / ") }
    }
}

/// So many bytes of a text at most, cut between characters and visibly.
#[must_use]
pub fn beginning(text: &str, longest: usize) -> Cow<'_, str> {
    match text.get(..text.floor_char_boundary(longest)) {
        Some(start) if start.len() < text.len() => Cow::Owned(format!("{start}…")),
        _ => Cow::Borrowed(text),
    }
}

/// Something that runs programs: the machine, or a script in a test.
#[async_trait]
pub trait Exec: fmt::Debug + Send + Sync {
    /// Runs a program until it ends. Any exit code is an `Ok`: what a code means differs by program.
    ///
    /// # Errors
    /// `WrongState`: there is no such program here. `Deadline`: its time limit, or the call, was over first.
    /// `Internal`: it could not be started, was killed, or wrote far too much.
    async fn run(&self, call: &Call, command: Command) -> Result<Output>;

    /// Whether a program is there to be run.
    fn finds(&self, program: &str) -> bool;
}

/// The machine.
#[derive(Debug)]
pub struct SystemExec {
    directories: Vec<PathBuf>,
    found: Mutex<HashMap<String, PathBuf>>,
}

impl Default for SystemExec {
    fn default() -> Self {
        Self::new(PROGRAM_DIRECTORIES)
    }
}

impl SystemExec {
    /// Runs programs of these directories; the first that has a program wins.
    pub fn new(directories: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { directories: directories.into_iter().map(Into::into).collect(), found: Mutex::default() }
    }

    /// Where a program is.
    ///
    /// # Errors
    /// `WrongState`: nowhere.
    pub fn find(&self, program: &str) -> Result<PathBuf> {
        if Path::new(program).is_absolute() {
            return Ok(PathBuf::from(program));
        }
        if program.contains('/') {
            return Err(Error::internal(format!("program {program:?} is neither a name nor an absolute path")));
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = found.get(program) {
            return Ok(path.clone());
        }
        let path = self
            .directories
            .iter()
            .map(|directory| directory.join(program))
            .find(|path| is_executable(path))
            .ok_or_else(|| self.missing(program))?;
        found.insert(program.to_owned(), path.clone());
        Ok(path)
    }

    fn forget(&self, program: &str) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(program);
    }

    fn missing(&self, program: &str) -> Error {
        let places: Vec<_> = self.directories.iter().map(|directory| directory.display().to_string()).collect();
        Error::wrong_state(format!(
            "program {program} is not on this node (looked in {}): install it there or in the driver's image",
            places.join(", ")
        ))
    }

    async fn run_to_its_end(&self, command: &Command) -> Result<Output> {
        let path = self.find(&command.program)?;
        let mut child = tokio::process::Command::new(&path)
            .args(&command.arguments)
            .env("LC_ALL", "C")
            .env("LANGUAGE", "C")
            .env("PATH", self.search_path())
            .current_dir("/")
            .stdin(if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                if error.kind() == io::ErrorKind::NotFound && Path::new(&command.program).is_absolute() {
                    Error::wrong_state(format!(
                        "{} cannot be started: it is not there (any more), or what its first line (`#!`) or its own \
                         loader names is not; see that all of it is on this node, or in the driver's image",
                        path.display()
                    ))
                } else if error.kind() == io::ErrorKind::NotFound {
                    self.forget(&command.program);
                    self.missing(&command.program)
                } else {
                    Error::internal(format!("start {}", path.display())).because(error)
                }
            })?;
        let family = Family::of(&child);
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut pipe), Some(bytes)) = (stdin, &command.stdin) {
                // A program that does not read to the end closes the pipe: its exit code tells whether that matters.
                match pipe.write_all(bytes.expose_secret()).await {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        let (fed, stdout, stderr, status) =
            tokio::join!(feed, read_head(child.stdout.take()), read_tail(child.stderr.take()), child.wait());
        family.spare();
        let broken = |error| Error::internal(format!("talk to `{command}`")).because(error);
        fed.map_err(broken)?;
        let (stdout, stderr, status) = (stdout.map_err(broken)?, stderr.map_err(broken)?, status.map_err(broken)?);
        let Some(stdout) = stdout else {
            return Err(Error::internal(format!("`{command}` wrote more than {LONGEST_STDOUT} bytes")));
        };
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        match status.code() {
            Some(code) => Ok(Output::of(command, code, stdout, stderr)),
            None => {
                let signal = status.signal().unwrap_or_default();
                let words = Output::of(command, 128_i32.saturating_add(signal), stdout, stderr).last_words();
                Err(Error::internal(format!("`{command}` was killed by signal {signal}: {words}")))
            }
        }
    }

    fn search_path(&self) -> OsString {
        std::env::join_paths(&self.directories).unwrap_or_default()
    }
}

#[async_trait]
impl Exec for SystemExec {
    fn finds(&self, program: &str) -> bool {
        self.find(program).is_ok()
    }

    async fn run(&self, call: &Call, command: Command) -> Result<Output> {
        let doing = format!("run `{command}`");
        call.check(&doing)?;
        if command.to_the_end {
            call.step(&doing);
        }
        let started = Instant::now();
        let limited = tokio::time::timeout(command.limit, self.run_to_its_end(&command));
        let ended = if command.to_the_end { limited.await } else { call.bound(&doing, limited).await? };
        let result = ended.unwrap_or_else(|_| {
            Err(Error::new(Kind::Deadline, format!("{doing}: not done after {:?}; it was killed", command.limit)))
        });
        let took = started.elapsed();
        match &result {
            Ok(output) => tracing::debug!(%command, code = output.code, ?took, stderr = output.stderr.trim(), "ran"),
            Err(error) => tracing::debug!(%command, ?took, %error, "did not run"),
        }
        result
    }
}

/// A program and those that it started. Unless they are spared, all of them are killed when this is dropped: what a
/// script had begun would otherwise go on behind the back of the next attempt.
struct Family(Option<Pid>);

impl Family {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(leader) = self.0
            && let Err(error) = killpg(leader, Signal::SIGKILL)
        {
            tracing::debug!(%leader, %error, "nothing left to kill");
        }
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// All of a stream, or nothing if it is too long. Reads on to the end in any case, so that the writer is not blocked.
async fn read_head(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Option<Vec<u8>>> {
    let Some(mut stream) = stream else { return Ok(Some(Vec::new())) };
    let mut kept = Vec::new();
    let bound = u64::try_from(LONGEST_STDOUT).unwrap_or(u64::MAX);
    (&mut stream).take(bound).read_to_end(&mut kept).await?;
    let more = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok((more == 0).then_some(kept))
}

/// The end of a stream.
async fn read_tail(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return Ok(kept) };
    let mut block = vec![0; 4096];
    loop {
        let count = stream.read(&mut block).await?;
        if count == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(block.get(..count).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(KEPT_STDERR));
    }
}

#[cfg(test)]
mod tests;
