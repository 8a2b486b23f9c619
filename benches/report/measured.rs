//! What was measured, and on what.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target");

/// Figures by name, `group/contestant/size`, in the unit of the row that shows them. Those of criterion
/// are medians in nanoseconds, with `@` and its name where one was saved as a baseline.
pub struct Measured(BTreeMap<String, f64>);

impl Measured {
    pub fn read() -> Self {
        let target = Path::new(TARGET);
        let mut measured = Self(BTreeMap::new());
        measured.read_criterion(&target.join("criterion"));
        for (name, sizes) in
            json(&target.join("figures/memory.json")).as_object().into_iter().flatten()
        {
            for (requests, bytes) in
                [1, 2, 5, 8, 17].iter().zip(sizes.as_array().into_iter().flatten())
            {
                measured.add(format!("memory/{name}/{requests}"), bytes.as_f64());
            }
        }
        for (name, figure) in
            json(&target.join("figures/decisions.json")).as_object().into_iter().flatten()
        {
            measured.add(name.clone(), figure.as_f64());
        }
        let instructions = json(&target.join("figures/instructions.json"));
        for (name, figure) in instructions.as_object().into_iter().flatten() {
            let bare = if name.contains("token") { "bare, with a token" } else { "bare" };
            let over = figure.as_f64().zip(instructions[bare].as_f64());
            measured.add(format!("instructions/{name}"), over.map(|(figure, bare)| figure - bare));
        }
        for (name, admitted) in
            json(&target.join("figures/burst.json")).as_object().into_iter().flatten()
        {
            measured.add(format!("burst/{name}"), admitted.as_f64());
        }
        for result in json(&target.join("redis.json")).as_array().into_iter().flatten() {
            let text = |key: &str| result[key].as_str().unwrap_or_default();
            let which = if text("clients").is_empty() { "" } else { ", " };
            let group = format!("redis {}{which}{}", text("bench"), text("clients"));
            let who = if text("who").is_empty() { "tower-warden" } else { text("who") };
            let nanoseconds = result["microseconds"].as_f64().map(|micros| micros * 1e3);
            let figure = nanoseconds.or(result["nanoseconds"].as_f64());
            let figure = figure.or(result["per_second"].as_f64()).or(result["commands"].as_f64());
            let name = format!("{group}/{who}");
            for (other, ratio) in result["ratios"].as_object().into_iter().flatten() {
                measured.add(format!("{name} to {other}"), ratio.as_f64());
            }
            measured.add(name, figure);
        }
        for result in json(&target.join("servers.json")).as_array().into_iter().flatten() {
            let text = |key: &str| result[key].as_str().unwrap_or_default();
            let rate = result["requests_per_second"].as_f64();
            let name = format!("server {}/{}", text("group"), text("name"));
            for (other, ratio) in result["ratios"].as_object().into_iter().flatten() {
                measured.add(format!("{name} to {other}"), ratio.as_f64());
            }
            measured.add(name, rate);
        }
        measured
    }

    fn add(&mut self, name: String, figure: Option<f64>) {
        self.0.extend(figure.map(|figure| (name, figure)));
    }

    fn read_criterion(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.is_dir() {
                continue;
            }
            let run = entry.file_name().to_string_lossy().into_owned();
            let id = json(&path.join("benchmark.json"))["full_id"].as_str().map(str::to_owned);
            let median = json(&path.join("estimates.json"))["median"]["point_estimate"].as_f64();
            match (id, run.as_str()) {
                (Some(_), "base" | "change") => {}
                (Some(id), "new") => self.add(id, median),
                (Some(id), baseline) => self.add(format!("{id}@{baseline}"), median),
                (None, _) => self.read_criterion(&path),
            }
        }
    }

    pub fn has_decisions(&self) -> bool {
        !self.over("cost over clients", "governor").is_empty()
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// What a contestant took in each bench of a group, by the bench's size.
    pub fn over(&self, group: &str, who: &str) -> Vec<(f64, f64)> {
        let prefix = format!("{group}/{who}/");
        let sizes = self.0.iter().filter_map(|(name, figure)| {
            let size = name.strip_prefix(&prefix)?.parse::<f64>().ok()?;
            Some((size, *figure))
        });
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
        sizes
    }
}

/// Null where there is no such file.
fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// This machine, and which versions were built.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let virtual_machine = if cpus.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let rustc = rustc.unwrap_or_default();
    format!(
        "Measured on {model}, {cores} cores{virtual_machine}; Linux {}; {}. Built with {}.\n",
        kernel.trim().split('-').next().unwrap_or_default(),
        rustc.split(" (").next().unwrap_or_default(),
        versions().join(", "),
    )
}

fn versions() -> Vec<String> {
    const RIVALS: [&str; 9] = [
        "governor",
        "tower_governor",
        "axum-governor",
        "tower-rate-limiter",
        "trypema",
        "jsonwebtoken",
        "ring",
        "aws-lc-rs",
        "redis",
    ];
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", package.split('"').next()?))
    };
    RIVALS.into_iter().filter_map(version).collect()
}
