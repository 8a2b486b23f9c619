//! Which figures stand beside which, and what was to be reached.

use std::fmt::Write;

use crate::measured::Measured;

pub struct Section {
    title: &'static str,
    /// Ours first.
    columns: &'static [&'static str],
    pub rows: &'static [Row],
}

pub struct Row {
    /// In the table of goals.
    number: &'static str,
    pub what: &'static str,
    group: &'static str,
    /// The bench's parameter, after the contestant.
    value: &'static str,
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
}

pub enum Goal {
    /// Ours is at most so many times the rival's.
    Ratio(f64),
    /// Ours is at most so much.
    AtMost(f64),
}

impl Goal {
    pub fn ratio(&self) -> Option<f64> {
        match self {
            Self::Ratio(ratio) => Some(*ratio),
            Self::AtMost(_) => None,
        }
    }
}

impl Row {
    fn figure(&self, measured: &Measured, who: &str) -> Option<f64> {
        let at = |who: &str| {
            let value = if self.value.is_empty() { "" } else { "/" };
            measured.get(&format!("{}/{who}{value}{}", self.group, self.value))
        };
        match self.unit {
            Unit::TimeOverBare => Some((at(who)? - at("bare")?).max(0.0)),
            _ => at(who),
        }
    }

    pub fn ratio(&self, measured: &Measured) -> Option<f64> {
        if matches!(self.unit, Unit::Requests) {
            return None;
        }
        Some(self.figure(measured, "portcullis")? / self.figure(measured, self.against)?)
    }

    /// Nothing where what was measured is no time.
    pub fn ratio_of_times(&self, measured: &Measured) -> Option<f64> {
        matches!(self.unit, Unit::Time | Unit::TimeOverBare).then(|| self.ratio(measured)).flatten()
    }

    fn show(&self, figure: f64) -> String {
        match self.unit {
            Unit::Bytes => format!("{figure:.0} B"),
            Unit::Requests => format!("{figure:.0}"),
            _ if figure < 1e3 => format!("{figure:.0} ns"),
            _ if figure < 1e5 => format!("{:.1} µs", figure / 1e3),
            _ => format!("{:.0} µs", figure / 1e3),
        }
    }
}

pub fn markdown(measured: &Measured) -> String {
    let mut text = String::new();
    for Section { title, columns, rows } in SECTIONS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "### {title}\n");
        let _ = writeln!(text, "| # | | {} | ratio | goal |", columns.join(" | "));
        let _ = writeln!(text, "| --- | --- |{}", " ---: |".repeat(columns.len() + 2));
        for row in *rows {
            let figures = columns.iter().map(|who| {
                row.figure(measured, who).map_or("–".to_owned(), |figure| row.show(figure))
            });
            let figures = figures.collect::<Vec<_>>().join(" | ");
            let ratio = row.ratio(measured).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let goal = match row.goal {
                Goal::Ratio(goal) => format!("{goal:.2} of {}", row.against),
                Goal::AtMost(figure) => row.show(figure),
            };
            let _ =
                writeln!(text, "| {} | {} | {figures} | {ratio} | {goal} |", row.number, row.what);
        }
        text.push('\n');
    }
    text
}

const fn row(
    (number, what): (&'static str, &'static str),
    (group, value): (&'static str, &'static str),
    unit: Unit,
    against: &'static str,
    goal: Goal,
) -> Row {
    Row { number, what, group, value, unit, against, goal }
}

use Goal::{AtMost, Ratio};
use Unit::{Bytes, Requests, Time, TimeOverBare};

pub const SECTIONS: &[Section] = &[
    Section {
        title: "A decision in this process",
        columns: &["portcullis", "governor", "two counters", "trypema", "tower-rate-limiter"],
        rows: &[
            row(
                ("1", "10,000 clients, 1 thread"),
                ("decision, 10k clients", "1"),
                Time,
                "governor",
                Ratio(0.8),
            ),
            row(
                ("1", "10,000 clients, 2 threads"),
                ("decision, 10k clients", "2"),
                Time,
                "governor",
                Ratio(0.8),
            ),
            row(
                ("2", "1,000,000 clients, 1 thread"),
                ("decision, 1M clients", "1"),
                Time,
                "governor",
                Ratio(0.8),
            ),
            row(
                ("2", "1,000,000 clients, 2 threads"),
                ("decision, 1M clients", "2"),
                Time,
                "governor",
                Ratio(0.8),
            ),
            row(
                ("3", "one client, refused, 1 thread"),
                ("decision, refused", "1"),
                Time,
                "governor",
                Ratio(1.0),
            ),
            row(
                ("3", "one client, refused, 2 threads"),
                ("decision, refused", "2"),
                Time,
                "governor",
                Ratio(0.25),
            ),
        ],
    },
    Section {
        title: "Memory a client takes",
        columns: &[
            "portcullis",
            "governor",
            "two counters",
            "naive log",
            "trypema",
            "tower-rate-limiter",
        ],
        rows: &[
            row(("2", "that holds 1 request"), ("memory", "1"), Bytes, "governor", AtMost(100.0)),
            row(("2", "that holds 2"), ("memory", "2"), Bytes, "governor", AtMost(100.0)),
            row(("2", "that holds 5"), ("memory", "5"), Bytes, "governor", AtMost(100.0)),
        ],
    },
    Section {
        title: "The layer around a service",
        columns: &["portcullis", "tower_governor", "axum-governor", "tower-rate-limiter"],
        rows: &[
            row(
                ("4", "no headers"),
                ("layer, no headers", ""),
                TimeOverBare,
                "tower_governor",
                Ratio(0.6),
            ),
            row(
                ("4", "headers: 5, 2, 5, 2"),
                ("layer, headers", ""),
                TimeOverBare,
                "tower_governor",
                Ratio(1.0),
            ),
            row(("5", "a refusal"), ("layer, refused", ""), Time, "tower_governor", AtMost(1000.0)),
        ],
    },
    Section {
        title: "The adversarial burst: admitted in the worst window, of 100",
        columns: &["portcullis", "governor", "tower_governor", "two counters", "fixed window"],
        rows: &[row(("", "admitted"), ("burst", ""), Requests, "governor", AtMost(100.0))],
    },
];
