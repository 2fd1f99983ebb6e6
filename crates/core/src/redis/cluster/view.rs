//! What a node knows of its cluster: which master has which slots.
//!
//! The nodes that are known are all asked at once. During a fail-over their answers differ; the one with the
//! highest epoch counts, of the nodes that do not say that the cluster has failed: a node that was cut off
//! from the others says so after `cluster-node-timeout`. The answers are those of `CLUSTER SLOTS` and
//! `CLUSTER INFO` (<https://redis.io/docs/latest/commands/cluster-slots/>).

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, Pipeline, Value};
use tokio::time::{Instant, timeout_at};

use super::super::opening::OpenError;
use super::super::transport::{OpenConnection, timed_out};
use crate::redis_address::{Cluster, Place, Server};

/// How long the other nodes are waited for when one has answered.
const OTHERS_LIMIT: Duration = Duration::from_millis(100);

/// A node's view of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redis) struct View {
    /// Grows with every fail-over.
    pub(super) epoch: u64,
    /// Whether the node says that the cluster works.
    pub(in crate::redis) is_ok: bool,
    /// In order.
    ranges: Vec<Range>,
    replicas: Vec<Place>,
}

/// Slots of one master.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    master: Place,
}

impl View {
    /// The master of this slot, if the slot has one.
    pub(in crate::redis) fn master_of(&self, slot: u16) -> Option<&Place> {
        let after = self.ranges.partition_point(|range| range.first <= slot);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= range.last).then_some(&range.master)
    }

    /// The masters that have slots, each once, in order.
    pub(in crate::redis) fn masters(&self) -> Vec<Place> {
        let mut masters: Vec<Place> = self.ranges.iter().map(|range| range.master.clone()).collect();
        masters.sort();
        masters.dedup();
        masters
    }

    /// All nodes that it names.
    pub(super) fn nodes(&self) -> Vec<Place> {
        let mut nodes = self.masters();
        nodes.extend(self.replicas.iter().cloned());
        nodes
    }

    /// Whether both say the same about slots.
    pub(super) fn has_same_masters(&self, other: &Self) -> bool {
        self.ranges == other.ranges
    }

    /// Whether this view is to be believed rather than the other one.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        (self.is_ok, self.epoch) > (other.is_ok, other.epoch)
    }
}

/// The question to a node.
pub(super) fn question() -> Pipeline {
    let mut question = redis::pipe();
    question.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    question
}

/// Reads the answer of this node; its error if it refused to answer.
pub(super) fn read(cluster: &Cluster, asked: &Place, answers: Vec<Value>) -> Result<View, OpenError> {
    let mut values = Vec::new();
    for value in answers {
        match value {
            // "This instance has cluster support disabled", or an unknown command: a Sentinel's.
            Value::ServerError(error) if error.code() == "ERR" => {
                return Err(OpenError::NotACluster(asked.clone()));
            }
            value => values.push(value.extract_error().map_err(OpenError::Redis)?),
        }
    }
    let mut values = values.into_iter();
    let (Some(info), Some(Value::Array(slots))) = (values.next(), values.next()) else {
        return Err(unreadable(asked));
    };
    let info: String = redis::from_redis_value(info).map_err(|_| unreadable(asked))?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let mut view = View {
        epoch: field("cluster_current_epoch").and_then(|epoch| epoch.trim().parse().ok()).unwrap_or_default(),
        is_ok: field("cluster_state").is_some_and(|state| state.trim() == "ok"),
        ranges: Vec::new(),
        replicas: Vec::new(),
    };
    for entry in slots {
        let Value::Array(entry) = entry else { return Err(unreadable(asked)) };
        let mut entry = entry.into_iter();
        let (Some(Value::Int(first)), Some(Value::Int(last))) = (entry.next(), entry.next()) else {
            return Err(unreadable(asked));
        };
        let mut nodes = entry.filter_map(|node| node_of(cluster, asked, node));
        // Without a master these slots are not served.
        if let (Ok(first), Ok(last), Some(master)) = (first.try_into(), last.try_into(), nodes.next()) {
            view.ranges.push(Range { first, last, master });
        }
        view.replicas.extend(nodes);
    }
    view.ranges.sort_by_key(|range| range.first);
    Ok(view)
}

/// The place of a node of an entry; a host without a name is the one that was asked.
fn node_of(cluster: &Cluster, asked: &Place, node: Value) -> Option<Place> {
    let Value::Array(node) = node else { return None };
    let mut parts = node.into_iter();
    let host: Option<String> = redis::from_redis_value(parts.next()?).ok()?;
    let port: u16 = redis::from_redis_value(parts.next()?).ok()?;
    place_of(cluster, asked, host.as_deref().unwrap_or_default(), port)
}

/// The place that a node names; `None` if it does not know the host, or the port: of a node that takes TLS
/// only, one without `tls-cluster` knows none.
pub(super) fn place_of(cluster: &Cluster, asked: &Place, host: &str, port: u16) -> Option<Place> {
    let host = match (host, asked) {
        _ if port == 0 => return None,
        ("?", _) => return None,
        ("", Place::Tcp { host, .. } | Place::Tls { host, .. }) => host,
        (host, _) => host,
    };
    Some(cluster.place(host.to_owned(), port))
}

