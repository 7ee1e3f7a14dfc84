//! What is known of the flags, and what follows from it for each. Of what is said at the same time, this counts first: by
//! hand, in both directions; then what an overload switches off; then the remote service; then the code.

use std::{array, sync::Arc};

use data::flags::Override;
use time::OffsetDateTime;
use tokio::time::{Duration, Instant};

use super::list::Flag;

/// How many flags there are.
pub(super) const COUNT: usize = Flag::ALL.len();

/// How well a source is known, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Knowledge {
    /// Nothing was ever heard of it.
    None,
    /// What the copy on disk said when the process started.
    Copied,
    /// Nothing was heard of it lately.
    Stale,
    Current,
}

/// Why a flag is as it is, by the names of OpenFeature and one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody says otherwise than the code.
    Default,
    /// Somebody says so.
    Static,
    /// An overload has switched it off.
    Brownout,
    /// It was so when the process ended the last time.
    Cached,
    /// It was so when that could last be found out.
    Stale,
    /// It was never to be found out; this is the code's default.
    Error,
}

impl Reason {
    pub const ALL: [Self; 6] = [
        Self::Default,
        Self::Static,
        Self::Brownout,
        Self::Cached,
        Self::Stale,
        Self::Error,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "DEFAULT",
            Self::Static => "STATIC",
            Self::Brownout => "BROWNOUT",
            Self::Cached => "CACHED",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}

/// Who decides a flag at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Operator,
    Brownout,
    Remote,
    Code,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Brownout => "brownout",
            Self::Remote => "remote",
            Self::Code => "code",
        }
    }
}

/// A flag that is set by hand.
#[derive(Clone, Debug)]
pub struct ByHand {
    pub value: bool,
    pub reason: String,
    pub changed_by: String,
    pub changed_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    /// The same on this process's clock.
    pub(super) until: Instant,
}

impl ByHand {
    /// As it is at `now`.
    pub(super) fn of(set: Override, now: Instant) -> Option<Self> {
        let left = Duration::try_from_secs_f64(set.left_s).ok()?;
        Some(Self {
            value: set.value,
            reason: set.reason,
            changed_by: set.changed_by,
            changed_at: set.changed_at,
            expires_at: set.expires_at,
            until: now + left,
        })
    }
}

/// What one flag is.
#[derive(Clone, Debug)]
pub struct Standing {
    pub is_on: bool,
    pub reason: Reason,
    pub origin: Origin,
}

/// Everything that is known. Replaced as a whole, so that no evaluation sees parts of two.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) by_hand: [Option<Arc<ByHand>>; COUNT],
    pub(super) remote: [Option<bool>; COUNT],
    /// How many steps of [`Flag::BROWNOUT`] are taken.
    pub(super) level: usize,
    /// How well it is known what is set by hand.
    pub(super) store: Knowledge,
    /// How well it is known what the remote service says. None: there is no such service.
    pub(super) service: Option<Knowledge>,
}

impl State {
    pub(super) fn new(has_service: bool) -> Self {
        Self {
            by_hand: array::from_fn(|_| None),
            remote: [None; COUNT],
            level: 0,
            store: Knowledge::None,
            service: has_service.then_some(Knowledge::None),
        }
    }

    /// What the flag is set to by hand, unless that is over.
    pub(super) fn by_hand(&self, flag: Flag) -> Option<&ByHand> {
        let by_hand = self.by_hand[flag as usize].as_deref();
        by_hand.filter(|set| Instant::now() < set.until)
    }

    /// Allocates nothing, and looks at the clock only where something is set by hand.
    pub(super) fn standing(&self, flag: Flag) -> Standing {
        let (is_on, origin) = if let Some(set) = self.by_hand(flag) {
            (set.value, Origin::Operator)
        } else if Flag::BROWNOUT[..self.level].contains(&flag) {
            (false, Origin::Brownout)
        } else if let Some(is_on) = self.remote[flag as usize] {
            (is_on, Origin::Remote)
        } else {
            (flag.declared().default, Origin::Code)
        };
        Standing {
            is_on,
            reason: self.reason(origin),
            origin,
        }
    }

    /// Not knowing what is set by hand, or what the service says, is said of every flag that the load does not decide.
    fn reason(&self, origin: Origin) -> Reason {
        let known = self.store.min(self.service.unwrap_or(Knowledge::Current));
        match (origin, known) {
            (Origin::Brownout, _) => Reason::Brownout,
            (_, Knowledge::None) => Reason::Error,
            (_, Knowledge::Copied) => Reason::Cached,
            (_, Knowledge::Stale) => Reason::Stale,
            (Origin::Code, Knowledge::Current) => Reason::Default,
            (Origin::Operator | Origin::Remote, Knowledge::Current) => Reason::Static,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: Flag = Flag::BROWNOUT[0];

    fn known() -> State {
        State {
            store: Knowledge::Current,
            ..State::new(false)
        }
    }

    fn by_hand(value: bool) -> Option<Arc<ByHand>> {
        let now = OffsetDateTime::UNIX_EPOCH;
        Some(Arc::new(ByHand {
            value,
            reason: "r".to_owned(),
            changed_by: "c".to_owned(),
            changed_at: now,
            expires_at: now,
            until: Instant::now() + Duration::from_secs(10),
        }))
    }

    fn of(state: &State) -> (bool, Reason, Origin) {
        let standing = state.standing(FLAG);
        (standing.is_on, standing.reason, standing.origin)
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_comes_before_the_load_that_before_the_service_and_that_before_the_code() {
        let mut state = known();
        assert_eq!(of(&state), (true, Reason::Default, Origin::Code));

        state.remote[FLAG as usize] = Some(false);
        assert_eq!(of(&state), (false, Reason::Static, Origin::Remote));

        state.remote[FLAG as usize] = Some(true);
        state.level = 1;
        assert_eq!(of(&state), (false, Reason::Brownout, Origin::Brownout));

        for value in [true, false] {
            state.by_hand[FLAG as usize] = by_hand(value);
            assert_eq!(of(&state), (value, Reason::Static, Origin::Operator));
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(of(&state), (false, Reason::Brownout, Origin::Brownout));
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_of_the_brownout_switches_off_one_flag_more_in_the_order_of_the_list() {
        for level in 0..=Flag::BROWNOUT.len() {
            let state = State { level, ..known() };
            let is_off = |flag: &Flag| !state.standing(*flag).is_on;
            let off = Flag::ALL.into_iter().filter(is_off).count();
            assert_eq!(off, level);
            assert!(Flag::BROWNOUT[..level].iter().all(is_off));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_is_said_of_every_flag_that_the_load_does_not_decide() {
        for (store, service, reason) in [
            (Knowledge::None, None, Reason::Error),
            (Knowledge::Copied, None, Reason::Cached),
            (Knowledge::Stale, None, Reason::Stale),
            (Knowledge::Current, None, Reason::Default),
            (Knowledge::Current, Some(Knowledge::None), Reason::Error),
            (Knowledge::Copied, Some(Knowledge::Stale), Reason::Cached),
            (
                Knowledge::Current,
                Some(Knowledge::Current),
                Reason::Default,
            ),
        ] {
            let mut state = State {
                store,
                service,
                ..known()
            };
            assert_eq!(of(&state).1, reason, "{store:?} {service:?}");
            state.level = 1;
            assert_eq!(of(&state).1, Reason::Brownout);
        }
    }
}
