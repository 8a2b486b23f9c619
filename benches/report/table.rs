//! Which figures stand beside which, and what was to be reached.

use std::fmt::Write;

use crate::measured::Measured;

pub struct Section {
    pub title: &'static str,
    /// Ours first.
    columns: &'static [&'static str],
    pub rows: &'static [Row],
}

pub struct Row {
    pub what: &'static str,
    group: &'static str,
    /// What follows the contestant's name: the bench's parameter, or `@` and a baseline.
    value: &'static str,
    ours: &'static str,
    unit: Unit,
    /// Whose figure ours is divided by.
    pub against: &'static str,
    pub goal: Goal,
}

#[derive(Clone, Copy)]
enum Unit {
    Time,
    /// What it costs more than the group's bare service.
    TimeOverBare,
    Bytes,
    Requests,
    /// Decisions or requests in a second.
    Rate,
    /// Beyond those of the bare service.
    Instructions,
}

pub enum Goal {
    /// Ours is at most so many times the rival's.
    Ratio(f64),
    /// Ours is at least so many times the rival's.
    Times(f64),
    /// Ours is at most so much.
    AtMost(f64),
    /// It is only told.
    None,
}

impl Row {
    fn figure(&self, measured: &Measured, who: &str) -> Option<f64> {
        let at = |who: &str| measured.get(&format!("{}/{who}{}", self.group, self.value));
        match self.unit {
            Unit::TimeOverBare => Some((at(who)? - at("bare")?).max(0.0)),
            _ => at(who),
        }
    }

    fn ratio(&self, measured: &Measured) -> Option<f64> {
        if matches!(self.unit, Unit::Requests) {
            return None;
        }
        // Where rounds were paired, the median of their ratios: steadier than that of the medians.
        let Self { group, value, ours, against, .. } = self;
        let of_group = format!("{group}/ratio{value}");
        let of_two = format!("{group}/{ours}{value} to {against}{value}");
        if let Some(paired) = measured.get(&of_group).or_else(|| measured.get(&of_two)) {
            return Some(paired);
        }
        let rival = self.figure(measured, self.against).filter(|rival| *rival > 0.0)?;
        Some(self.figure(measured, self.ours)? / rival)
    }

    /// How long ours takes by the rival's time, and how long it may; of what is timed beside a rival.
    pub fn slower(&self, measured: &Measured) -> Option<(f64, Option<f64>)> {
        let is_ours = |who: &str| who.starts_with("tower-warden");
        if !is_ours(self.ours) || is_ours(self.against) {
            return None;
        }
        let goal = match self.goal {
            Goal::Ratio(goal) => Some(goal),
            Goal::Times(goal) => Some(1.0 / goal),
            Goal::AtMost(_) | Goal::None => None,
        };
        match self.unit {
            Unit::Time | Unit::TimeOverBare => Some((self.ratio(measured)?, goal)),
            Unit::Rate => Some((1.0 / self.ratio(measured)?, goal)),
            Unit::Bytes | Unit::Requests | Unit::Instructions => None,
        }
    }

    /// Whether the goal is reached, of what was measured.
    fn reaches(&self, measured: &Measured) -> Option<bool> {
        match self.goal {
            Goal::Ratio(goal) => self.ratio(measured).map(|ratio| ratio <= goal),
            Goal::Times(goal) => self.ratio(measured).map(|ratio| ratio >= goal),
            Goal::AtMost(goal) => self.figure(measured, self.ours).map(|ours| ours <= goal),
            Goal::None => None,
        }
    }

    fn shown(&self, measured: &Measured, who: &str) -> String {
        self.figure(measured, who).map_or("–".to_owned(), |figure| self.show(figure))
    }

    /// The ratio, and the goal with a mark whether it is reached.
    fn outcome(&self, measured: &Measured) -> (String, String) {
        let ratio = self.ratio(measured).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let goal = match self.goal {
            Goal::Ratio(goal) => format!("≤ {goal:.2} of {}", self.against),
            Goal::Times(goal) => format!("≥ {goal:.2} of {}", self.against),
            Goal::AtMost(figure) => format!("≤ {}", self.show(figure)),
            Goal::None => return (ratio, "–".to_owned()),
        };
        let mark = match self.reaches(measured) {
            Some(true) => " ✓",
            Some(false) => " ✗",
            None => "",
        };
        (ratio, format!("{goal}{mark}"))
    }

