use super::{Source, Watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Objects that are finished at a certain time, and a count of requests.
#[derive(Clone)]
struct Clockwork {
    finished_at: Instant,
    looks: Arc<AtomicUsize>,
    lists: Arc<AtomicUsize>,
    has_list: bool,
    shown_by_list: bool,
    list_takes: Duration,
    broken: bool,
    one_by_one: Duration,
    look_takes: Duration,
}

impl Clockwork {
    fn finishing_in(time: Duration) -> Self {
        Self {
            finished_at: Instant::now() + time,
            looks: Arc::default(),
            lists: Arc::default(),
            has_list: true,
            shown_by_list: true,
            list_takes: Duration::ZERO,
            broken: false,
            one_by_one: Duration::ZERO,
            look_takes: Duration::ZERO,
        }
    }
}

#[async_trait]
impl Source for Clockwork {
    type Object = bool;
    async fn one(&self, call: &Call, id: &str) -> Result<Option<bool>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        call.sleep("look", self.look_takes).await?;
        if id == "hung" {
            std::future::pending::<()>().await;
        }
        if self.broken {
            return Err(Error::new(Kind::Unavailable, "broken"));
        }
        // Of those that are called by their number, one after the other is finished.
        let turn = id.parse().map_or(Duration::ZERO, |number: u32| self.one_by_one * number);
        Ok((id != "gone").then(|| Instant::now() >= self.finished_at + turn))
    }
    fn has_list(&self) -> bool {
        self.has_list
    }
    async fn many(&self, _: &Call, ids: &[String], _: Duration) -> Result<Vec<(String, Option<bool>)>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let done = Instant::now() >= self.finished_at;
        tokio::time::sleep(self.list_takes).await;
        Ok(if self.shown_by_list { ids.iter().map(|id| (id.clone(), Some(done))).collect() } else { Vec::new() })
    }
}

fn finished(seen: Option<&bool>) -> Result<Option<()>> {
    match seen {
        Some(true) => Ok(Some(())),
        Some(false) => Ok(None),
        None => Err(Error::not_found("gone")),
    }
}

