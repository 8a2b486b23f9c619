//! Figures that aren't criterion's, kept beside criterion's for the report.

use std::fs;

use serde_json::Value;

/// Writes what a program measured.
pub fn write(name: &str, figures: Value) {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/figures");
    fs::create_dir_all(FOLDER).expect("a folder");
    fs::write(format!("{FOLDER}/{name}.json"), format!("{figures:#}\n")).expect("a file");
}
