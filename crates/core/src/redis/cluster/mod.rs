//! A shared connection to a cluster.
//!
//! Here: a link to each master, and which of them a command goes to. A command belongs to the slot of its
//! first key; its other keys have to be in the same one. The commands of a pipeline go to their masters, all
//! at once. As at a single server, a command that may have been executed is never sent again: one that was
//! not sent, or that was refused because its slot is elsewhere, is sent there. (The client's own connection
//! to a cluster sends commands again that got no answer.)
//!
//! A keeper (`keeper`) finds out where slots are. Where next: `slots` for slots, `view` for what nodes say.

mod keeper;
pub(crate) mod slots;
pub(super) mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::join_all;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::slots::Route;
use self::view::View;
use super::answers::{self, Seen};
use super::healing::{HealingConnection, Limits};
use super::transport::timed_out;
use crate::redis_address::{Address, Cluster, Place};

/// How often a command is sent elsewhere.
const MAX_REDIRECTS: u32 = 5;
/// The pause before a command is sent again that came while its slot was being moved.
const MOVING_PAUSE: Duration = Duration::from_millis(50);

/// A connection to all masters of a cluster; its clones share it.
#[derive(Clone)]
pub(super) struct ClusterConnection {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    limits: Limits,
    /// `None` until a node has answered.
    nodes: ArcSwapOption<Nodes>,
    /// Links to nodes that others named and that are not among the masters yet.
    guests: Mutex<BTreeMap<Place, HealingConnection>>,
    keeper: keeper::Running,
    /// Asks the keeper to look at once.
    wanted: Notify,
    /// Changes when the keeper has looked.
    looked: watch::Sender<Option<redis::RedisError>>,
}

/// The masters, with a link to each.
struct Nodes {
    view: View,
    links: BTreeMap<Place, HealingConnection>,
}

/// Where a server says that a command belongs; it was not executed.
#[derive(Debug, PartialEq, Eq)]
enum Redirect {
    /// The slot has moved.
    Moved(Option<Place>),
    /// This key has moved, and the slot is about to.
    Ask(Option<Place>),
    /// Later: some of the keys have moved.
    Later,
}

