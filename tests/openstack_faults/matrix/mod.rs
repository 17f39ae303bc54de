//! The kill matrix: every fault at every OpenStack call of every controller RPC.
//!
//! Each flow is run once without a fault, which tells how many calls it makes. Then, for each of these calls and each
//! fault, it is run again with that fault at that call; the RPC is repeated, as the sidecars do, until it succeeds; the
//! result is compared with what was asked for; everything is undone; and nothing may be left in the cloud.
//!
//! `FUXI_MATRIX_FLOW=Create` runs one flow only, `FUXI_MATRIX_SEED=7` repeats one run of the several faults.

mod bench;
mod fault;
mod flow;
mod report;

use bench::{Bench, Case};
use fault::Fault;
use flow::Flow;
use report::Verdict;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// How many clouds with a driver each work at the same time: they wait more than they work.
const WORKERS: usize = 24;

/// How many runs with several faults each flow gets.
const RUNS_WITH_SEVERAL: usize = 5;

#[test]
fn every_fault_at_every_call_of_every_rpc_ends_in_the_same_result_with_nothing_left_over() {
    let traces = traces();
    let mut cases = VecDeque::new();
    for (flow, calls) in &traces {
        println!("{flow:?}: {}", calls.join(", "));
        for fault in Fault::ALL {
            for (nth, call) in (1..).zip(calls) {
                cases.push_back(Case { flow: *flow, faults: vec![(fault, nth)], call: call.clone() });
            }
        }
    }
    let verdicts = in_parallel(cases);
    for flow in traces.keys() {
        for fault in Fault::ALL {
            let struck = |verdict: &&Verdict| {
                verdict.case.flow == *flow && verdict.case.faults[0].0 == fault && verdict.struck > 0
            };
            let proven = verdicts.iter().any(|verdict| struck(&verdict));
            assert!(proven, "{fault:?} struck no call of {flow:?}: the matrix proves nothing for it");
        }
    }
    assert_good(&verdicts);
}

#[test]
fn several_faults_in_one_rpc_end_in_the_same_result_with_nothing_left_over() {
    let seed = std::env::var("FUXI_MATRIX_SEED").map_or_else(|_| fastrand::u64(..1_000_000), |it| it.parse().unwrap());
    println!("FUXI_MATRIX_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cases = VecDeque::new();
    for (flow, calls) in traces() {
        for _ in 0..RUNS_WITH_SEVERAL {
            // Repeats make more calls than the run without faults.
            let last = u32::try_from(calls.len() * 2).unwrap();
            let faults = (0..3).map(|_| (Fault::ALL[random.usize(..Fault::ALL.len())], random.u32(1..=last))).collect();
            cases.push_back(Case { flow, faults, call: format!("seed {seed}") });
        }
    }
    assert_good(&in_parallel(cases));
}

/// The calls of each flow, from a run without a fault.
fn traces() -> BTreeMap<Flow, Vec<String>> {
    let only = std::env::var("FUXI_MATRIX_FLOW").ok();
    let flows = Flow::ALL.into_iter().filter(|flow| only.as_ref().is_none_or(|name| format!("{flow:?}") == *name));
    let cases = flows.map(|flow| Case { flow, faults: Vec::new(), call: String::new() }).collect();
    let traces = run_all(cases);
    let broken: Vec<String> =
        traces.iter().filter(|(verdict, _)| verdict.is_bad()).map(|(verdict, _)| verdict.tell()).collect();
    assert!(broken.is_empty(), "flows that fail without any fault:\n{}", broken.join("\n"));
    traces.into_iter().map(|(verdict, calls)| (verdict.case.flow, calls)).collect()
}

fn in_parallel(cases: VecDeque<Case>) -> Vec<Verdict> {
    run_all(cases).into_iter().map(|(verdict, _)| verdict).collect()
}

fn assert_good(verdicts: &[Verdict]) {
    report::print(verdicts);
    let bad: Vec<String> = verdicts.iter().filter(|verdict| verdict.is_bad()).map(Verdict::tell).collect();
    assert!(bad.is_empty(), "{} bad cases:\n{}", bad.len(), bad.join("\n"));
}

/// Runs the cases, several at a time, each worker with a cloud, a driver and a thread of its own.
fn run_all(cases: VecDeque<Case>) -> Vec<(Verdict, Vec<String>)> {
    let workers = WORKERS.min(cases.len());
    let queue = Mutex::new(cases);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(case) = next else { return done };
                done.push(bench.run(&case).await);
            }
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker of the matrix")).collect()
    })
}
