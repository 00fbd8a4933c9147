//! Shuffle sharding: which of a level's queues a flow may use.

use smallvec::SmallVec;

/// The queues of a flow: `hand` different ones out of `queues`, decided by the flow's hash.
/// The time and memory it takes grow with the hand alone.
pub fn deal(flow: u64, queues: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut entropy = flow;
    // The deck would be long: only cards that are not where they began are known.
    let mut moved: SmallVec<[(usize, usize); 8]> = SmallVec::new();
    (0..hand.min(queues)).map(move |dealt| {
        let left = queues - dealt;
        let at = usize::try_from(entropy % left as u64).unwrap_or(0);
        entropy = (entropy / left as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ flow;
        let card = |at: usize| moved.iter().rev().find(|(place, _)| *place == at).map_or(at, |(_, card)| *card);
        let (taken, last) = (card(at), card(left - 1));
        moved.push((at, last));
        taken
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_different_cards_and_a_flow_always_the_same_ones() {
        for (queues, hand) in [(1, 1), (2, 2), (64, 8), (64, 64), (10_000_000, 2)] {
            for flow in (0..200).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let cards: Vec<usize> = deal(flow, queues, hand).collect();
                let mut different = cards.clone();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), hand, "{queues} {hand}: {cards:?}");
                assert!(cards.iter().all(|card| *card < queues), "{cards:?}");
                assert_eq!(cards, deal(flow, queues, hand).collect::<Vec<_>>());
            }
        }
    }
}
