//! A machine for the driver: a root directory with files of its own in a mount namespace of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Programs of this host that make a machine.
const PROGRAMS: [&str; 6] = ["unshare", "chroot", "mount", "losetup", "mkfs.ext4", "blkid"];

/// Where programs and their libraries are.
const SYSTEM: [&str; 7] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"];

/// What is the kernel's.
const KERNEL: [&str; 3] = ["dev", "proc", "sys"];

/// The longest that anything may take that takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whose `/dev`, `/proc` and `/sys` a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// This host's.
    Host,
    /// Files, as the test writes them.
    Files,
}

/// A root directory, removed with all that is in it and with the loop devices of its files.
#[derive(Debug)]
pub(crate) struct Machine {
    root: TempDir,
    kernel: Kernel,
    hidden: Vec<&'static str>,
}

impl Machine {
    /// A machine, or none where these tests cannot run; the reason is printed.
    pub(crate) fn new(kernel: Kernel) -> Option<Self> {
        if let Some(why) = reason_to_skip() {
            println!("skipped: {why}");
            return None;
        }
        // A loop device over a disk waits for that disk; the sockets of /tmp may have too long a path.
        let place = ["/dev/shm", "/var/tmp"].into_iter().find(|place| Path::new(place).is_dir()).unwrap();
        let root = tempfile::Builder::new().prefix("fuxi-machine-").tempdir_in(place).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Self { root, kernel, hidden: Vec::new() };
        for name in SYSTEM {
            let (here, there) = (Path::new("/").join(name), machine.path(name));
            match fs::read_link(&here) {
                Ok(target) => std::os::unix::fs::symlink(target, there).unwrap(),
                Err(_) if here.is_dir() => fs::create_dir(there).unwrap(),
                Err(_) => {}
            }
        }
        for name in KERNEL.into_iter().chain(["connectors", "run", "srv", "tmp"]) {
            fs::create_dir(machine.path(name)).unwrap();
        }
        machine.write("fuxi-csi", "", 0o755);
        // Programs below /usr/local find their libraries through it.
        machine.write("etc/ld.so.cache", fs::read("/etc/ld.so.cache").unwrap_or_default(), 0o644);
        machine.write("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:5a1b2c3d4e5f\n", 0o644);
        Some(machine)
    }

    /// The same machine without a program.
    pub(crate) fn without(mut self, program: &'static str) -> Self {
        self.hidden.push(program);
        self
    }

    /// Where a file of the machine is on this host. Not for what is mounted in the machine, which is nobody else's.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside.trim_start_matches('/'))
    }

    /// Writes a file of the machine.
    pub(crate) fn write(&self, inside: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A program that runs cannot be written to, but replaced.
        drop(fs::remove_file(&path));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What a file of the machine says; nothing if it is not there.
    pub(crate) fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_default()
    }

    /// The mode of a file of the machine.
    pub(crate) fn mode(&self, inside: &str) -> u32 {
        fs::metadata(self.path(inside)).unwrap().mode() & 0o7777
    }

    /// The names in a directory of the machine, sorted.
    pub(crate) fn names(&self, inside: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(inside)).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A sparse file of zeros.
    pub(crate) fn image(&self, inside: &str, size: u64) {
        fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        fs::File::options().create(true).append(true).open(self.path(inside)).unwrap().set_len(size).unwrap();
    }

    /// A program on this machine, as its first process: what it mounts is gone with it.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let root = self.root.path().to_str().unwrap();
        let mut script = vec!["set -eu".to_owned()];
        for name in SYSTEM.iter().filter(|name| self.path(name).is_dir() && !self.path(name).is_symlink()) {
            script.push(format!("mount --rbind /{name} {root}/{name}"));
        }
        for name in KERNEL.iter().filter(|_| self.kernel == Kernel::Host) {
            script.push(format!("mount --rbind /{name} {root}/{name}"));
        }
        for name in &self.hidden {
            for folder in fuxi_csi::exec::PROGRAM_DIRECTORIES {
                let path = format!("{root}{folder}/{name}");
                script.push(format!("if [ -f {path} ]; then mount --bind /dev/null {path}; fi"));
            }
        }
        script.push(format!("mount --bind {} {root}/fuxi-csi", env!("CARGO_BIN_EXE_fuxi-csi")));
        script.push(format!("exec chroot {root} \"$@\""));
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &script.join("\n"), "sh", program])
            .args(arguments)
            // Nothing of the developer's own settings may leak in, and the driver may not rely on PATH.
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a program on this machine to its end.
    pub(crate) fn run(&self, program: &str, arguments: &[&str], stdin: &str) -> Output {
        let mut child = self
            .command(program, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The driver, to be started on this machine.
    pub(crate) fn driver(&self, arguments: &[&str]) -> Command {
        self.command("/fuxi-csi", arguments)
    }

    /// The processes on this machine: their ids and command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let found = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            let id = entry.file_name().to_str()?.parse().ok()?;
            // A process may end while it is looked at; one that ended has no root any more.
            let root = fs::read_link(entry.path().join("root")).ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            (root == self.root.path()).then(|| (id, String::from_utf8_lossy(&line).replace('\0', " ")))
        });
        found.collect()
    }

    /// The loop devices of this machine's files, by their back file's name.
    pub(crate) fn loop_devices(&self) -> Vec<(PathBuf, String)> {
        // Seen from outside its mount namespace, a path begins at its file system.
        let root = self.root.path().file_name().unwrap().to_str().unwrap();
        let found = fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let inside = file.trim().trim_end_matches(" (deleted)").split_once(root)?.1.to_owned();
            Some((Path::new("/dev").join(entry.file_name()), inside))
        });
        found.collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A mount namespace whose last process was killed a moment ago may be on its way still.
        let begun = Instant::now();
        loop {
            let devices = self.loop_devices();
            for (device, _) in &devices {
                drop(Command::new("losetup").arg("-d").arg(device).output());
            }
            if devices.is_empty() {
                return;
            }
            if begun.elapsed() > PATIENCE {
                println!("left over: {devices:?}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process that is killed and waited for when it is dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// kill -9, and the end waited for.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process said, and how it ended.
pub(crate) fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn reason_to_skip() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("a machine of its own (mounts, loop devices, chroot) needs root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there is no /dev/loop-control".to_owned());
    }
    let exec = fuxi_csi::exec::SystemExec::default();
    if let Some(error) = PROGRAMS.iter().find_map(|program| exec.find(program).err()) {
        return Some(error.to_string());
    }
    let tried = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output().unwrap();
    (!tried.status.success()).then(|| "this host allows no mount namespace".to_owned())
}
