//! The driver's node process, as long as a test lets it live.
//!
//! Its log comes through a pipe that holds one line. So it gets no further than the beginning of the step after the one whose
//! line was read last, and a kill at a line comes in that step, however fast or slow the machine is.

use crate::machine::{try_sh, wait_until};
use fuxi_csi::call::STEPS;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const SOCKET: &str = "unix:///run/fuxi.sock";

/// Where it keeps its records.
pub(crate) const DIRECTORY: &str = "/var/lib/fuxi";

/// The least that a pipe holds, and the most that one of its packets holds.
const PAGE: usize = 4096;

/// The program. Not where it comes from: the guest reads that folder slowly.
const PROGRAM: &str = "/tmp/fuxi-csi";

/// What it logs when it answers.
const ANSWERS: [&str; 3] = ["rpc: NodeStageVolume", "rpc: NodeExpandVolume", "rpc: NodeUnstageVolume"];

/// When it is to be killed, and whether it was.
#[derive(Debug, Default)]
struct Fate {
    /// How many steps begin until then.
    steps: Option<u32>,
    /// How long after the beginning of the last one.
    delay: Duration,
    /// That one's line.
    killed_in: Option<String>,
    /// Whether it answered before. It logs an answer and then gives it, so until this line is read nobody knows.
    has_answered: bool,
}

/// The driver's process, with a session of its own.
pub(crate) struct Plugin {
    process: Child,
    fate: Arc<Mutex<Fate>>,
}

impl Plugin {
    pub(crate) fn start() -> Self {
        if !std::fs::exists(PROGRAM).unwrap() {
            std::fs::copy("/share/fuxi-csi", PROGRAM).unwrap();
        }
        // In packets: what is written at once is read at once, and takes a page to itself.
        let (read, write) = pipe2(OFlag::O_DIRECT | OFlag::O_CLOEXEC).unwrap();
        assert_eq!(
            fcntl(&write, FcntlArg::F_SETPIPE_SZ(i32::try_from(PAGE).unwrap())),
            Ok(i32::try_from(PAGE).unwrap())
        );
        // It becomes the leader of a session itself, and not a child of its own, as it leads no group yet.
        let process = Command::new("setsid")
            .args([PROGRAM, "node", "--attach", "host", "--endpoint", SOCKET, "--plugin-dir", DIRECTORY])
            .args(["--host-name", "guest", "--storage-address", "10.0.2.15", "--zone", "z"])
            .args(["--log-level", &format!("info,{STEPS}=debug")])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(write)
            .spawn()
            .unwrap();
        let fate = Arc::new(Mutex::new(Fate::default()));
        let (pid, its_fate) = (Pid::from_raw(i32::try_from(process.id()).unwrap()), Arc::clone(&fate));
        std::thread::spawn(move || follow(&mut File::from(read), pid, &its_fate));
        Self { process, fate }
    }

    /// From now on: lets this many steps begin, and kills it in the last of them.
    pub(crate) fn kill_in_step(&self, number: u32, delay: Duration) {
        *self.fate.lock().unwrap() = Fate { steps: Some(number), delay, ..Default::default() };
    }

    /// The step in which it was killed. None: it was not, and will not be.
    pub(crate) fn was_killed_in(&self) -> Option<String> {
        let is_decided = || {
            let fate = self.fate.lock().unwrap();
            fate.killed_in.is_some() || fate.has_answered
        };
        wait_until("the plug-in is killed or has answered", is_decided);
        let mut fate = self.fate.lock().unwrap();
        fate.steps = None;
        fate.killed_in.take()
    }

    /// After it was killed: its programs go on, or die with it.
    pub(crate) fn bury(mut self, with_its_programs: bool) {
        let pid = self.process.id();
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "it ended by itself: {status}");
        if with_its_programs {
            let _ = try_sh(&format!("pkill -KILL -s {pid}"));
        }
    }

    pub(crate) fn kill(mut self, with_its_programs: bool) {
        self.process.kill().unwrap();
        self.bury(with_its_programs);
    }
}

/// Reads the log to its end, and kills the process where it is to be killed.
fn follow(pipe: &mut File, process: Pid, fate: &Mutex<Fate>) {
    let mut log = File::options().create(true).append(true).open("/tmp/node.log").unwrap();
    let mut packet = [0; PAGE];
    loop {
        let count = pipe.read(&mut packet).unwrap();
        if count == 0 {
            return;
        }
        log.write_all(&packet[..count]).unwrap();
        let line = String::from_utf8_lossy(&packet[..count]);
        let mut fate = fate.lock().unwrap();
        fate.has_answered |= ANSWERS.iter().any(|answer| line.contains(answer));
        let Some((_, step)) = line.split_once(&format!("{STEPS}: ")) else { continue };
        fate.steps = fate.steps.map(|steps| steps - 1);
        if fate.steps == Some(0) {
            std::thread::sleep(fate.delay);
            kill(process, Signal::SIGKILL).unwrap();
            fate.steps = None;
            fate.killed_in = Some(step.trim().to_owned());
        }
    }
}