impl ClusterConnection {
    /// A connection that is opened by its first command, and driven by the runtime of that command.
    pub(super) fn new(cluster: &Cluster, limits: Limits) -> Self {
        let shared = Shared {
            cluster: cluster.clone(),
            limits,
            nodes: ArcSwapOption::empty(),
            guests: Mutex::default(),
            keeper: keeper::Running::default(),
            wanted: Notify::new(),
            looked: watch::Sender::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends a command to the master that it belongs to.
    pub(super) async fn send(&self, command: &Cmd) -> (redis::RedisResult<Value>, Seen) {
        let answer = match slots::route(command) {
            Route::Slot(slot) => self.send_to(slot, command).await,
            Route::EachMaster => self.send_to_each(command).await,
        };
        let seen = answers::of_command(&answer);
        (answer, seen)
    }

    /// Sends the commands of a pipeline to the masters that they belong to.
    pub(super) async fn send_all(&self, pipeline: &Pipeline) -> (redis::RedisResult<Vec<Value>>, Seen) {
        let answers = if pipeline.is_transaction() {
            Err(std::io::Error::other("transactions over a cluster are not supported").into())
        } else {
            self.send_commands(&pipeline.cmd_iter().collect::<Vec<_>>()).await
        };
        let seen = answers::of_pipeline(&answers);
        (answers, seen)
    }

    /// The masters, each with a connection.
    pub(super) async fn masters(&self) -> redis::RedisResult<Vec<(Place, HealingConnection)>> {
        let nodes = self.nodes().await?;
        Ok(nodes.links.iter().map(|(place, link)| (place.clone(), link.clone())).collect())
    }

    /// A key for each master that lies there: `key` gives one for each number.
    pub(super) async fn key_of_each(&self, key: impl Fn(usize) -> String) -> redis::RedisResult<Vec<String>> {
        let nodes = self.nodes().await?;
        let mut keys = BTreeMap::new();
        for number in 0..usize::from(slots::SLOTS) {
            if keys.len() == nodes.links.len() {
                break;
            }
            let key = key(number);
            if let Some(master) = nodes.view.master_of(slots::slot_of(key.as_bytes())) {
                keys.entry(master.clone()).or_insert(key);
            }
        }
        Ok(keys.into_values().collect())
    }

    async fn send_to(&self, slot: u16, command: &Cmd) -> redis::RedisResult<Value> {
        let mut link = self.link_of(slot).await?;
        let mut is_asking = false;
        for _ in 0..MAX_REDIRECTS {
            let (place, connection) = &link;
            let ready = match connection.ready().await {
                Ok(ready) => ready,
                Err(error) => {
                    // Nothing was sent. Another node may be the master by now.
                    self.look_now().await;
                    let now = self.link_of(slot).await?;
                    if now.0 == *place {
                        return Err(error);
                    }
                    (link, is_asking) = (now, false);
                    continue;
                }
            };
            let answer = if is_asking {
                let mut asking = redis::pipe();
                asking.cmd("ASKING").add_command(command.clone());
                ready.send_all(&asking, 0, 2).await.0.map(|mut answers| answers.pop().unwrap_or(Value::Nil))
            } else {
                ready.send(command).await.0
            };
            match self.redirect(place, &answer) {
                None => {
                    self.suspect(&answer);
                    return answer;
                }
                Some(Redirect::Later) => sleep(MOVING_PAUSE).await,
                Some(Redirect::Ask(Some(place))) => (link, is_asking) = (self.link_at(place), true),
                Some(Redirect::Moved(Some(place))) => {
                    self.shared.wanted.notify_one();
                    (link, is_asking) = (self.link_at(place), false);
                }
                Some(Redirect::Moved(None) | Redirect::Ask(None)) => {
                    self.look_now().await;
                    (link, is_asking) = (self.link_of(slot).await?, false);
                }
            }
        }
        Err(lost())
    }

    /// Succeeds if any master does: those that did not are found when they are used.
    async fn send_to_each(&self, command: &Cmd) -> redis::RedisResult<Value> {
        let nodes = self.nodes().await?;
        let answers = join_all(nodes.links.values().map(|link| link.send(command))).await;
        let mut failed = Err(lost());
        for (answer, seen) in answers {
            match answer {
                Ok(value) if !seen.is_failure => return Ok(value),
                other => failed = other,
            }
        }
        failed
    }

    /// Sends commands, of each master in their order. What was surely not executed is sent again, to where
    /// it belongs by then.
    async fn send_commands(&self, commands: &[&Cmd]) -> redis::RedisResult<Vec<Value>> {
        let mut answers: Vec<Option<Value>> = commands.iter().map(|_| None).collect();
        for _ in 0..MAX_REDIRECTS {
            let unsent = answers.iter().enumerate().filter(|(_, answer)| answer.is_none());
            let unsent: Vec<usize> = unsent.map(|(place, _)| place).collect();
            if unsent.is_empty() {
                break;
            }
            let groups = self.grouped(commands, &unsent).await?;
            let sent = groups.iter().map(async |(place, (link, group))| {
                let ready = link.ready().await.map_err(Unsent)?;
                let mut pipeline = redis::pipe();
                for command in group.iter().filter_map(|place| commands.get(*place)) {
                    pipeline.add_command((*command).clone());
                }
                Ok((place, ready.send_all(&pipeline, 0, pipeline.len()).await.0))
            });
            let mut unsent = None;
            for (sent, (_, group)) in join_all(sent).await.into_iter().zip(groups.values()) {
                match sent {
                    Err(Unsent(error)) => unsent = Some(error),
                    Ok((place, values)) => self.keep(commands, &mut answers, place, group, values).await?,
                }
            }
            let is_complete = answers.iter().all(Option::is_some);
            if !is_complete {
                let before = self.nodes().await?;
                self.look_now().await;
                let is_the_same = self.nodes().await?.view.has_same_masters(&before.view);
                if let (Some(error), true) = (unsent, is_the_same) {
                    return Err(error);
                }
            }
        }
        answers.into_iter().collect::<Option<Vec<_>>>().ok_or_else(lost)
    }

    /// Puts the answers of a group into their places, except for those of commands that belong elsewhere.
    async fn keep(
        &self,
        commands: &[&Cmd],
        answers: &mut [Option<Value>],
        from: &Place,
        group: &[usize],
        values: redis::RedisResult<Vec<Value>>,
    ) -> redis::RedisResult<()> {
        let values = match values {
            Ok(values) => values,
            Err(error) => {
                let failed = Err(error);
                self.suspect(&failed);
                return failed.map(|_| ());
            }
        };
        for (place, value) in group.iter().zip(values) {
            let (Some(answer), Some(command)) = (answers.get_mut(*place), commands.get(*place)) else {
                continue;
            };
            let value = Ok(value);
            match self.redirect(from, &value) {
                None => {
                    self.suspect(&value);
                    *answer = value.ok();
                }
                Some(Redirect::Moved(_)) => {}
                Some(Redirect::Ask(_) | Redirect::Later) => *answer = Some(self.send(command).await.0?),
            }
        }
        Ok(())
    }

    /// The commands in these places, by the master that they belong to.
    async fn grouped(
        &self,
        commands: &[&Cmd],
        places: &[usize],
    ) -> redis::RedisResult<BTreeMap<Place, (HealingConnection, Vec<usize>)>> {
        let nodes = self.nodes().await?;
        let mut groups = BTreeMap::new();
        for place in places {
            let route = commands.get(*place).map(|command| slots::route(command));
            let Some(Route::Slot(slot)) = route else { return Err(lost()) };
            let (master, link) = nodes.link_of(slot).ok_or_else(lost)?;
            let (_, group) = groups.entry(master).or_insert_with(|| (link, Vec::new()));
            group.push(*place);
        }
        Ok(groups)
    }

    /// The masters; waits for a node to answer.
    async fn nodes(&self) -> redis::RedisResult<Arc<Nodes>> {
        keeper::ensure(&self.shared);
        if let Some(nodes) = self.shared.nodes.load_full() {
            return Ok(nodes);
        }
        self.look_now().await;
        self.shared
            .nodes
            .load_full()
            .ok_or_else(|| self.shared.looked.borrow().clone().unwrap_or_else(timed_out))
    }

    /// Waits until the keeper has looked.
    async fn look_now(&self) {
        keeper::ensure(&self.shared);
        let mut looked = self.shared.looked.subscribe();
        self.shared.wanted.notify_one();
        let _ = timeout(self.shared.limits.opening, looked.changed()).await;
    }

    async fn link_of(&self, slot: u16) -> redis::RedisResult<(Place, HealingConnection)> {
        let nodes = self.nodes().await?;
        nodes
            .link_of(slot)
            .ok_or_else(|| std::io::Error::other(format!("slot {slot} of the cluster has no master")).into())
    }

    /// The link to a node that another one named.
    fn link_at(&self, place: Place) -> (Place, HealingConnection) {
        let shared = &self.shared;
        if let Some(link) = shared.nodes.load().as_ref().and_then(|nodes| nodes.links.get(&place)) {
            return (place, link.clone());
        }
        let mut guests = shared.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let link = guests.entry(place.clone()).or_insert_with(|| shared.link(&place));
        (place, link.clone())
    }

    /// Looks soon, if an answer says that the master may have died or lost its slots.
    fn suspect(&self, answer: &redis::RedisResult<Value>) {
        let is_suspect = match answer {
            Err(error) => {
                error.is_io_error()
                    || error.is_timeout()
                    || matches!(error.code(), Some("CLUSTERDOWN" | "READONLY"))
            }
            Ok(Value::ServerError(error)) => matches!(error.code(), "CLUSTERDOWN" | "READONLY"),
            Ok(_) => false,
        };
        if is_suspect {
            self.shared.wanted.notify_one();
        }
    }

    fn redirect(&self, asked: &Place, answer: &redis::RedisResult<Value>) -> Option<Redirect> {
        let (code, details) = match answer {
            Ok(Value::ServerError(error)) => (error.code(), error.details()),
            Ok(_) => return None,
            Err(error) => (error.code()?, error.detail()),
        };
        // "3999 127.0.0.1:6381"
        let place = || {
            let (host, port) = details?.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
            view::place_of(&self.shared.cluster, asked, host, port.parse().ok()?)
        };
        match code {
            "MOVED" => Some(Redirect::Moved(place())),
            "ASK" => Some(Redirect::Ask(place())),
            "TRYAGAIN" => Some(Redirect::Later),
            _ => None,
        }
    }
}

/// A group of commands that was not sent.
struct Unsent(redis::RedisError);

impl Nodes {
    fn link_of(&self, slot: u16) -> Option<(Place, HealingConnection)> {
        let master = self.view.master_of(slot)?;
        Some((master.clone(), self.links.get(master)?.clone()))
    }
}

impl Shared {
    fn link(&self, place: &Place) -> HealingConnection {
        HealingConnection::new(Arc::new(Address::Node(self.cluster.node(place.clone()))), self.limits)
    }
}

/// The error of a command that found no master.
fn lost() -> redis::RedisError {
    std::io::Error::other("the slot's master was not found among the nodes of the cluster").into()
}
