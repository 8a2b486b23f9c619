//! What the benches measured, as the tables of the README and as plots: reads what criterion and the
//! other programs left under `target`, rewrites the part of `README.md` between its two `report`
//! marks, as far as it was measured, and draws `plots/`.
//!
//!     cargo run --release --bin report

mod measured;
mod plot;
mod table;

use std::{fs, path::Path};

use measured::Measured;
use plot::Series;
use table::{Row, SECTIONS};

const BEGIN: &str = "<!-- report -->\n";
const END: &str = "<!-- /report -->";

fn main() {
    let measured = Measured::read();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));

    let readme = fs::read_to_string(home.join("README.md")).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("the first mark");
    let (_, after) = rest.split_once(END).expect("the second mark");
    let there = sections(rest);
    let mut report = String::new();
    for section in SECTIONS {
        // What was not measured here stands as it was.
        let new = table::markdown(section, &measured);
        let new = new.map(|table| format!("{table}\n{}", measured::machine()));
        let old = there.iter().find(|(title, _)| *title == section.title);
        if let Some(text) = new.or_else(|| old.map(|(_, text)| (*text).to_owned())) {
            report += &format!("### {}\n\n{}\n", section.title, text.trim());
            report.push('\n');
        }
    }
    fs::write(home.join("README.md"), format!("{before}{BEGIN}\n{report}{END}{after}"))
        .expect("to write the README");

    if !measured.has_decisions() {
        return;
    }
    for (name, plot) in plots(&measured) {
        fs::write(home.join("plots").join(name), plot).expect("to write a plot");
    }
}

/// Of the report that is there: titles, and what stands below each.
fn sections(report: &str) -> Vec<(&str, &str)> {
    let report = report.split_once(END).map_or(report, |(report, _)| report);
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