    fn show(&self, figure: f64) -> String {
        match self.unit {
            Unit::Bytes => format!("{figure:.0} B"),
            Unit::Requests | Unit::Instructions => format!("{figure:.0}"),
            Unit::Rate => format!("{:.1}k/s", figure / 1e3),
            _ if figure < 1e3 => format!("{figure:.0} ns"),
            _ if figure < 1e5 => format!("{:.1} µs", figure / 1e3),
            _ => format!("{:.0} µs", figure / 1e3),
        }
    }
}

/// The table of a section, where any of it was measured.
pub fn markdown(section: &Section, measured: &Measured) -> Option<String> {
    let Section { columns, rows, .. } = section;
    let known = |row: &Row| columns.iter().any(|who| row.figure(measured, who).is_some());
    if !rows.iter().any(known) {
        return None;
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "| | {} | ratio | goal |", columns.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len() + 2));
    for row in *rows {
        let figures = columns.iter().map(|who| row.shown(measured, who));
        let figures = figures.collect::<Vec<_>>().join(" | ");
        let (ratio, goal) = row.outcome(measured);
        let _ = writeln!(text, "| {} | {figures} | {ratio} | {goal} |", row.what);
    }
    Some(text)
}

/// The rows that decide, each beside one rival. What was not measured stands as it did in the old one.
pub fn headlines(old: &str, measured: &Measured) -> String {
    let mut text = String::from("| | tower-warden | a rival | which | ratio | goal |\n");
    text += "| --- | ---: | ---: | --- | ---: | ---: |\n";
    for row in HEADLINES {
        let begin = format!("| {} | ", row.what);
        if row.figure(measured, row.ours).is_none() {
            let line = old.lines().find(|line| line.starts_with(&begin));
            text.extend(line.into_iter().flat_map(|line| [line, "\n"]));
            continue;
        }
        let (ours, rival) = (row.shown(measured, row.ours), row.shown(measured, row.against));
        let (ratio, goal) = row.outcome(measured);
        let _ = writeln!(text, "{begin}{ours} | {rival} | {} | {ratio} | {goal} |", row.against);
    }
    text
}

/// Who was seen before, where sessions were revoked, against where none were.
const fn caller(what: &'static str, at: (&'static str, &'static str), goal: Goal) -> Row {
    Row { ours: "10,000 sessions revoked", ..row(what, at, Time, "nothing revoked", goal) }
}

/// A request under three limits, against one under one.
const fn three(what: &'static str, group: &'static str, unit: Unit, goal: Goal) -> Row {
    Row { ours: "tower-warden, three", ..row(what, (group, ""), unit, "tower-warden, one", goal) }
}

/// What leases do to a hot key.
const fn leases(what: &'static str, at: (&'static str, &'static str), unit: Unit) -> Row {
    Row { ours: "with leases", ..row(what, at, unit, "asking each time", Goal::None) }
}

const fn row(
    what: &'static str,
    (group, value): (&'static str, &'static str),
    unit: Unit,
    against: &'static str,
    goal: Goal,
) -> Row {
    Row { what, group, value, ours: "tower-warden", unit, against, goal }
}

/// A server, against one whose handler writes the same headers as constants.
const fn server(what: &'static str, value: &'static str) -> Row {
    row(what, ("server in process", value), Rate, "bare axum", Times(0.95))
}

/// One of the layer's, against tower_governor.
const fn instructions(what: &'static str, value: &'static str, goal: Goal) -> Row {
    row(what, ("instructions", value), Instructions, "tower_governor", goal)
}

/// One of time, against governor.
const fn decision(
    what: &'static str,
    group: &'static str,
    threads: &'static str,
    goal: f64,
) -> Row {
    row(what, (group, threads), Time, "governor", Ratio(goal))
}

use Goal::{AtMost, Ratio, Times};
use Unit::{Bytes, Instructions, Rate, Requests, Time, TimeOverBare};

