//! What flags, variables and files say, by one rule for all settings: white space at both ends is no
//! part of a value, and an empty value is an unset one.

use std::{collections::BTreeMap, ffi::OsString, fmt, fs, iter};

use clap::{Arg, ArgMatches, Command, error::ErrorKind};

use super::{
    SettingError,
    table::{Row, SETTINGS},
};

/// The values that were given, and the defaults of all others.
pub struct Given {
    values: BTreeMap<&'static str, String>,
}

/// Why there are none.
pub enum NotGiven {
    /// This was asked for instead.
    Told(clap::Error),
    Wrong(SettingError),
}

impl Given {
    /// Reads the arguments and the environment.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NotGiven> {
        let flags =
            command().try_get_matches_from(arguments).map_err(|error| match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => NotGiven::Told(error),
                _ => {
                    let told = error.to_string();
                    let line =
                        told.lines().next().unwrap_or_default().trim_start_matches("error: ");
                    NotGiven::Wrong(SettingError::new("flags", line))
                }
            })?;
        let mut values = BTreeMap::new();
        for row in SETTINGS {
            let value = value(row, &flags, &environment).map_err(NotGiven::Wrong)?;
            let value = value.or(row.default.map(str::to_owned));
            values.extend(value.map(|value| (row.name, value)));
        }
        Ok(Self { values })
    }

    /// The value of a setting, if it has any.
    pub fn text(&self, name: &'static str) -> Option<&str> {
        debug_assert!(SETTINGS.iter().any(|row| row.name == name), "{name} is in no row");
        self.values.get(name).map(String::as_str)
    }

    /// The value of a setting, read; one without a default may be unset.
    pub fn parse<T, E: fmt::Display>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingError> {
        let read = |text| read(text).map_err(|reason| SettingError::new(name, reason));
        self.text(name).map(read).transpose()
    }

    /// The same for one that has a default.
    pub fn get<T, E: fmt::Display>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SettingError> {
        self.parse(name, read)?.ok_or_else(|| SettingError::new(name, "is unset"))
    }

    /// The text of one that has a default.
    pub fn owned(&self, name: &'static str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }
}

fn command() -> Command {
    let flag = |row: &Row| {
        let mut about = row.about.to_owned();
        if let Some(default) = row.default {
            about.push_str(&format!(" [default: {default}]"));
        }
        about.push_str(&format!(" [env: {}]", row.name));
        let name = row.name.to_lowercase().replace('_', "-");
        Arg::new(row.name).long(name).value_name("VALUE").long_help(about)
    };
    let file = |row: &Row| {
        let name = format!("{}-file", row.name.to_lowercase().replace('_', "-"));
        let about = format!("A file that holds {} [env: {}_FILE]", row.name, row.name);
        Arg::new(format!("{}_FILE", row.name)).long(name).value_name("PATH").long_help(about)
    };
    Command::new("server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves the API that README.md walks through: accounts, roles, projects, limits.")
        .long_about(
            "Serves the API that README.md walks through: accounts, roles, projects, limits.\n\n\
             With nothing set it needs nothing installed. Durations read 500ms, 90s, 1m 30s, 15m, \
             24h, 7d; limits N/DURATION, such as 100/1m. An empty value is an unset one.",
        )
        .after_help("A flag goes before its variable.")
        .max_term_width(100)
        .next_line_help(true)
        .args(
            SETTINGS
                .iter()
                .flat_map(|row| iter::once(flag(row)).chain(row.secret.then(|| file(row)))),
        )
}

/// What was said of a setting: by its flag, else by its variable, or by a file.
fn value(
    row: &Row,
    flags: &ArgMatches,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, SettingError> {
    let said = |name: &str| -> Result<Option<String>, SettingError> {
        let flag = flags.get_one::<String>(name).and_then(|text| trimmed(text));
        if flag.is_some() {
            return Ok(flag);
        }
        let Some(variable) = environment(name) else { return Ok(None) };
        let Some(text) = variable.to_str() else {
            return Err(SettingError::new(row.name, "is no UTF-8"));
        };
        Ok(trimmed(text))
    };
    let direct = said(row.name)?;
    if !row.secret {
        return Ok(direct);
    }
    let file = said(&format!("{}_FILE", row.name))?;
    let wrong = |reason: &dyn fmt::Display| {
        SettingError::new(row.name, format!("{}_FILE {reason}", row.name))
    };
    match (direct, file) {
        (Some(_), Some(_)) => Err(wrong(&"is set, too: only one of the two may be")),
        (direct, None) => Ok(direct),
        (None, Some(path)) => {
            let text = fs::read_to_string(&path)
                .map_err(|error| wrong(&format!("names a file that can't be read: {error}")))?;
            trimmed(&text).map(Some).ok_or_else(|| wrong(&"names a file that is empty"))
        }
    }
}

fn trimmed(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
