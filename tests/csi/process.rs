//! The program itself: sockets, signals, exit codes.

use crate::driver::connect;
use fuxi_csi::csi::proto;
use fuxi_csi::csi::proto::identity_client::IdentityClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

fn start(socket: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fuxi-csi"))
        .args(["controller", "--endpoint"])
        .arg(format!("unix://{}", socket.display()))
        .args(if more.contains(&"--provider") { &[] } else { &["--provider", "memory"][..] })
        .args(more)
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn serves(socket: &Path) {
    for _ in 0..200 {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            let mut client = IdentityClient::new(connect(socket).await);
            client.probe(proto::ProbeRequest {}).await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} is not served", socket.display());
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), signal).unwrap();
}

async fn end(child: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn sigterm_and_sigint_end_it_in_good_order() {
    for which in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("csi.sock");
        let child = start(&socket, &["--log-format", "json", "--log-level", "debug"]);
        serves(&socket).await;
        signal(&child, which);
        let (code, log) = end(child).await;
        assert_eq!(code, Some(0), "{log}");
        assert!(!socket.exists());
        assert!(log.contains("\"message\":\"serving CSI\"") && log.contains("\"message\":\"Probe\""), "{log}");
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}

#[tokio::test]
async fn a_killed_process_leaves_a_socket_that_the_next_one_replaces() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let first = start(&socket, &[]);
    serves(&socket).await;

    let (code, log) = end(start(&socket, &[])).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("served by another process"), "{log}");
    serves(&socket).await;

    signal(&first, Signal::SIGKILL);
    end(first).await;
    assert!(socket.exists());
    let second = start(&socket, &[]);
    serves(&socket).await;
    signal(&second, Signal::SIGTERM);
    let (code, log) = end(second).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("replacing the socket"), "{log}");
}

#[tokio::test]
async fn metrics_and_health_are_served_where_asked() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = start(&socket, &["--http-endpoint", &free.to_string()]);
    serves(&socket).await;
    let mut answers = String::new();
    for path in ["/readyz", "/metrics"] {
        let mut stream = tokio::net::TcpStream::connect(free).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answers).await.unwrap();
    }
    assert!(answers.contains("fuxi_csi_rpc_total{method=\"Probe\",code=\"OK\"} 1"), "{answers}");
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
    drop(child);
}

#[tokio::test]
async fn a_wrong_configuration_is_exit_code_78_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let (code, log) = end(start(&socket, &["--provider", "floppy"])).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("there is no such provider"), "{log}");

    let file = directory.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let (code, log) = end(start(&file, &[])).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("is not a socket"), "{log}");
}
