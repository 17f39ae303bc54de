//! No secret leaves the process but to Keystone.

use crate::driver::{Driver, Setup};
use crate::sidecar::{Sidecar, create_request};
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};

const RPC_SECRET: &str = "the secret of a class";

#[tokio::test]
async fn no_secret_is_in_the_log_the_errors_or_the_process_list() {
    for format in ["text", "json"] {
        let standin = Standin::start();
        let arguments = ["--log-format", format, "--log-level", "trace"].map(str::to_owned).to_vec();
        let mut driver = Driver::start_with(&standin, Setup { arguments, ..Setup::default() }).await;
        let sidecar = Sidecar::new(&driver);
        let node = standin.cloud(|cloud| cloud.first_server());
        let mut said = String::new();

        let mut request = create_request("pvc", 1);
        request.secrets.insert("password".to_owned(), RPC_SECRET.to_owned());
        let volume = sidecar.create_as(request.clone()).await.unwrap().volume_id;
        sidecar.publish(&volume, &node).await.unwrap();
        for action in
            [Action::status(500), Action::status(403), Action::RevokeToken, Action::Reset, Action::status(400)]
        {
            standin.inject(Rule::on("POST *", action.clone()));
            request.name = format!("{action:?}");
            if let Err(status) = sidecar.create_as(request.clone()).await {
                said.push_str(&format!("{status:?}\n"));
            }
            standin.clear_faults();
        }
        // A parameter that is not known, with a value that looks like one's password.
        let mut odd = create_request("odd", 1);
        odd.secrets.insert("unknown".to_owned(), RPC_SECRET.to_owned());
        if let Err(status) = sidecar.create_as(odd).await {
            said.push_str(&format!("{status:?}\n"));
        }
        let old = standin.cloud(|cloud| {
            cloud.tokens.clear();
            std::mem::replace(&mut cloud.account.password, "another".to_owned())
        });
        if let Err(status) = sidecar.create("refused", 1).await {
            said.push_str(&format!("{status:?}\n"));
        }
        assert!(!said.is_empty(), "no error was provoked");

        let process = std::fs::read(format!("/proc/{}/cmdline", driver.pid())).unwrap();
        let process = String::from_utf8_lossy(&process).replace('\0', " ");
        assert!(process.contains("fuxi-csi"), "{process}");
        driver.kill();
        let log = driver.log();
        assert!(log.len() > 1000, "trace says more than this:\n{log}");
        let mut secrets: Vec<String> = standin.log().into_iter().filter_map(|logged| logged.token).collect();
        assert!(!secrets.is_empty());
        secrets.extend([old, RPC_SECRET.to_owned()]);
        for secret in secrets {
            for (place, text) in [("log", &log), ("errors", &said), ("process list", &process)] {
                let line = text.lines().find(|line| line.contains(&secret));
                assert!(line.is_none(), "a secret is in the {place}: {line:?}");
            }
        }
        driver.restart(&standin).await;
    }
}
