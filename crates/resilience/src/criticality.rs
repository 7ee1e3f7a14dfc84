//! How much it matters that a piece of work is done.

use serde::{Deserialize, Serialize};

/// The four levels of Google's "Site Reliability Engineering" (chapter 21), least critical first, so that they compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// May fail often: analytics, prefetching.
    Sheddable,
    /// May fail now and then; a person may try again.
    SheddablePlus,
    /// Fails only when there is no other way. What most work is.
    Critical,
    /// The last to fail: money.
    CriticalPlus,
}

impl Criticality {
    /// All of them, least critical first.
    pub const ALL: [Self; 4] = [
        Self::Sheddable,
        Self::SheddablePlus,
        Self::Critical,
        Self::CriticalPlus,
    ];

    /// Its name in headers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}
