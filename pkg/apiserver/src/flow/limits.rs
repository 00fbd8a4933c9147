//! What priority levels are configured to allow.

use serde_json::Value;

use super::demand::Bounds;

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug)]
pub struct Limits {
    pub name: String,
    pub uid: String,
    pub exempt: bool,
    pub bounds: Bounds,
    /// Number of queues, queues per flow, places per queue; `None` to reject at once.
    pub queuing: Option<(usize, usize, usize)>,
}

impl Default for Limits {
    fn default() -> Self {
        let bounds = Bounds { nominal: 600.0, least: 600.0, most: 600.0 };
        Self { name: String::new(), uid: String::new(), exempt: false, bounds, queuing: Some((64, 8, 50)) }
    }
}

/// The part of the server that a level asks for.
pub fn shares(config: &Value) -> u64 {
    let kind = if config["spec"]["type"] == "Exempt" { "exempt" } else { "limited" };
    let default = if kind == "exempt" { 0 } else { 30 };
    config["spec"][kind]["nominalConcurrencyShares"].as_u64().unwrap_or(default)
}

impl Limits {
    /// `total` seats are shared among levels that ask for `sum` shares.
    pub fn parse(config: &Value, total: u64, sum: u64) -> Self {
        let exempt = config["spec"]["type"] == "Exempt";
        let spec = &config["spec"][if exempt { "exempt" } else { "limited" }];
        let response = &spec["limitResponse"];
        let queuing = &response["queuing"];
        let number = |key: &str, or: u64| usize::try_from(queuing[key].as_u64().unwrap_or(or)).unwrap_or(1).max(1);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nominal = total.saturating_mul(shares(config)).div_ceil(sum) as f64;
        let part = |percent: &Value| percent.as_f64().map(|percent| (nominal * percent / 100.0).round());
        Self {
            name: text(&config["metadata"]["name"]),
            uid: text(&config["metadata"]["uid"]),
            exempt,
            bounds: Bounds {
                nominal,
                least: nominal - part(&spec["lendablePercent"]).unwrap_or(0.0),
                most: nominal + part(&spec["borrowingLimitPercent"]).unwrap_or(f64::INFINITY),
            },
            queuing: (response["type"] == "Queue")
                .then(|| (number("queues", 64), number("handSize", 8), number("queueLengthLimit", 50))),
        }
    }
}
