//! What the process last knew of the flags, in a file of its own, so that it starts with it while nobody can be asked. The file
//! is replaced as a whole: a process that is killed while it writes leaves the one before.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::{
    fs,
    io::AsyncWriteExt,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    list::Flag,
    state::{ByHand, Knowledge, State},
};

/// Bytes of a copy that are read. One holds a few hundred for each flag.
const BYTES_MAX: u64 = 256 * 1024;

/// The copies of one process, each in the place of the one before.
pub(super) struct Copies {
    path: PathBuf,
    /// What the file holds, as far as this process knows.
    written: Mutex<String>,
}

/// One copy. Flags by their names: the next release may have others.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Copy {
    by_hand: BTreeMap<String, Kept>,
    /// Nothing was ever heard of the remote service, or there is none.
    remote: Option<BTreeMap<String, bool>>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    value: bool,
    reason: String,
    changed_by: String,
    #[serde(with = "time::serde::rfc3339")]
    changed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

impl Copies {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            written: Mutex::default(),
        }
    }

    /// The last copy. None where there is none that can be understood.
    pub(super) fn read(&self) -> Option<Copy> {
        let read = read(&self.path).and_then(|text| Ok(serde_json::from_str(&text)?));
        match read {
            Ok(copy) => Some(copy),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the copy of the flags cannot be used");
                None
            }
        }
    }

    /// Keeps `copy`, if it is another than the last one.
    pub(super) async fn write(&self, copy: &Copy) -> io::Result<()> {
        let text = serde_json::to_string_pretty(copy)?;
        let mut written = self.written.lock().await;
        if *written == text {
            return Ok(());
        }
        let beside = self.path.with_extension("new");
        let mut file = fs::File::create(&beside).await?;
        file.write_all(text.as_bytes()).await?;
        // Renamed before its content is on disk, a machine that fails would leave an empty one.
        file.sync_all().await?;
        fs::rename(&beside, &self.path).await?;
        *written = text;
        Ok(())
    }
}

/// Only a plain file: reading anything else might never end.
fn read(path: &Path) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(path)?
        .take(BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

impl Copy {
    pub(super) fn of(state: &State) -> Self {
        let kept = |flag: Flag| {
            let set = state.by_hand(flag)?;
            let kept = Kept {
                value: set.value,
                reason: set.reason.clone(),
                changed_by: set.changed_by.clone(),
                changed_at: set.changed_at,
                expires_at: set.expires_at,
            };
            Some((flag.name().to_owned(), kept))
        };
        let remote = |flag: Flag| Some((flag.name().to_owned(), state.remote[flag as usize]?));
        let is_known = state.service.is_some_and(|known| known > Knowledge::None);
        Self {
            by_hand: Flag::ALL.into_iter().filter_map(kept).collect(),
            remote: is_known.then(|| Flag::ALL.into_iter().filter_map(remote).collect()),
        }
    }

    /// Takes over what has not expired, by this machine's clock: there is no other yet.
    pub(super) fn apply_to(self, state: &mut State) {
        let (now, wall) = (Instant::now(), OffsetDateTime::now_utc());
        state.store = Knowledge::Copied;
        for (name, kept) in self.by_hand {
            let left = Duration::try_from(kept.expires_at - wall);
            let (Some(flag), Ok(left)) = (Flag::named(&name), left) else {
                continue;
            };
            state.by_hand[flag as usize] = Some(Arc::new(ByHand {
                value: kept.value,
                reason: kept.reason,
                changed_by: kept.changed_by,
                changed_at: kept.changed_at,
                expires_at: kept.expires_at,
                until: now + left,
            }));
        }
        if let (Some(service), Some(remote)) = (&mut state.service, self.remote) {
            *service = Knowledge::Copied;
            for (name, is_on) in remote {
                if let Some(flag) = Flag::named(&name) {
                    state.remote[flag as usize] = Some(is_on);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::state::COUNT, *};

    /// A path in a folder of its own, removed with this value.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("holdfast-flags-{:x}", fastrand::u64(..));
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn copies(&self) -> Copies {
            Copies::new(self.0.join("flags.json"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn set(ends_in: time::Duration) -> Arc<ByHand> {
        let now = OffsetDateTime::now_utc();
        Arc::new(ByHand {
            value: false,
            reason: "ill".to_owned(),
            changed_by: "Ann".to_owned(),
            changed_at: now,
            expires_at: now + ends_in,
            until: Instant::now() + Duration::from_secs(3600),
        })
    }

    fn read(copies: &Copies, has_service: bool) -> State {
        let mut state = State::new(has_service);
        copies.read().unwrap().apply_to(&mut state);
        state
    }

    #[tokio::test]
    async fn what_was_known_is_known_again_but_for_what_has_ended_meanwhile() {
        let folder = Folder::new();
        let mut state = State::new(true);
        state.by_hand[0] = Some(set(time::Duration::HOUR));
        state.by_hand[1] = Some(set(-time::Duration::SECOND));
        state.remote[1] = Some(false);
        state.service = Some(Knowledge::Current);

        folder.copies().write(&Copy::of(&state)).await.unwrap();
        let found = read(&folder.copies(), true);
        let without_service = read(&folder.copies(), false);

        let [kept, ended, ..] = &found.by_hand;
        assert_eq!(kept.as_ref().unwrap().reason, "ill");
        assert!(ended.is_none(), "{ended:?}");
        assert_eq!(found.remote, state.remote);
        assert_eq!(
            (found.store, found.service),
            (Knowledge::Copied, Some(Knowledge::Copied))
        );
        assert_eq!(
            (without_service.remote, without_service.service),
            ([None; COUNT], None)
        );
    }

    #[tokio::test]
    async fn what_is_no_copy_is_none() {
        let folder = Folder::new();
        let copies = folder.copies();
        copies.write(&Copy::of(&State::new(false))).await.unwrap();
        let whole = std::fs::read_to_string(&copies.path).unwrap();

        let endless = vec![b' '; 2 * BYTES_MAX as usize];
        for bytes in [
            &b""[..],
            &[0xff; 64],
            b"[]",
            &whole.as_bytes()[..whole.len() / 2],
            &endless,
        ] {
            std::fs::write(&copies.path, bytes).unwrap();
            assert!(
                copies.read().is_none(),
                "{:?}",
                &bytes[..bytes.len().min(64)]
            );
        }
        std::fs::remove_file(&copies.path).unwrap();
        assert!(copies.read().is_none(), "no file");
        std::fs::create_dir(&copies.path).unwrap();
        assert!(copies.read().is_none(), "a folder");
    }

    #[tokio::test]
    async fn a_file_that_was_begun_and_not_finished_leaves_the_one_before() {
        let folder = Folder::new();
        let mut state = State::new(false);
        state.by_hand[0] = Some(set(time::Duration::HOUR));
        folder.copies().write(&Copy::of(&state)).await.unwrap();
        std::fs::write(folder.0.join("flags.new"), "{").unwrap();

        assert!(read(&folder.copies(), false).by_hand[0].is_some());
        folder
            .copies()
            .write(&Copy::of(&State::new(false)))
            .await
            .unwrap();
        assert!(read(&folder.copies(), false).by_hand[0].is_none());
    }
}
