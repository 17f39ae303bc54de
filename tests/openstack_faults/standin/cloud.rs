//! The state of the cloud, and how it changes by itself.

use super::manila::Manila;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a change takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So long.
    After(Duration),
    /// Until the object was looked at so many times.
    Looks(u32),
}

impl Pace {
    pub(crate) const fn millis(millis: u64) -> Self {
        Self::After(Duration::from_millis(millis))
    }

    const AT_ONCE: Self = Self::millis(0);
}

/// How long each kind of change takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paces {
    pub(crate) create: Pace,
    pub(crate) delete: Pace,
    pub(crate) snapshot: Pace,
    pub(crate) backup: Pace,
    pub(crate) extend: Pace,
    pub(crate) attach: Pace,
    pub(crate) detach: Pace,
    /// How much longer Nova keeps its record of a disk that Cinder has let go.
    pub(crate) nova_lag: Pace,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            create: Pace::AT_ONCE,
            delete: Pace::AT_ONCE,
            snapshot: Pace::AT_ONCE,
            backup: Pace::AT_ONCE,
            extend: Pace::AT_ONCE,
            attach: Pace::AT_ONCE,
            detach: Pace::AT_ONCE,
            nova_lag: Pace::millis(20),
        }
    }
}

/// A change of an object that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    CreateVolume,
    DeleteVolume,
    CreateSnapshot,
    DeleteSnapshot,
    CreateBackup,
    DeleteBackup,
    Extend,
    Attach,
    Detach,
}

/// How such a change ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Well.
    Done,
    /// In the object's error state; the reason is in the messages.
    Error(String),
    /// Never: the object stays in the state that it got first.
    Stuck,
    /// Back where it began, as a back end does that is busy, or a hypervisor that refuses.
    Undone,
}

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Volume,
    Snapshot,
    Backup,
}

impl Kind {
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Volume => "volumes",
            Self::Snapshot => "snapshots",
            Self::Backup => "backups",
        }
    }

    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::Backup => "backup",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Volume => "Volume",
            Self::Snapshot => "Snapshot",
            Self::Backup => "Backup",
        }
    }
}

/// A volume, a snapshot or a backup.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) status: String,
    pub(crate) size: u64,
    pub(crate) created: Timestamp,
    pub(crate) updated: Option<Timestamp>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) zone: String,
    /// Of a snapshot or backup.
    pub(crate) volume_id: Option<String>,
    /// Of a volume or backup.
    pub(crate) snapshot_id: Option<String>,
    /// Of a volume.
    pub(crate) source_volid: Option<String>,
    pub(crate) volume_type: String,
    pub(crate) multiattach: bool,
    pub(crate) fail_reason: Option<String>,
    /// Whether a back end took it.
    pub(crate) hosted: bool,
    /// The group of volumes that it belongs to.
    pub(crate) group: Option<String>,
}

/// Cinder's side of an attachment.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    pub(crate) volume: String,
    pub(crate) server: Option<String>,
    pub(crate) status: String,
    pub(crate) device: String,
    pub(crate) at: Option<Timestamp>,
    pub(crate) mode: String,
}

/// Nova's side of it: a disk of a server.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) server: String,
    pub(crate) volume: String,
    pub(crate) attachment: String,
    pub(crate) device: String,
}

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) vm_state: String,
    pub(crate) task_state: Option<String>,
    pub(crate) zone: String,
    /// How many volumes it can have.
    pub(crate) room: usize,
}

/// A user message of Cinder.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) resource_type: &'static str,
    pub(crate) resource: String,
    pub(crate) text: String,
    pub(crate) at: Timestamp,
}

/// A volume type and the back end behind it.
#[derive(Debug, Clone)]
pub(crate) struct VolumeType {
    pub(crate) name: String,
    pub(crate) multiattach: bool,
    /// Where its back end is: volumes elsewhere end in error.
    pub(crate) zone: String,
}

/// What may be had.
#[derive(Debug, Clone)]
pub(crate) struct Quotas {
    pub(crate) volumes: i64,
    pub(crate) gigabytes: i64,
    pub(crate) per_volume_gigabytes: i64,
    pub(crate) snapshots: i64,
    pub(crate) backups: i64,
    pub(crate) backup_gigabytes: i64,
}

/// What is known of users.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) application_credential: (String, String),
}

enum Due {
    At(Instant),
    Looks { object: String, left: u32 },
}

type Change = Box<dyn FnOnce(&mut Cloud) + Send>;

