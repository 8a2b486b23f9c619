//! What the benches measured, as the tables of the README and as plots: reads what criterion and the
//! other programs left under `target`, rewrites the part of `README.md` between its two `report`
//! marks, and draws `plots/`.
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
    let report = format!("{}\n{}", measured::machine(), table::markdown(&measured));
    fs::write(home.join("README.md"), format!("{before}{BEGIN}\n{report}\n{END}{after}"))
        .expect("to write the README");

    for (name, plot) in plots(&measured) {
        fs::write(home.join("plots").join(name), plot).expect("to write a plot");
    }
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
