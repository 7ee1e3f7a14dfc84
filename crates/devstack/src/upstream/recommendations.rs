//! The products asked about last. Whoever asks about one is recommended the others, so the sandbox need not know the
//! catalogue, and still names only what is in it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Products that are remembered, and the bytes of a name that is.
const ASKED_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 64;
/// Products in one answer.
const OTHERS_MAX: usize = 5;

/// The latest first, each once.
#[derive(Default)]
pub(super) struct Asked(Mutex<VecDeque<String>>);

impl Asked {
    /// The others, and from now on this one too.
    pub(super) fn others(&self, product_id: String) -> Vec<String> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|other| *other != product_id);
        let others = asked.iter().take(OTHERS_MAX).cloned().collect();
        if product_id.len() <= NAME_BYTES_MAX {
            asked.push_front(product_id);
            asked.truncate(ASKED_MAX);
        }
        others
    }
}
