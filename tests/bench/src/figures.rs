//! What was measured: gathered over the rounds, printed as tables, written as JSON.

use serde::Serialize;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    PerSecond,
    Microseconds,
    Milliseconds,
    /// 1,024 bytes.
    Kilobytes,
    Megabytes,
    Count,
    Percent,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::Kilobytes => "KB",
            Unit::Megabytes => "MB",
            Unit::Count => "",
            Unit::Percent => "%",
        }
    }
}

impl Serialize for Unit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One quantity of one server in one case of one scenario, a value a round.
#[derive(Serialize)]
pub struct Figure {
    pub scenario: &'static str,
    pub case: String,
    pub server: &'static str,
    pub name: &'static str,
    pub unit: Unit,
    pub median: f64,
    /// Nothing for a round in which the measurement failed.
    pub rounds: Vec<Option<f64>>,
}

/// What the rounds agree on, and by how much they do not.
#[derive(Clone, Copy, Serialize)]
pub struct Spread {
    #[serde(rename = "measured")]
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Nothing, if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, least, most })
    }
}

/// "median (least..most)", or only the value where all rounds agree.
impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, least, most] = [self.median, self.least, self.most].map(Short);
        write!(out, "{median}")?;
        if least.to_string() != most.to_string() {
            write!(out, " ({least}..{most})")?;
        }
        Ok(())
    }
}

#[derive(Default, Serialize)]
pub struct Figures {
    pub figures: Vec<Figure>,
    /// System calls, where they were counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// Where values of one measurement go.
pub struct Place<'a> {
    pub figures: &'a mut Figures,
    pub scenario: &'static str,
    pub case: String,
    pub server: &'static str,
    pub round: usize,
}

impl Place<'_> {
    pub fn put(&mut self, name: &'static str, unit: Unit, value: f64) {
        let same = |figure: &Figure| {
            figure.scenario == self.scenario
                && figure.case == self.case
                && figure.server == self.server
                && figure.name == name
        };
        let known = self.figures.figures.iter().position(same);
        let place = known.unwrap_or_else(|| {
            let (scenario, case, server) = (self.scenario, self.case.clone(), self.server);
            let new = Figure { scenario, case, server, name, unit, median: value, rounds: Vec::new() };
            self.figures.figures.push(new);
            self.figures.figures.len() - 1
        });
        let figure = &mut self.figures.figures[place];
        figure.rounds.resize(self.round, None);
        figure.rounds.push(Some(value));
        let spread = Spread::of(figure.rounds.iter().copied().flatten());
        figure.median = spread.map_or(value, |spread| spread.median);
    }
}

impl Figures {
    pub fn find(&self, scenario: &str, case: &str, server: &str, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.scenario == scenario && figure.case == case && figure.server == server && figure.name == name
        })
    }

    /// The server of these that has the least of it.
    pub fn best(&self, scenario: &str, case: &str, name: &str, of: &[&'static str]) -> Option<&'static str> {
        let found = of.iter().filter_map(|server| self.find(scenario, case, server, name));
        Some(found.min_by(|one, other| one.median.total_cmp(&other.median))?.server)
    }

    /// Every value of this name: of all servers, in all cases, in all rounds.
    pub fn values(&self, name: &str) -> impl Iterator<Item = f64> {
        let of_name = self.figures.iter().filter(move |one| one.name == name);
        of_name.flat_map(|figure| figure.rounds.iter().copied().flatten())
    }

    /// One scenario as a table: a line for each server in each case, "median (least..most)" in each
    /// field.
    pub fn table(&self, scenario: &str) -> String {
        let of_scenario = || self.figures.iter().filter(|figure| figure.scenario == scenario);
        let cases = unique(of_scenario().map(|figure| figure.case.as_str()));
        let servers = unique(of_scenario().map(|figure| figure.server));
        let names = unique(of_scenario().map(|figure| figure.name));
        let mut lines = vec![vec!["case".to_owned(), "server".to_owned()]];
        lines[0].extend(names.iter().map(|name| {
            let unit = of_scenario().find(|figure| figure.name == *name).map_or("", |figure| figure.unit.name());
            if unit.is_empty() { (*name).to_owned() } else { format!("{name}, {unit}") }
        }));
        for case in &cases {
            for server in &servers {
                let field = |name: &&str| {
                    let same =
                        |figure: &&Figure| figure.case == *case && figure.server == *server && figure.name == *name;
                    of_scenario()
                        .find(same)
                        .and_then(|figure| Spread::of(figure.rounds.iter().copied().flatten()))
                        .map_or_else(|| "-".to_owned(), |spread| spread.to_string())
                };
                let fields: Vec<String> = names.iter().map(field).collect();
                if fields.iter().any(|field| field != "-") {
                    lines.push([vec![(*case).to_owned(), (*server).to_owned()], fields].concat());
                }
            }
        }
        align(&lines)
    }
}

/// Each once, in the order of appearance.
fn unique<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// A number to three digits: 5.12M, 140k, 8.47, 0.051.
pub struct Short(pub f64);

impl fmt::Display for Short {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, suffix) = match self.0.abs() {
            1e6.. => (self.0 / 1e6, "M"),
            1e4.. => (self.0 / 1e3, "k"),
            _ => (self.0, ""),
        };
        let digits = match value.abs() {
            _ if value == value.round() => 0,
            100.0.. => 0,
            10.0.. => 1,
            1.0.. => 2,
            _ => 3,
        };
        write!(out, "{value:.digits$}{suffix}")
    }
}

/// Columns of equal width, two spaces between them.
pub fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|field| field.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let fields: Vec<String> = line.iter().zip(&widths).map(|(field, width)| format!("{field:<width$}")).collect();
        text.push_str(fields.join("  ").trim_end());
        text.push('\n');
    }
    text
}