/// What most will decide by.
const HEADLINES: &[Row] = &[
    row("admitted in the worst minute, of 100", ("burst", ""), Requests, "governor", AtMost(100.0)),
    decision("a decision, 10,000 clients at 50 a minute", "10k clients, real limit", "/1", 0.8),
    decision("the same, 2 threads", "10k clients, real limit", "/2", 0.8),
    decision("a decision, 1,000,000 clients at 50 a minute", "1M clients, real limit", "/1", 0.8),
    decision("one client, refused again and again", "one client, refused", "/1", 0.6),
    row("memory of a client with 5 requests", ("memory", "/5"), Bytes, "governor", AtMost(100.0)),
    instructions("instructions of the layer, no headers", ", no headers", Ratio(1.5)),
    instructions("instructions of the layer, two headers", ", two headers", Ratio(1.0)),
    row(
        "decisions on Redis, 256 waiting, each its own client",
        ("redis waiting, 256, each its own", ""),
        Rate,
        "MultiplexedConnection",
        Times(2.0),
    ),
    row(
        "the same, a connection from a pool each",
        ("redis waiting, 256, each its own", ""),
        Rate,
        "deadpool-redis, a checkout each",
        Times(5.0),
    ),
    server("a whole server, five headers", ", five headers"),
];

pub const SECTIONS: &[Section] = &[
    Section {
        title: "The adversarial burst: admitted in the worst window, of 100",
        columns: &["tower-warden", "governor", "tower_governor", "two counters", "fixed window"],
        rows: &[row("admitted", ("burst", ""), Requests, "governor", AtMost(100.0))],
    },
    Section {
        title: "A decision in this process",
        columns: &["tower-warden", "governor", "two counters", "trypema", "tower-rate-limiter"],
        rows: &[
            decision(
                "10,000 clients, limit out of reach, 1 thread",
                "10k clients, out of reach",
                "/1",
                0.8,
            ),
            decision("the same, 2 threads", "10k clients, out of reach", "/2", 0.8),
            decision("10,000 clients, 50 a minute, 1 thread", "10k clients, real limit", "/1", 0.8),
            decision("the same, 2 threads", "10k clients, real limit", "/2", 0.8),
            decision(
                "10,000 clients, all refused, 1 thread",
                "10k clients, all refused",
                "/1",
                0.6,
            ),
            decision("the same, 2 threads", "10k clients, all refused", "/2", 0.6),
            decision(
                "1,000,000 clients, limit out of reach, 1 thread",
                "1M clients, out of reach",
                "/1",
                0.8,
            ),
            decision("the same, 2 threads", "1M clients, out of reach", "/2", 0.8),
            decision(
                "1,000,000 clients, 50 a minute, 1 thread",
                "1M clients, real limit",
                "/1",
                0.8,
            ),
            decision("the same, 2 threads", "1M clients, real limit", "/2", 0.8),
            decision(
                "1,000,000 clients, all refused, 1 thread",
                "1M clients, all refused",
                "/1",
                0.6,
            ),
            decision("the same, 2 threads", "1M clients, all refused", "/2", 0.6),
            decision("one client, refused, 1 thread", "one client, refused", "/1", 0.6),
            decision("the same, 2 threads", "one client, refused", "/2", 0.3),
        ],
    },
    Section {
        title: "Memory a client takes",
        columns: &[
            "tower-warden",
            "governor",
            "two counters",
            "naive log",
            "trypema",
            "tower-rate-limiter",
        ],
        rows: &[
            row("that holds 1 request", ("memory", "/1"), Bytes, "governor", AtMost(100.0)),
            row("that holds 2", ("memory", "/2"), Bytes, "governor", AtMost(100.0)),
            row("that holds 5", ("memory", "/5"), Bytes, "governor", AtMost(100.0)),
            row("that holds 8", ("memory", "/8"), Bytes, "governor", AtMost(100.0)),
            row("that holds 17", ("memory", "/17"), Bytes, "governor", Goal::None),
        ],
    },
    Section {
        title: "The layer around a service",
        columns: &["tower-warden", "tower_governor", "axum-governor", "tower-rate-limiter"],
        rows: &[
            row(
                "layer, no headers",
                ("layer, no headers", ""),
                TimeOverBare,
                "tower_governor",
                Ratio(1.5),
            ),
            row(
                "layer, headers",
                ("layer, headers", ""),
                TimeOverBare,
                "tower_governor",
                Ratio(1.7),
            ),
            row("layer, a refusal", ("layer, refused", ""), Time, "tower_governor", AtMost(700.0)),
        ],
    },
    Section {
        title: "The layer, in instructions beyond the bare service",
        columns: &[
            "tower-warden",
            "tower_governor",
            "axum-governor",
            "tower-rate-limiter",
            "constants",
        ],
        rows: &[
            instructions("no headers", ", no headers", Ratio(1.5)),
            instructions("two headers", ", two headers", Ratio(1.0)),
            instructions("five headers", ", five headers", AtMost(5500.0)),
            instructions("refusing, no headers", ", refusing, no headers", AtMost(2500.0)),
            instructions("refusing, five headers", ", refusing, five headers", AtMost(2500.0)),
            instructions("a token seen before", ", a token seen before", AtMost(1500.0)),
            instructions("that, and five headers", ", a token and five headers", AtMost(6500.0)),
        ],
    },
    Section {
        title: "Tokens: RS256 by ring",
        columns: &["tower-warden", "bare", "ring", "aws-lc-rs", "jsonwebtoken"],
        rows: TOKENS_BY_RING,
    },
    Section {
        title: "Tokens: RS256 by aws-lc-rs",
        columns: &["tower-warden", "bare", "ring", "aws-lc-rs", "jsonwebtoken"],
        rows: TOKENS_BY_AWS_LC,
    },
    Section {
        title: "A caller that was seen before",
        columns: &["10,000 sessions revoked", "nothing revoked"],
        rows: &[
            caller("a token of ours", ("caller: a token", ""), Ratio(1.1)),
            caller(
                "of that, the look-up of revocations",
                ("caller: the look-up", ""),
                AtMost(50.0),
            ),
            caller("a token of another issuer", ("caller: a foreign token", ""), Goal::None),
            caller("an API key", ("caller: an API key", ""), Goal::None),
        ],
    },
    Section {
        title: "Redis",
        columns: &[
            "tower-warden",
            "deadpool-redis, a checkout each",
            "MultiplexedConnection",
            "ConnectionManager",
            "our script, a call each",
            "trypema",
        ],
        rows: &[
            row(
                "256 waiting, 10,000 clients",
                ("redis waiting, 10,000 by Zipf", ""),
                Rate,
                "deadpool-redis, a checkout each",
                Times(5.0),
            ),
            row(
                "256 waiting, 10,000 clients",
                ("redis waiting, 10,000 by Zipf", ""),
                Rate,
                "MultiplexedConnection",
                Times(2.0),
            ),
            row(
                "256 waiting, each its own",
                ("redis waiting, 256, each its own", ""),
                Rate,
                "deadpool-redis, a checkout each",
                Times(5.0),
            ),
            row(
                "256 waiting, each its own",
                ("redis waiting, 256, each its own", ""),
                Rate,
                "MultiplexedConnection",
                Times(2.0),
            ),
            row(
                "256 waiting, 1,000,000 clients in turn",
                ("redis waiting, 1,000,000 in turn", ""),
                Rate,
                "MultiplexedConnection",
                Times(2.0),
            ),
            row(
                "the last, of that in Redis",
                ("redis waiting: in Redis, 1,000,000 in turn", ""),
                Time,
                "MultiplexedConnection",
                Ratio(0.5),
            ),
        ],
    },
    Section {
        title: "Redis, nobody else waits",
        columns: &[
            "tower-warden",
            "our script, bare",
            "two counters, bare",
            "deadpool, two counters",
        ],
        rows: &[
            row("a decision", ("redis alone", ""), Time, "our script, bare", Ratio(1.1)),
            row("a client that is refused already", ("redis refused", ""), Time, "", AtMost(300.0)),
        ],
    },
    Section {
        title: "Redis, three limits of one request",
        columns: &[
            "tower-warden, three",
            "tower-warden, one",
            "a call each, three",
            "a call each, one",
        ],
        rows: &[
            three("nobody else waits", "redis limits", Time, Ratio(1.3)),
            three("64 waiting", "redis limits, 64 waiting", Rate, Times(1.0 / 1.3)),
            three("256 waiting", "redis limits, 256 waiting", Rate, Times(1.0 / 1.3)),
            three(
                "256 waiting, of that in Redis",
                "redis limits: in Redis, 256 waiting",
                Time,
                Goal::None,
            ),
        ],
    },
    Section {
        title: "Redis, one hot key over several servers, 256 waiting",
        columns: &["with leases", "asking each time"],
        rows: &[
            leases("decisions, 1 server", ("redis leases, 1 server", ""), Rate),
            leases("decisions, 4 servers", ("redis leases, 4 servers", ""), Rate),
            leases("decisions, 16 servers", ("redis leases, 16 servers", ""), Rate),
            leases(
                "commands a thousand, 1 server",
                ("redis leases: commands, 1 server", ""),
                Requests,
            ),
            leases(
                "commands a thousand, 4 servers",
                ("redis leases: commands, 4 servers", ""),
                Requests,
            ),
            leases(
                "commands a thousand, 16 servers",
                ("redis leases: commands, 16 servers", ""),
                Requests,
            ),
            leases("99 % are faster, 1 server", ("redis leases: p99, 1 server", ""), Time),
            leases("99 % are faster, 4 servers", ("redis leases: p99, 4 servers", ""), Time),
            leases("99 % are faster, 16 servers", ("redis leases: p99, 16 servers", ""), Time),
        ],
    },
    Section {
        title: "Whole servers, wrk with 64 connections",
        columns: &[
            "tower-warden, five headers",
            "bare axum, no headers",
            "tower-warden without cache",
            "hand-made cache, governor",
            "jsonwebtoken, no limit",
        ],
        rows: &[Row {
            ours: "tower-warden, five headers",
            ..row(
                "limits in process",
                ("server in process", ""),
                Rate,
                "bare axum, no headers",
                Times(0.85),
            )
        }],
    },
    Section {
        title: "Whole servers, with the same headers",
        columns: &["tower-warden", "bare axum", "two empty layers"],
        rows: &[
            server("no headers", ", no headers"),
            row(
                "no headers, one user",
                ("server one user", ", one user"),
                Rate,
                "bare axum",
                Goal::None,
            ),
            server("two headers", ", two headers"),
            server("five headers", ", five headers"),
        ],
    },
    Section {
        title: "Whole servers, refusing",
        columns: &["tower-warden, all refused", "a constant 429"],
        rows: &[Row {
            ours: "tower-warden, all refused",
            ..row(
                "server, all refused",
                ("server refusing", ""),
                Rate,
                "a constant 429",
                Times(0.95),
            )
        }],
    },
    Section {
        title: "Whole servers, limits on Redis",
        columns: &[
            "tower-warden on Redis",
            "bare axum",
            "hand-made cache, ConnectionManager",
            "jsonwebtoken, ConnectionManager",
        ],
        rows: &[
            Row {
                ours: "tower-warden on Redis",
                ..row(
                    "server, limits on Redis",
                    ("server Redis", ""),
                    Rate,
                    "bare axum",
                    Times(0.62),
                )
            },
            Row {
                ours: "tower-warden on Redis",
                ..row(
                    "server, limits on Redis",
                    ("server Redis", ""),
                    Rate,
                    "jsonwebtoken, ConnectionManager",
                    Times(2.0),
                )
            },
        ],
    },
];

const TOKENS_BY_RING: &[Row] = &[
    row("new token", ("new token", ""), Time, "ring", Ratio(1.1)),
    row("one seen token, 1 thread", ("seen token, one", "/1"), TimeOverBare, "", AtMost(250.0)),
    row("the same, 2 threads", ("seen token, one", "/2"), TimeOverBare, "", AtMost(250.0)),
    row("10,000 in turn, 1 thread", ("seen token, 10k", "/1"), TimeOverBare, "", AtMost(250.0)),
    row("the same, 2 threads", ("seen token, 10k", "/2"), TimeOverBare, "", AtMost(250.0)),
    row("signing", ("signing", ""), Time, "ring", Ratio(1.05)),
];

const TOKENS_BY_AWS_LC: &[Row] = &[
    row("new token", ("new token", "@aws-lc-rs"), Time, "aws-lc-rs", Ratio(1.1)),
    row("new token", ("new token", "@aws-lc-rs"), Time, "jsonwebtoken", Ratio(0.82)),
    row("signing", ("signing", "@aws-lc-rs"), Time, "aws-lc-rs", Ratio(1.05)),
];
