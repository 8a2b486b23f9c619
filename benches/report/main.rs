//! What the benches measured, as the tables of the README and as plots: reads what criterion and the
//! other programs left under `target`, rewrites the part of `README.md` between its two `report`
//! marks and between its two `headlines` marks, as far as it was measured, and draws `plots/`.
//!
//!     cargo run --release --bin report

mod measured;
mod plot;
mod table;

use std::{fs, path::Path};

use measured::Measured;
use plot::Series;
use table::{Row, SECTIONS};

/// Before and behind a part that is rewritten.
type Marks = (&'static str, &'static str);
const REPORT: Marks = ("<!-- report -->\n", "<!-- /report -->");
const HEADLINES: Marks = ("<!-- headlines -->\n", "<!-- /headlines -->");

fn main() {
    let measured = Measured::read();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));

    let readme = fs::read_to_string(home.join("README.md")).expect("the README");
    let readme = rewritten(&readme, HEADLINES, |old| table::headlines(old, &measured));
    let readme = rewritten(&readme, REPORT, |old| report(old, &measured));
    fs::write(home.join("README.md"), readme).expect("to write the README");

    if !measured.has_decisions() {
        return;
    }
    for (name, plot) in plots(&measured) {
        fs::write(home.join("plots").join(name), plot).expect("to write a plot");
    }
}

/// A text whose part between these marks is another.
fn rewritten(text: &str, (begin, end): Marks, part: impl FnOnce(&str) -> String) -> String {
    let (before, rest) = text.split_once(begin).expect("the first mark");
    let (old, after) = rest.split_once(end).expect("the second mark");
    format!("{before}{begin}\n{}\n{end}{after}", part(old))
}

/// All tables. What was not measured here stands as it was.
fn report(old: &str, measured: &Measured) -> String {
    let there = sections(old);
    let mut report = String::new();
    for section in SECTIONS {
        let new = table::markdown(section, measured);
        let new = new.map(|table| format!("{table}\n{}", measured::machine()));
        let old = there.iter().find(|(title, _)| *title == section.title);
        if let Some(text) = new.or_else(|| old.map(|(_, text)| (*text).to_owned())) {
            if !report.is_empty() {
                report.push('\n');
            }
            report += &format!("### {}\n\n{}\n", section.title, text.trim());
        }
    }
    report
}

/// Of a report: titles, and what stands below each.
fn sections(report: &str) -> Vec<(&str, &str)> {
    let sections = report.split("### ").skip(1);
    sections.filter_map(|section| section.split_once('\n')).collect()
}

fn plots(measured: &Measured) -> [(&'static str, String); 4] {
    let rows = SECTIONS.iter().flat_map(|section| section.rows);
    let slower = |row: &'static Row| {
        let (ratio, goal) = row.slower(measured)?;
        Some((row.what, row.against, ratio, goal))
    };
    let slower: Vec<_> = rows.filter_map(slower).collect();
    let over = |group: &str, who: &'static str| measured.over(group, who);
    let (ours, theirs) = ("tower-warden", "governor");
    let (clients, uptime) = ("cost over clients", "cost over uptime, in windows");
    let (admitted, refused) = ("cost over limit, admitted", "cost over limit, refused");
    [
        ("ratios.svg", plot::bars("Time, tower-warden ÷ its rival", &slower)),
        (
            "clients.svg",
            plot::lines(
                "A decision, by the number of clients",
                "clients known, asked for by Zipf's law",
                &[
                    Series::new(ours, plot::OURS, false, over(clients, ours)),
                    Series::new(theirs, plot::THEIRS, false, over(clients, theirs)),
                ],
            ),
        ),
        (
            "uptime.svg",
            plot::lines(
                "A decision, by how long the limiter has run",
                "full windows of 10,000 requests before",
                &[
                    Series::new(ours, plot::OURS, false, over(uptime, ours)),
                    Series::new(theirs, plot::THEIRS, false, over(uptime, theirs)),
                ],
            ),
        ),
        (
            "limits.svg",
            plot::lines(
                "A decision, by the limit",
                "requests a minute",
                &[
                    Series::new("tower-warden, admitted", plot::OURS, false, over(admitted, ours)),
                    Series::new("tower-warden, refused", plot::OURS, true, over(refused, ours)),
                    Series::new("governor, admitted", plot::THEIRS, false, over(admitted, theirs)),
                    Series::new("governor, refused", plot::THEIRS, true, over(refused, theirs)),
                ],
            ),
        ),
    ]
}
