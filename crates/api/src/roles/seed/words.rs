//! What the made-up catalogue is made of.

/// A category and what is sold in it.
pub struct Section {
    pub category: &'static str,
    /// Begins the sku.
    pub prefix: &'static str,
    pub materials: &'static [&'static str],
    /// What it is, and what it usually costs in cents.
    pub nouns: &'static [(&'static str, i64)],
}

pub const SECTIONS: &[Section] = &[
    Section {
        category: "kitchen",
        prefix: "KIT",
        materials: &["Steel", "Cast Iron", "Copper", "Beech", "Stoneware", "Glass", "Enamel"],
        nouns: &[
            ("Saucepan", 3900),
            ("Chef's Knife", 5900),
            ("Teapot", 2900),
            ("Cutting Board", 2400),
            ("Colander", 1900),
            ("Pepper Mill", 2700),
            ("Casserole", 7900),
        ],
    },
    Section {
        category: "garden",
        prefix: "GAR",
        materials: &["Steel", "Ash", "Terracotta", "Zinc", "Bamboo", "Rubber"],
        nouns: &[
            ("Spade", 3400),
            ("Watering Can", 2200),
            ("Pruning Shears", 2900),
            ("Plant Pot", 900),
            ("Rake", 2600),
            ("Bird Feeder", 1800),
            ("Trellis", 3100),
        ],
    },
    Section {
        category: "tools",
        prefix: "TOO",
        materials: &["Steel", "Chrome Vanadium", "Hickory", "Fibreglass", "Carbide"],
        nouns: &[
            ("Hammer", 2400),
            ("Screwdriver Set", 3200),
            ("Hand Saw", 2100),
            ("Spirit Level", 2800),
            ("Wrench", 1700),
            ("Clamp", 1300),
            ("Tool Box", 4500),
        ],
    },
    Section {
        category: "lighting",
        prefix: "LIG",
        materials: &["Brass", "Opal Glass", "Linen", "Aluminium", "Paper", "Walnut"],
        nouns: &[
            ("Desk Lamp", 5900),
            ("Floor Lamp", 12900),
            ("Pendant", 8900),
            ("Wall Light", 6400),
            ("Lantern", 3900),
        ],
    },
    Section {
        category: "furniture",
        prefix: "FUR",
        materials: &["Oak", "Walnut", "Ash", "Birch", "Steel", "Rattan", "Velvet"],
        nouns: &[
            ("Chair", 14900),
            ("Side Table", 11900),
            ("Bookcase", 24900),
            ("Stool", 7900),
            ("Bench", 18900),
            ("Chest of Drawers", 39900),
            ("Coat Stand", 8900),
        ],
    },
    Section {
        category: "textiles",
        prefix: "TEX",
        materials: &["Linen", "Cotton", "Merino", "Flannel", "Jute", "Hemp"],
        nouns: &[
            ("Blanket", 6900),
            ("Cushion", 2900),
            ("Bath Towel", 1900),
            ("Tablecloth", 3900),
            ("Duvet Cover", 7900),
            ("Rug", 12900),
            ("Apron", 2700),
        ],
    },
    Section {
        category: "stationery",
        prefix: "STA",
        materials: &["Recycled Paper", "Leather", "Cork", "Brass", "Cedar"],
        nouns: &[
            ("Notebook", 1400),
            ("Fountain Pen", 4900),
            ("Pencil Case", 1900),
            ("Calendar", 1600),
            ("Desk Tray", 2900),
            ("Sketchbook", 1800),
        ],
    },
    Section {
        category: "outdoor",
        prefix: "OUT",
        materials: &["Ripstop", "Titanium", "Canvas", "Merino", "Aluminium", "Waxed Cotton"],
        nouns: &[
            ("Tent", 29900),
            ("Backpack", 11900),
            ("Sleeping Bag", 14900),
            ("Camping Stove", 6900),
            ("Water Bottle", 2400),
            ("Head Torch", 3900),
            ("Hammock", 5400),
        ],
    },
    Section {
        category: "toys",
        prefix: "TOY",
        materials: &["Beech", "Cotton", "Felt", "Maple", "Cardboard", "Tin"],
        nouns: &[
            ("Train Set", 4900),
            ("Building Blocks", 3400),
            ("Puzzle", 1900),
            ("Kite", 2400),
            ("Marble Run", 5900),
            ("Spinning Top", 900),
        ],
    },
    Section {
        category: "coffee",
        prefix: "COF",
        materials: &["Steel", "Ceramic", "Borosilicate Glass", "Copper", "Olive Wood"],
        nouns: &[
            ("Grinder", 8900),
            ("Kettle", 6900),
            ("Dripper", 2400),
            ("French Press", 3900),
            ("Espresso Cup", 1200),
            ("Milk Jug", 1900),
        ],
    },
    Section {
        category: "bicycles",
        prefix: "BIC",
        materials: &["Steel", "Aluminium", "Leather", "Carbon", "Cork"],
        nouns: &[
            ("Saddle", 7900),
            ("Handlebar", 5400),
            ("Bell", 1400),
            ("Pannier", 6900),
            ("Floor Pump", 3900),
            ("Lock", 5900),
        ],
    },
];

pub const BRANDS: &[&str] = &[
    "Aldermoor", "Brackwell", "Calloway", "Dunmere", "Eastholm", "Fernhaven", "Greyfold", "Hartwick",
    "Islay & Rowe", "Juniper Works", "Kestrel", "Larkspur", "Marrow & Pine", "Northbeck", "Oakhurst",
    "Pellam", "Quillon", "Ravensby", "Saltmarsh", "Thornbury", "Umber", "Vellacott", "Wexcombe", "Yarrow",
];

pub const QUALITIES: &[&str] = &[
    "Classic", "Compact", "Everyday", "Folding", "Grand", "Heritage", "Light", "Little", "Modern", "Plain",
    "Professional", "Round", "Sturdy", "Tall", "Travel", "Vintage",
];

pub const OPENINGS: &[&str] = &[
    "A dependable",
    "A quietly handsome",
    "A hard-wearing",
    "Our best-selling",
    "A small-batch",
    "A well-balanced",
    "A generous",
    "A clever",
];

pub const SENTENCES: &[&str] = &[
    "Made by a family workshop that has done little else for three generations.",
    "Every part can be replaced, and the parts list is printed on the inside.",
    "Finished by hand, so no two are quite alike.",
    "It grows more beautiful with use.",
    "Dishwasher safe, though it prefers not to be.",
    "Packed without plastic in a box that makes a good second life of its own.",
    "Tested for ten thousand cycles before it leaves the house.",
    "The edges are rounded where hands and knees will find them.",
    "Comes with a lifetime guarantee and a short, honest manual.",
    "Stacks, nests or hangs, whichever the room allows.",
    "The colour comes from the material itself and will not wear off.",
    "Small enough for a city flat, strong enough for a farmhouse.",
    "Sourced within two hundred kilometres of the workshop.",
    "Wipe clean with a damp cloth; oil once a year.",
    "Repaired at the kitchen table with one tool, which is included.",
    "Winner of a modest but sincere local design prize.",
];
