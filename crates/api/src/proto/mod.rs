//! The messages and services of `crates/api/proto`, in Rust. Written by `make proto`; clients may copy the folder.

pub mod catalog {
    #[allow(clippy::too_many_lines, reason = "generated")]
    pub mod v1;
}

pub mod orders {
    #[allow(clippy::too_many_lines, reason = "generated")]
    pub mod v1;
}

/// What reflection tells of all of it.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use prometheus_client::registry::Registry;
    use prost::Message;
    use prost_types::FileDescriptorSet;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{features, settings::Settings, state::AppState};

    #[test]
    fn what_is_checked_in_was_made_of_the_protos() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let sums = include_str!("SHA256SUMS");

        let stale: Vec<_> = sums
            .lines()
            .filter_map(|line| line.split_once("  "))
            .filter(|(sum, path)| {
                let bytes = fs::read(root.join(path)).unwrap_or_default();
                let digest = Sha256::digest(bytes);
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                *sum != digest
            })
            .collect();

        println!("{} files", sums.lines().count());
        assert!(stale.is_empty(), "run `make proto`: {stale:?}");
        assert!(sums.lines().count() >= 4, "{sums}");
    }

    #[tokio::test]
    async fn every_method_of_a_service_is_in_the_list_of_its_feature() {
        let descriptors = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut described = BTreeSet::new();
        for file in &descriptors.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    described.insert(path);
                }
            }
        }
        let state = AppState::new(&Settings::default(), &mut Registry::default()).unwrap();

        let rpcs = features::rpcs(&state);
        let listed: BTreeSet<_> = rpcs.list.into_iter().map(|rpc| rpc.path).collect();

        println!("{listed:?}");
        assert_eq!(listed, described);
    }
}