/// Everything.
pub(crate) struct Cloud {
    pub(crate) url: String,
    pub(crate) project: String,
    pub(crate) account: Account,
    pub(crate) region: String,
    /// Service types that the catalogue does not have.
    pub(crate) hidden_services: BTreeSet<String>,
    /// Whether Cinder's URL in the catalogue ends with the project.
    pub(crate) project_in_url: bool,
    pub(crate) token_lifetime: Duration,
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) cinder_highest: (u16, u16),
    pub(crate) nova_highest: (u16, u16),
    pub(crate) manila_lowest: (u16, u16),
    pub(crate) manila_highest: (u16, u16),
    pub(crate) manila: Manila,
    /// The most entries of a page, whatever is asked for.
    pub(crate) page: usize,
    /// Whether names are compared without regard to case, as MySQL's usual collations do.
    pub(crate) loose_names: bool,
    pub(crate) paces: Paces,
    pub(crate) quotas: Quotas,
    pub(crate) zones: Vec<String>,
    pub(crate) types: Vec<VolumeType>,
    /// Newest last.
    pub(crate) items: Vec<Item>,
    pub(crate) attachments: Vec<Attachment>,
    /// What the back end says about the way to its volumes.
    pub(crate) connection: serde_json::Value,
    pub(crate) disks: Vec<Disk>,
    pub(crate) servers: Vec<Server>,
    pub(crate) messages: Vec<Message>,
    outcomes: BTreeMap<Step, VecDeque<Outcome>>,
    pending: Vec<(Due, Change)>,
    last_stamp: Timestamp,
}

impl Cloud {
    pub(super) fn new(url: String) -> Self {
        let types = [("multi", true, "nova"), ("loop-b", false, "az2"), ("loop", false, "nova")]
            .map(|(name, multiattach, zone)| VolumeType { name: name.to_owned(), multiattach, zone: zone.to_owned() })
            .to_vec();
        let mut cloud = Self {
            url,
            project: "0bbc0d8fba5548f5b35247ba4e37ef5b".to_owned(),
            account: Account {
                user: "csi".to_owned(),
                password: "correct horse".to_owned(),
                application_credential: (
                    "9a821c2bf64144dd9acd887dc64e1387".to_owned(),
                    "application secret".to_owned(),
                ),
            },
            region: "RegionOne".to_owned(),
            hidden_services: BTreeSet::new(),
            project_in_url: true,
            token_lifetime: Duration::from_secs(24 * 3600),
            tokens: BTreeSet::new(),
            cinder_highest: (3, 71),
            nova_highest: (2, 104),
            manila_lowest: (2, 0),
            manila_highest: (2, 99),
            manila: Manila::default(),
            page: 1000,
            loose_names: false,
            paces: Paces::default(),
            quotas: Quotas {
                volumes: 5000,
                gigabytes: 100_000,
                per_volume_gigabytes: -1,
                snapshots: 5000,
                backups: 1000,
                backup_gigabytes: 1000,
            },
            zones: vec!["nova".to_owned(), "az2".to_owned()],
            types,
            items: Vec::new(),
            attachments: Vec::new(),
            connection: serde_json::json!({ "driver_volume_type": "local", "device_path": "/dev/loop0",
                "backing_file": "/volumes/volume", "target_discovered": false }),
            disks: Vec::new(),
            servers: Vec::new(),
            messages: Vec::new(),
            outcomes: BTreeMap::new(),
            pending: Vec::new(),
            last_stamp: Timestamp::UNIX_EPOCH,
        };
        cloud.add_server("node-1");
        cloud
    }

    /// A server that runs.
    pub(crate) fn add_server(&mut self, name: &str) -> String {
        let id = new_id();
        self.servers.push(Server {
            id: id.clone(),
            name: name.to_owned(),
            status: "ACTIVE".to_owned(),
            vm_state: "active".to_owned(),
            task_state: None,
            zone: "nova".to_owned(),
            room: 26,
        });
        id
    }

    /// A volume that somebody else made: available, 1 GiB, no metadata.
    pub(crate) fn add_volume(&mut self, name: &str) -> String {
        let mut item = self.new_item(Kind::Volume, name, 1);
        item.status = "available".to_owned();
        item.hosted = true;
        item.updated = Some(self.stamp());
        let id = item.id.clone();
        self.items.push(item);
        id
    }

    pub(super) fn new_item(&mut self, kind: Kind, name: &str, size: u64) -> Item {
        Item {
            kind,
            id: new_id(),
            name: name.to_owned(),
            description: None,
            status: "creating".to_owned(),
            size,
            created: self.stamp(),
            updated: None,
            metadata: BTreeMap::new(),
            zone: "nova".to_owned(),
            volume_id: None,
            snapshot_id: None,
            source_volid: None,
            volume_type: "loop".to_owned(),
            multiattach: false,
            fail_reason: None,
            hosted: false,
            group: None,
        }
    }

    /// The time now, in microseconds as the databases keep it, never the same twice.
    pub(crate) fn stamp(&mut self) -> Timestamp {
        let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("a time of today");
        let next = self.last_stamp + jiff::SignedDuration::from_micros(1);
        self.last_stamp = now.max(next);
        self.last_stamp
    }

    /// How the next change of this kind ends; each call adds one more to the queue.
    pub(crate) fn plan(&mut self, step: Step, outcome: Outcome) {
        self.outcomes.entry(step).or_default().push_back(outcome);
    }

