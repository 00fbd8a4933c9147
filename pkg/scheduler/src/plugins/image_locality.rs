//! ImageLocality.

use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{MAX_SCORE, Plugin, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// Image sizes between which the score grows.
const SIZE_MIN: i64 = 23 << 20;
const SIZE_MAX_PER_CONTAINER: i64 = 1000 << 20;

/// Prefers nodes that have the pod's images, weighed by size and by how common each image is.
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn events(&self) -> Events {
        Events::NONE
    }

    #[allow(clippy::cast_precision_loss)]
    fn score(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let spec = &pod.spec;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let images: Vec<String> = containers.filter_map(|c| c.image.as_deref()).map(normalized).collect();
        let total = snapshot.nodes.len().max(1);
        let images: Vec<(String, f64)> = images
            .into_iter()
            .map(|image| {
                let having = snapshot.nodes.iter().filter(|n| n.images.contains_key(&image)).count();
                (image, having as f64 / total as f64)
            })
            .filter(|(_, spread)| *spread > 0.0)
            .collect();
        let containers = i64::try_from(spec.containers.len()).unwrap_or(1).max(1);
        (!images.is_empty()).then(|| (Box::new(Images { images, containers }) as Box<dyn Score>, 1))
    }
}

/// The name with the tag that is implied when there is none.
fn normalized(image: &str) -> String {
    let tagged = image.rfind(':').is_some_and(|colon| image.rfind('/').is_none_or(|slash| colon > slash));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}

struct Images {
    /// With the share of nodes that have it.
    images: Vec<(String, f64)>,
    containers: i64,
}

impl Score for Images {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn score(&self, node: &NodeInfo) -> i64 {
        let size = |(image, spread): &(String, f64)| node.images.get(image).map_or(0, |s| (*s as f64 * spread) as i64);
        let max = SIZE_MAX_PER_CONTAINER * self.containers;
        let sum = self.images.iter().map(size).sum::<i64>().clamp(SIZE_MIN, max);
        MAX_SCORE * (sum - SIZE_MIN) / (max - SIZE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untagged_images_mean_latest() {
        assert_eq!(normalized("nginx"), "nginx:latest");
        assert_eq!(normalized("host:5000/nginx"), "host:5000/nginx:latest");
        assert_eq!(normalized("host:5000/nginx:1"), "host:5000/nginx:1");
    }
}
