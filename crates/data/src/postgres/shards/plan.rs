//! Which buckets to move so that every cluster has its fair share.

use super::{Bucket, Buckets};

/// The moves that give `target` its fair share of the buckets: `holders` says by number which of `clusters` has each, as a
/// position. They come from whoever has most, and nothing moves between the others.
pub fn plan(holders: &[usize], clusters: usize, target: usize) -> Vec<(usize, Buckets)> {
    let mut held: Vec<Vec<Bucket>> = vec![Vec::new(); clusters];
    for (bucket, holder) in Bucket::all().zip(holders) {
        held[*holder].push(bucket);
    }
    let share = Bucket::COUNT / clusters.max(1);
    let mut moves: Vec<Vec<Bucket>> = vec![Vec::new(); clusters];
    let mut has = held[target].len();
    while has < share {
        let richest = (0..clusters)
            .filter(|cluster| *cluster != target)
            .max_by_key(|cluster| held[*cluster].len());
        // From its end, so that what moves are neighbours, and one move carries many.
        let Some((source, bucket)) =
            richest.and_then(|richest| Some((richest, held[richest].pop()?)))
        else {
            break;
        };
        moves[source].push(bucket);
        has += 1;
    }
    let moves = moves.into_iter().enumerate();
    moves
        .filter(|(_, buckets)| !buckets.is_empty())
        .map(|(source, buckets)| (source, buckets.into_iter().collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_gets_its_share_and_nothing_moves_between_the_old_ones() {
        let mut holders = vec![0; Bucket::COUNT];
        for clusters in 2..=20 {
            let target = clusters - 1;

            let moves = plan(&holders, clusters, target);

            let moved: usize = moves.iter().map(|(_, buckets)| buckets.len()).sum();
            assert!(moved <= Bucket::COUNT.div_ceil(clusters), "{moved}");
            assert!(moves.iter().all(|(source, _)| *source != target));
            for (source, buckets) in &moves {
                for bucket in buckets.iter() {
                    assert_eq!(holders[bucket.index()], *source);
                    holders[bucket.index()] = target;
                }
            }
            let counts = (0..clusters)
                .map(|cluster| holders.iter().filter(|holder| **holder == cluster).count());
            let (least, most) = (counts.clone().min().unwrap(), counts.max().unwrap());
            assert!(most - least <= clusters, "{clusters}: {least} to {most}");
        }
    }

    #[test]
    fn a_cluster_with_its_share_gets_nothing() {
        let holders: Vec<usize> = (0..Bucket::COUNT).map(|bucket| bucket % 2).collect();

        assert_eq!(plan(&holders, 2, 1), []);
    }
}
