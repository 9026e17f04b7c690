//! The operator's own metrics, as Prometheus text: what it saw, what it did, how long it took.
//!
//! A few families of counters, gauges and one histogram, kept in ordered maps; the label values are
//! namespaces, names and words of our own vocabulary, so that their number is bounded by the fleet's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the buckets of round durations, milliseconds.
const ROUND_BUCKETS_MS: [u64; 8] = [5, 20, 50, 100, 250, 500, 1000, 5000];

/// All metrics of one operator process.
#[derive(Debug, Default)]
pub struct Metrics {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    leader: bool,
    rounds: BTreeMap<&'static str, u64>,
    round_buckets: [u64; ROUND_BUCKETS_MS.len()],
    round_count: u64,
    round_sum_ms: u64,
    steps: BTreeMap<(String, &'static str), u64>,
    writes: BTreeMap<&'static str, u64>,
    clusters: BTreeMap<(String, String), Cluster>,
}

/// What one cluster looks like in the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub ready: bool,
    pub degraded: bool,
    pub shards: u64,
    pub members_wanted: u64,
    pub members_ready: u64,
    pub epoch: u64,
    pub moves: u64,
    pub failovers: u64,
    pub dropped_writes: u64,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It looked, and did what was to be done.
    Done,
    /// A step, a read or a write failed; the next round tries again.
    Failed,
    /// The manifest is not understood.
    Invalid,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        }
    }
}

impl Metrics {
    /// Notes whether this process leads.
    pub fn leader(&self, leads: bool) {
        self.with(|m| m.leader = leads);
    }

    /// Notes one round and how long it took.
    pub fn round(&self, outcome: Outcome, duration_ms: u64) {
        self.with(|m| {
            *m.rounds.entry(outcome.as_str()).or_default() += 1;
            m.round_count += 1;
            m.round_sum_ms += duration_ms;
            for (bucket, bound) in m.round_buckets.iter_mut().zip(ROUND_BUCKETS_MS) {
                *bucket += u64::from(duration_ms <= bound);
            }
        });
    }

    /// Notes one step of a plan.
    pub fn step(&self, rule: &str, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.with(|m| *m.steps.entry((rule.to_owned(), outcome)).or_default() += 1);
    }

    /// Notes one write to the API server.
    pub fn write(&self, kind: &'static str) {
        self.with(|m| *m.writes.entry(kind).or_default() += 1);
    }

    /// Notes what a cluster looks like now.
    pub fn cluster(&self, namespace: &str, name: &str, cluster: Cluster) {
        self.with(|m| {
            m.clusters.insert((namespace.to_owned(), name.to_owned()), cluster);
        });
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.with(|m| {
            m.clusters.remove(&(namespace.to_owned(), name.to_owned()));
        });
    }

    /// Everything, in the text format of Prometheus (version 0.0.4).
    pub fn text(&self) -> String {
        self.with(|m| m.text())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        // Numbers stay numbers when a thread that held them panicked.
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn text(&self) -> String {
        let mut out = String::new();
        head(&mut out, "larder_operator_leader", "gauge", "Whether this process leads.");
        line(&mut out, "larder_operator_leader", &[], u64::from(self.leader));

        head(&mut out, "larder_operator_rounds_total", "counter", "Rounds by how they ended.");
        for (outcome, count) in &self.rounds {
            line(&mut out, "larder_operator_rounds_total", &[("outcome", outcome)], *count);
        }
        let name = "larder_operator_round_duration_seconds";
        head(&mut out, name, "histogram", "How long a round took.");
        for (count, bound) in self.round_buckets.iter().zip(ROUND_BUCKETS_MS) {
            let bound = seconds(bound);
            line(&mut out, &format!("{name}_bucket"), &[("le", &bound)], *count);
        }
        line(&mut out, &format!("{name}_bucket"), &[("le", "+Inf")], self.round_count);
        let _ = writeln!(out, "{name}_sum {}", seconds(self.round_sum_ms));
        line(&mut out, &format!("{name}_count"), &[], self.round_count);

        head(&mut out, "larder_operator_steps_total", "counter", "Steps by rule and outcome.");
        for ((rule, outcome), count) in &self.steps {
            let labels = [("rule", rule.as_str()), ("outcome", outcome)];
            line(&mut out, "larder_operator_steps_total", &labels, *count);
        }
        let name = "larder_operator_api_writes_total";
        head(&mut out, name, "counter", "Writes to the API server by kind.");
        for (kind, count) in &self.writes {
            line(&mut out, name, &[("kind", kind)], *count);
        }
        self.clusters_text(&mut out);
        out
    }

    fn clusters_text(&self, out: &mut String) {
        type Read = fn(&Cluster) -> u64;
        let families: [(&str, &str, &str, Read); 9] = [
            ("larder_cluster_ready", "gauge", "Whether every shard serves.", |c| {
                u64::from(c.ready)
            }),
            ("larder_cluster_degraded", "gauge", "Whether something is missing or broken.", |c| {
                u64::from(c.degraded)
            }),
            ("larder_cluster_shards", "gauge", "Shards wanted.", |c| c.shards),
            ("larder_cluster_members_wanted", "gauge", "Members wanted.", |c| c.members_wanted),
            ("larder_cluster_members_ready", "gauge", "Members ready.", |c| c.members_ready),
            ("larder_cluster_epoch", "gauge", "Version of the topology.", |c| c.epoch),
            ("larder_cluster_moves", "gauge", "Moves of slots under way.", |c| c.moves),
            ("larder_cluster_failovers", "gauge", "Failovers that the status remembers.", |c| {
                c.failovers
            }),
            (
                "larder_cluster_dropped_writes",
                "gauge",
                "Acknowledged writes that those failovers dropped.",
                |c| c.dropped_writes,
            ),
        ];
        for (name, kind, help, read) in families {
            head(out, name, kind, help);
            for ((namespace, cluster), numbers) in &self.clusters {
                let labels = [("namespace", namespace.as_str()), ("cluster", cluster.as_str())];
                line(out, name, &labels, read(numbers));
            }
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    out.push_str(name);
    for (i, (label, text)) in labels.iter().enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{label}=\"{text}\"");
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_type_for_each_family_and_a_line_for_each_value() {
        let metrics = Metrics::default();
        metrics.leader(true);
        metrics.round(Outcome::Done, 30);
        metrics.round(Outcome::Failed, 7000);
        metrics.step("ReplaceMember", true);
        metrics.write("Pod");
        metrics.cluster("a", "demo", Cluster { ready: true, shards: 3, ..Cluster::default() });
        metrics.cluster("a", "gone", Cluster::default());
        metrics.forget("a", "gone");
        let text = metrics.text();
        for expected in [
            "larder_operator_leader 1\n",
            "larder_operator_rounds_total{outcome=\"failed\"} 1\n",
            "larder_operator_round_duration_seconds_bucket{le=\"0.020\"} 0\n",
            "larder_operator_round_duration_seconds_bucket{le=\"0.050\"} 1\n",
            "larder_operator_round_duration_seconds_bucket{le=\"+Inf\"} 2\n",
            "larder_operator_round_duration_seconds_sum 7.030\n",
            "larder_operator_steps_total{rule=\"ReplaceMember\",outcome=\"done\"} 1\n",
            "larder_operator_api_writes_total{kind=\"Pod\"} 1\n",
            "larder_cluster_shards{namespace=\"a\",cluster=\"demo\"} 3\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("gone"));
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|s| name.strip_suffix(s))
                .unwrap_or(name);
            assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        line(&mut out, "m", &[("l", "a\"b\\c\nd")], 1);
        assert_eq!(out, "m{l=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