/// So many callers wait at once, each for an object of its own.
async fn crowd_waits(watch: &Watch<Clockwork>, callers: u32) {
    let wait = |n: u32| {
        let watch = watch.clone();
        tokio::spawn(async move {
            watch.until(&Call::lasting(Duration::from_secs(60)), "finish", &n.to_string(), finished).await
        })
    };
    let waits: Vec<_> = (0..callers).map(wait).collect();
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_waiter_looks_at_its_object() {
    let source = Clockwork::finishing_in(Duration::from_secs(2));
    let watch = Watch::new(source.clone());
    watch.until(&Call::lasting(Duration::from_secs(60)), "finish", "a", finished).await.unwrap();
    assert_eq!(source.lists.load(Ordering::Relaxed), 0);
    assert!(source.looks.load(Ordering::Relaxed) <= 7);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(source.looks.load(Ordering::Relaxed) <= 7, "nobody waits, nobody looks");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_shares_one_list_per_tick() {
    let source = Clockwork::finishing_in(Duration::from_secs(3));
    let watch = Watch::new(source.clone());
    crowd_waits(&watch, 1000).await;
    assert_eq!(source.looks.load(Ordering::Relaxed), 0);
    assert!(source.lists.load(Ordering::Relaxed) <= 9, "{}", source.lists.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn one_who_looks_something_up_gets_it_with_one_look_at_once() {
    let source = Clockwork::finishing_in(Duration::from_secs(3600));
    let watch = Watch::at_once(source.clone());
    let started = Instant::now();
    for looks in 1..=50 {
        let call = Call::lasting(Duration::from_secs(60));
        assert_eq!(watch.now(&call, "look", "a").await.unwrap(), Some(false));
        assert_eq!(source.looks.load(Ordering::Relaxed), looks);
    }
    assert_eq!(watch.now(&Call::lasting(Duration::from_secs(60)), "look", "gone").await.unwrap(), None);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn many_who_look_something_up_share_the_lists_and_what_comes_meanwhile_is_in_the_next() {
    let source = Clockwork { list_takes: Duration::from_secs(1), ..Clockwork::finishing_in(Duration::ZERO) };
    let watch = Watch::at_once(source.clone());
    let look_up = |n: u32| {
        let watch = watch.clone();
        tokio::spawn(async move { watch.now(&Call::lasting(Duration::from_secs(60)), "look", &n.to_string()).await })
    };
    let started = Instant::now();
    let mut waits: Vec<_> = (0..1000).map(look_up).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    waits.extend((1000..2000).map(look_up));
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap(), Some(true));
    }
    assert!(started.elapsed() <= Duration::from_millis(2250), "{:?}", started.elapsed());
    assert_eq!(source.looks.load(Ordering::Relaxed), 0);
    assert!(source.lists.load(Ordering::Relaxed) <= 3, "{}", source.lists.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn what_no_list_shows_is_looked_at_by_itself() {
    let source = Clockwork { shown_by_list: false, ..Clockwork::finishing_in(Duration::from_secs(1)) };
    let watch = Watch::new(source.clone());
    crowd_waits(&watch, 10).await;
    assert_eq!(source.looks.load(Ordering::Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn a_large_crowd_that_lists_show_late_is_not_looked_at_one_by_one() {
    let source = Clockwork { list_takes: Duration::from_secs(2), ..Clockwork::finishing_in(Duration::from_secs(5)) };
    let watch = Watch::new(source.clone());
    let started = Instant::now();
    crowd_waits(&watch, 1000).await;
    assert!(source.looks.load(Ordering::Relaxed) < 100, "{}", source.looks.load(Ordering::Relaxed));
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_large_crowd_that_no_list_shows_is_served_all_the_same() {
    let source = Clockwork { shown_by_list: false, ..Clockwork::finishing_in(Duration::from_secs(1)) };
    let watch = Watch::new(source.clone());
    let started = Instant::now();
    crowd_waits(&watch, 2000).await;
    assert_eq!(source.looks.load(Ordering::Relaxed), 2000);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_without_a_list_is_looked_at_little_more_than_once_each() {
    for (callers, time) in [(10, 1), (100, 1), (100, 20), (1000, 5)] {
        let source = Clockwork { has_list: false, ..Clockwork::finishing_in(Duration::from_secs(time)) };
        let watch = Watch::new(source.clone());
        let started = Instant::now();
        crowd_waits(&watch, callers).await;
        let looks = source.looks.load(Ordering::Relaxed);
        assert_eq!(source.lists.load(Ordering::Relaxed), 0);
        let most = if time == 1 { callers * 3 / 2 } else { callers * 5 / 2 };
        assert!(looks >= callers as usize && looks <= most as usize, "{callers} in {time} s: {looks} looks");
        let late = started.elapsed() - Duration::from_secs(time);
        assert!(late < Duration::from_secs(2), "{callers} in {time} s: {late:?} late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_without_a_list_that_ends_one_by_one_is_served_in_time() {
    let turn = Duration::from_millis(200);
    let source = Clockwork { has_list: false, one_by_one: turn, ..Clockwork::finishing_in(Duration::from_secs(1)) };
    let watch = Watch::new(source.clone());
    let started = Instant::now();
    crowd_waits(&watch, 100).await;
    let looks = source.looks.load(Ordering::Relaxed);
    assert!(looks <= 500, "{looks} looks");
    // The last ends after 20.8 s; alone it could be seen half as much later.
    assert!(started.elapsed() < Duration::from_secs(32), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hung_look_holds_up_no_other_of_a_crowd_without_a_list() {
    let source = Clockwork { has_list: false, ..Clockwork::finishing_in(Duration::from_secs(1)) };
    let watch = Watch::new(source.clone());
    let hung = watch.clone();
    let hung =
        tokio::spawn(async move { hung.until(&Call::lasting(Duration::from_secs(900)), "x", "hung", finished).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = Instant::now();
    crowd_waits(&watch, 50).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    hung.abort();
}

#[tokio::test(start_paused = true)]
async fn errors_and_gone_objects_end_the_wait_and_so_does_the_deadline() {
    let call = || Call::lasting(Duration::from_secs(5));
    let watch = Watch::new(Clockwork::finishing_in(Duration::from_secs(3600)));
    assert_eq!(watch.until(&call(), "x", "gone", finished).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(watch.until(&call(), "x", "slow", finished).await.unwrap_err().kind(), Kind::Deadline);
    let broken = Watch::new(Clockwork { broken: true, ..Clockwork::finishing_in(Duration::ZERO) });
    assert_eq!(broken.until(&call(), "x", "a", finished).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(watch.0.lock().waiters, 0);
    assert_eq!(broken.0.lock().waiters, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_little_time_does_not_end_the_wait_of_another() {
    let source = Clockwork { look_takes: Duration::from_secs(2), ..Clockwork::finishing_in(Duration::ZERO) };
    let watch = Watch::new(source.clone());
    let wait = |time| {
        let watch = watch.clone();
        tokio::spawn(async move { watch.until(&Call::lasting(Duration::from_secs(time)), "x", "a", finished).await })
    };
    let (patient, hasty) = (wait(60), wait(1));
    assert_eq!(hasty.await.unwrap().unwrap_err().kind(), Kind::Deadline);
    patient.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hung_look_holds_up_no_other() {
    let watch = Watch::new(Clockwork::finishing_in(Duration::from_secs(1)));
    let hung = watch.clone();
    let hung =
        tokio::spawn(async move { hung.until(&Call::lasting(Duration::from_secs(900)), "x", "hung", finished).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    watch.until(&Call::lasting(Duration::from_secs(60)), "x", "a", finished).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    hung.abort();
}