fn unreadable(asked: &Place) -> OpenError {
    std::io::Error::other(format!("{asked} describes its cluster in an unknown form")).into()
}

/// Asks this node, within this time.
async fn ask(cluster: &Cluster, node: Server, limit: Duration) -> Result<View, OpenError> {
    let asking = async {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
        let open = OpenConnection::open(&node, config, limit).await?;
        let question = question();
        let answers = open.connection.clone().req_packed_commands(&question, 0, question.len()).await?;
        read(cluster, &node.place, answers)
    };
    tokio::time::timeout(limit, asking).await.map_err(|_| timed_out())?
}

/// The answers of all nodes that are known, as they come.
pub(super) fn ask_all(
    cluster: &Cluster,
    limit: Duration,
) -> FuturesUnordered<impl Future<Output = Result<View, OpenError>>> {
    cluster.known().into_iter().map(|node| ask(cluster, node, limit)).collect()
}

/// The best view of the nodes that answer within this time, or the error of one that does not.
pub(in crate::redis) async fn best(cluster: &Cluster, limit: Duration) -> Result<View, OpenError> {
    let mut answers = ask_all(cluster, limit);
    let (mut best, mut failed): (Option<View>, _) = (None, None);
    let mut until = Instant::now() + limit;
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        match answer {
            Ok(view) if best.as_ref().is_none_or(|best| view.is_better_than(best)) => {
                if view.is_ok && best.is_none() {
                    until = until.min(Instant::now() + OTHERS_LIMIT);
                }
                best = Some(view);
            }
            Ok(_) => {}
            Err(error @ OpenError::NotACluster(_)) => failed = Some(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let best = best.ok_or_else(|| failed.unwrap_or_else(|| timed_out().into()))?;
    cluster.named.store(std::sync::Arc::new(best.nodes()));
    Ok(best)
}

/// The view of one of the nodes that are known; `turn` says which.
pub(in crate::redis) async fn of_one(cluster: &Cluster, turn: usize, limit: Duration) -> Option<View> {
    let known = cluster.known();
    let node = known.get(turn.checked_rem(known.len())?)?;
    ask(cluster, node.clone(), limit).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_address::Address;

    fn cluster() -> Cluster {
        let Ok(Address::Cluster(cluster)) = Address::parse("redis+cluster://a:1") else {
            panic!("a cluster")
        };
        cluster
    }

    fn answers(info: &str, slots: &str) -> Result<View, OpenError> {
        let answers = [format!("${}\r\n{info}\r\n", info.len()), slots.to_owned()];
        let answers = answers.map(|answer| redis::parse_redis_value(answer.as_bytes()).unwrap());
        read(&cluster(), &cluster().seeds[0], answers.to_vec())
    }

    const INFO: &str = "cluster_state:ok\r\ncluster_current_epoch:7\r\n";
    /// Slots 0 to 5 and 9 of a host without a name with a replica; 6 to 7 of an unknown host.
    const SLOTS: &str = "*3\r\n*3\r\n:9\r\n:9\r\n*3\r\n$1\r\nb\r\n:2\r\n$2\r\nid\r\n\
        *4\r\n:0\r\n:5\r\n*3\r\n$0\r\n\r\n:1\r\n$2\r\nid\r\n*3\r\n$1\r\nc\r\n:3\r\n$2\r\nid\r\n\
        *3\r\n:6\r\n:7\r\n*3\r\n$1\r\n?\r\n:4\r\n$2\r\nid\r\n";

    #[test]
    fn a_view_says_which_master_has_a_slot() {
        let view = answers(INFO, SLOTS).unwrap();
        assert_eq!((view.epoch, view.is_ok), (7, true));
        let master = |slot| view.master_of(slot).map(ToString::to_string);
        for (slot, expected) in [(0, Some("a:1")), (5, Some("a:1")), (6, None), (8, None), (9, Some("b:2"))] {
            assert_eq!(master(slot).as_deref(), expected, "{slot}");
        }
        assert_eq!(master(10), None);
        let nodes: Vec<String> = view.nodes().iter().map(ToString::to_string).collect();
        assert_eq!(nodes, ["a:1", "b:2", "c:3"]);
    }

    #[test]
    fn a_node_without_a_port_is_unknown() {
        let slots = "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$1\r\nb\r\n:0\r\n$2\r\nid\r\n";
        let view = answers(INFO, slots).unwrap();
        assert_eq!((view.master_of(0), view.nodes()), (None, Vec::new()));
    }

    #[test]
    fn of_two_views_the_later_one_of_a_cluster_that_works_is_believed() {
        let view = |epoch, is_ok| View { epoch, is_ok, ranges: Vec::new(), replicas: Vec::new() };
        assert!(view(8, true).is_better_than(&view(7, true)));
        assert!(view(7, true).is_better_than(&view(8, false)));
        assert!(!view(7, true).is_better_than(&view(7, true)));
    }

    #[test]
    fn a_server_that_is_no_node_says_so() {
        let refused = "-ERR This instance has cluster support disabled\r\n";
        let refused = vec![redis::parse_redis_value(refused.as_bytes()).unwrap(); 2];
        let error = read(&cluster(), &cluster().seeds[0], refused).unwrap_err();
        assert!(matches!(error, OpenError::NotACluster(_)), "{error}");
        assert!(answers(INFO, "+OK\r\n").is_err());
    }
}
