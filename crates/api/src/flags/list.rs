//! Every flag there is: what it switches, who answers for it, and until when. The list uses nothing of the service, because
//! `tests/walls.rs` reads it as well, and fails `make lint` when a flag has outlived its date.

use time::{Date, macros::date};

/// A switch in the code, asked for by [`super::Flags::is_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Events,
    Recommendations,
    OrderProducts,
}

/// What is written down of a flag.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Its name everywhere outside the code.
    pub name: &'static str,
    /// Who is asked about it.
    pub owner: &'static str,
    /// Whether it is on while nobody says otherwise.
    pub default: bool,
    /// When it has to be gone from the code, or looked at again and given another date.
    pub expires: Date,
    /// What clients are without while it is off.
    pub switches: &'static str,
}

impl Flag {
    pub const ALL: [Self; 3] = [Self::Events, Self::Recommendations, Self::OrderProducts];

    /// What an overload switches off, one after the other in this order. Never here: search, orders and sessions, which are
    /// what a customer came for.
    pub const BROWNOUT: [Self; 3] = [Self::Events, Self::Recommendations, Self::OrderProducts];

    pub const fn declared(self) -> Declared {
        match self {
            Self::Events => Declared {
                name: "events",
                owner: "analytics",
                default: true,
                expires: date!(2027 - 11 - 30),
                switches: "what they tell for analytics; it is taken and not kept",
            },
            Self::Recommendations => Declared {
                name: "recommendations",
                owner: "catalogue",
                default: true,
                expires: date!(2027 - 11 - 30),
                switches: "what goes well with a product; the list is empty, and nobody is asked",
            },
            Self::OrderProducts => Declared {
                name: "order_products",
                owner: "orders",
                default: true,
                expires: date!(2027 - 11 - 30),
                switches: "`include=products` of orders; they come as they were ordered",
            },
        }
    }

    pub fn name(self) -> &'static str {
        self.declared().name
    }

    /// The flag of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.name() == name)
    }
}

/// One sentence for each flag whose date has passed.
pub fn outlived(flags: impl IntoIterator<Item = Declared>, today: Date) -> Vec<String> {
    let flags = flags.into_iter().filter(|flag| flag.expires < today);
    let sentence = |flag: Declared| {
        let Declared {
            name,
            owner,
            expires,
            ..
        } = flag;
        format!(
            "the flag `{name}` of {owner} has outlived {expires}: remove it, or give it another date"
        )
    };
    flags.map(sentence).collect()
}
