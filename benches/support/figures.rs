//! Figures that aren't criterion's, kept beside criterion's for the report.

use std::{fs, path::PathBuf};

use serde_json::{Map, Value};

/// Writes what a program measured.
#[allow(dead_code, reason = "not every program that has this")]
pub fn write(name: &str, figures: Value) {
    let file = file(name);
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(file, format!("{figures:#}\n")).expect("a file");
}

/// The same, but keeps what is there under other names.
#[allow(dead_code, reason = "not every program that has this")]
pub fn add(name: &str, figures: Map<String, Value>) {
    let there = fs::read_to_string(file(name)).unwrap_or_default();
    let mut all: Map<String, Value> = serde_json::from_str(&there).unwrap_or_default();
    all.extend(figures);
    write(name, all.into());
}

fn file(name: &str) -> PathBuf {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/figures");
    format!("{FOLDER}/{name}.json").into()
}