    /// Forgets all plans.
    pub(crate) fn clear_plans(&mut self) {
        self.outcomes.clear();
    }

    pub(super) fn outcome(&mut self, step: Step) -> Outcome {
        self.outcomes.get_mut(&step).and_then(VecDeque::pop_front).unwrap_or(Outcome::Done)
    }

    /// Lets a change happen when its time has come.
    pub(crate) fn later(&mut self, pace: Pace, object: &str, change: impl FnOnce(&mut Self) + Send + 'static) {
        let due = match pace {
            Pace::After(time) => Due::At(Instant::now() + time),
            Pace::Looks(left) => Due::Looks { object: object.to_owned(), left },
        };
        self.pending.push((due, Box::new(change)));
    }

    /// Does all that is due.
    pub(crate) fn tick(&mut self) {
        loop {
            let now = Instant::now();
            let next = self
                .pending
                .iter()
                .enumerate()
                .filter_map(|(index, (due, _))| match due {
                    Due::At(at) if *at <= now => Some((*at, index)),
                    Due::Looks { left: 0, .. } => Some((now, index)),
                    _ => None,
                })
                .min();
            let Some((_, index)) = next else { return };
            let (_, change) = self.pending.remove(index);
            change(self);
        }
    }

    /// Notes that somebody looked at an object.
    pub(super) fn looked_at(&mut self, id: &str) {
        for (due, _) in &mut self.pending {
            if let Due::Looks { object, left } = due
                && object == id
            {
                *left = left.saturating_sub(1);
            }
        }
    }

    pub(crate) fn item(&self, kind: Kind, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.kind == kind && item.id == id)
    }

    pub(crate) fn item_mut(&mut self, kind: Kind, id: &str) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.kind == kind && item.id == id)
    }

    pub(crate) fn volume(&self, id: &str) -> Option<&Item> {
        self.item(Kind::Volume, id)
    }

    /// All of a kind by that name.
    pub(crate) fn named(&self, kind: Kind, name: &str) -> Vec<Item> {
        self.items.iter().filter(|item| item.kind == kind && item.name == name).cloned().collect()
    }

    /// Changes a status, as the database would stamp it.
    pub(crate) fn set_status(&mut self, kind: Kind, id: &str, status: &str) {
        let now = self.stamp();
        if let Some(item) = self.item_mut(kind, id) {
            item.status = status.to_owned();
            item.updated = Some(now);
        }
    }

    pub(crate) fn remove(&mut self, kind: Kind, id: &str) {
        self.items.retain(|item| item.kind != kind || item.id != id);
    }

    /// A reason, as the services leave it for users.
    pub(crate) fn say(&mut self, kind: Kind, id: &str, text: &str) {
        let at = self.stamp();
        let resource_type = match kind {
            Kind::Volume => "VOLUME",
            Kind::Snapshot => "VOLUME_SNAPSHOT",
            Kind::Backup => "VOLUME_BACKUP",
        };
        self.messages.push(Message { id: new_id(), resource_type, resource: id.to_owned(), text: text.to_owned(), at });
    }

    /// The server that every cloud has.
    pub(crate) fn first_server(&self) -> String {
        self.servers.first().map(|server| server.id.clone()).unwrap_or_default()
    }

    /// A server goes, as Nova does it: its disks are let go.
    pub(crate) fn remove_server(&mut self, id: &str) {
        let attachments: Vec<String> =
            self.disks.iter().filter(|disk| disk.server == id).map(|disk| disk.attachment.clone()).collect();
        for attachment in attachments {
            self.drop_attachment(&attachment);
        }
        self.disks.retain(|disk| disk.server != id);
        self.servers.retain(|server| server.id != id);
    }

    /// Makes believe that a volume has been as it is for an hour.
    pub(crate) fn age(&mut self, volume: &str) {
        let long_ago = self.stamp() - jiff::SignedDuration::from_hours(1);
        if let Some(item) = self.item_mut(Kind::Volume, volume) {
            item.updated = Some(long_ago);
        }
    }

    /// All that is left, one line each: empty in a clean cloud.
    pub(crate) fn inventory(&self) -> Vec<String> {
        let items = self.items.iter().map(|item| {
            format!("{} {} {} ({}, {} GiB)", item.kind.singular(), item.id, item.name, item.status, item.size)
        });
        let attachments = self.attachments.iter().map(|attachment| {
            format!("attachment {} of volume {} ({})", attachment.id, attachment.volume, attachment.status)
        });
        let disks = self.disks.iter().map(|disk| format!("disk of server {}: volume {}", disk.server, disk.volume));
        items.chain(attachments).chain(disks).collect()
    }
}

/// A random UUID.
pub(crate) fn new_id() -> String {
    let bits = fastrand::u128(..);
    let hex = format!("{bits:032x}");
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// A stamp as Cinder writes it.
pub(super) fn written(stamp: Timestamp) -> String {
    stamp.strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}
