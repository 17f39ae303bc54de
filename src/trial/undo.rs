//! Taking away what a life has left: after a failed step, after a signal, and at the end.
//!
//! The latest goes first. Where something cannot be taken away, what it stands on is left alone and named: a volume that
//! is still mounted is not detached, one that is attached is not deleted.

use super::client::{Attempts, is_passing};
use super::ledger::{Entry, Object};
use super::orchestrator::Orchestrator;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Undoes everything that life `life` has in the ledger. What could not be undone stays there.
pub(super) async fn undo(world: &Orchestrator, life: u32) {
    let mut stuck: BTreeSet<String> = BTreeSet::new();
    for (entry, object) in world.ledger.of_life(life) {
        let held = object.holds().is_some_and(|volume| stuck.contains(volume));
        let outcome = if held {
            Err("what is above it could not be taken away".to_owned())
        } else {
            take_away(world, entry, object.clone()).await
        };
        match outcome {
            Ok(note) => {
                world.ledger.end(entry);
                // Directories go with what was in them; nobody misses them.
                if !matches!(object, Object::Directory(_)) {
                    world.report.note(life, &format!("undone: {object}{note}"));
                }
            }
            Err(why) => {
                stuck.extend(object.holds().map(str::to_owned));
                world.report.note(life, &format!("NOT undone: {object}: {why}"));
            }
        }
    }
}

/// Takes one object away and says what there is to say about it.
async fn take_away(world: &Orchestrator, entry: Entry, object: Object) -> Result<&'static str, String> {
    let object = match identified(world, object).await? {
        Some(object) => object,
        None => return Ok(" (it was never made)"),
    };
    if let Object::Volume { id: Some(id), .. } | Object::Snapshot { id: Some(id), .. } = &object {
        world.ledger.identify(entry, id);
    }
    let attempts = persist(world, || world.send_removal(&object)).await;
    attempts.answer.map(|()| "").map_err(|status| describe(&status))
}

/// An object whose creation was not answered has no id. The same request again gives it, or says that it cannot be.
async fn identified(world: &Orchestrator, object: Object) -> Result<Option<Object>, String> {
    let controller = &world.driver.controller;
    let answer = match &object {
        Object::Volume { request, id: None } => {
            let send = || {
                let (mut controller, request) = (controller.clone(), request.as_ref().clone());
                async move { controller.create_volume(request).await }
            };
            let answer = persist(world, send).await.answer;
            answer.map(|answer| answer.into_inner().volume.map(|volume| volume.volume_id))
        }
        Object::Snapshot { request, id: None } => {
            let send = || {
                let (mut controller, request) = (controller.clone(), request.as_ref().clone());
                async move { controller.create_snapshot(request).await }
            };
            let answer = persist(world, send).await.answer;
            answer.map(|answer| answer.into_inner().snapshot.map(|snapshot| snapshot.snapshot_id))
        }
        _ => return Ok(Some(object)),
    };
    match (answer, object) {
        (Ok(Some(id)), Object::Volume { request, .. }) => Ok(Some(Object::Volume { request, id: Some(id) })),
        (Ok(Some(id)), Object::Snapshot { request, .. }) => Ok(Some(Object::Snapshot { request, id: Some(id) })),
        (Ok(_), _) => Err("the driver's answer names no object".to_owned()),
        (Err(status), _) if was_never_made(&status) => Ok(None),
        (Err(status), _) => Err(format!("whether it exists cannot be learned: {}", describe(&status))),
    }
}

/// The answers by which CSI says that a creation did not and will not happen.
fn was_never_made(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::FailedPrecondition
    )
}

/// How often a refusal is repeated that sounds final: states settle within seconds, or not at all.
pub(super) const REPEATED_REFUSALS: u32 = 5;

/// Undoing is stubborn: what may pass with time is repeated, as the sidecars do, whatever its code.
async fn persist<T, F>(world: &Orchestrator, send: impl Fn() -> F) -> Attempts<T>
where
    F: Future<Output = Result<T, Status>>,
{
    let refusals = AtomicU32::new(0);
    let again = |status: &Status| {
        is_passing(status)
            || (matches!(status.code(), Code::Internal | Code::Unknown | Code::FailedPrecondition)
                && refusals.fetch_add(1, Ordering::Relaxed) < REPEATED_REFUSALS)
    };
    // Signals do not stop undoing; a second one ends the whole run.
    world.patience.persist(&CancellationToken::new(), again, send).await
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
