//! Bar charts as SVG: few bytes, readable on light and dark, nothing to load.

use crate::figures::{Figures, Short};
use crate::scenarios::*;
use std::fmt::Write;

/// Horizontal bars in groups. Every bar says whose it is and how much, so nothing hangs on telling
/// colours apart.
struct Chart {
    title: &'static str,
    /// What was done, and where more or less is better.
    note: &'static str,
    axis: &'static str,
    unit: &'static str,
    groups: Vec<Group>,
}

struct Group {
    name: String,
    bars: Vec<(&'static str, f64)>,
}

const SERVERS: [&str; 5] = ["newswire", "epoll", "axum", "nchan", "floor"];

/// The charts as file names and contents, as far as there are figures for them. `run` says, on a
/// line or two, when and on what.
pub fn charts(figures: &Figures, run: &str) -> Vec<(&'static str, String)> {
    let group = |name: String, scenario, case: &str, figure| {
        let bar = |server| Some((server, figures.find(scenario, case, server, figure)?.median));
        // What one server leaves behind may be the next one's gain: memory below zero says nothing.
        let bars = SERVERS.into_iter().filter_map(bar).filter(|(_, value)| *value > 0.0).collect();
        Group { name, bars }
    };
    let flat_out = Chart {
        title: "Flat out: deliveries per second",
        note: "100-byte events to one channel, as fast as subscribers receive them. More is better.",
        axis: "deliveries per second",
        unit: "",
        groups: [1, 100, 1_000, 10_000]
            .map(|number| group(subscribers(number), FLAT_OUT, &subscribers(number), DELIVERIES))
            .into(),
    };
    let paced = Chart {
        title: "At a steady pace: the server's CPU time per delivery",
        note: "100-byte events. Floor: a bare loop of blocking writes. Less is better.",
        axis: "microseconds",
        unit: " us",
        groups: vec![
            group("1,000 subscribers, 30 events a second".into(), PACED, &paced_case(1_000), CPU),
            group("15,000 subscribers, 2 events a second".into(), GROWTH, &subscribers(15_000), CPU),
            group("1,000 channels of 10 subscribers, 3 events a second each".into(), MANY_CHANNELS, MANY_PACED, CPU),
        ],
    };
    let memory = Chart {
        title: "10,000 idle subscribers: memory per connection",
        note: "The whole system counts the kernel's part, both ends of the socket. Less is better.",
        axis: "KB (1,024 bytes)",
        unit: " KB",
        groups: vec![
            group("whole system".into(), IDLE, &idle_case(), SYSTEM_MEMORY),
            group("of that, the server's processes".into(), IDLE, &idle_case(), SERVER_MEMORY),
        ],
    };
    [("flat-out.svg", flat_out), ("cpu-per-delivery.svg", paced), ("memory.svg", memory)]
        .into_iter()
        .filter_map(|(file, chart)| Some((file, chart.draw(run)?)))
        .collect()
}

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 24.0;
/// Where bars begin, after the servers' names, and how long the longest may be, before its value.
const LEFT: f64 = 104.0;
const LONGEST: f64 = WIDTH - LEFT - MARGIN - 76.0;
const BAR: f64 = 22.0;

/// Text and shapes over a card of their own, since a page may be light where the reader's system is
/// dark.
const STYLE: &str = "
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2933}
.title{font-size:18px;font-weight:600}.group{font-weight:600}.quiet{fill:#5b6773}.end{text-anchor:end}.middle{text-anchor:middle}
.card{fill:#ffffff;stroke:#d5dbe1}.grid{stroke:#e3e8ed}
.newswire{fill:#0b7a75}.epoll{fill:#8a5a9e}.axum{fill:#c9702a}.nchan{fill:#5d7fb8}.floor{fill:#98a2ad}
@media(prefers-color-scheme:dark){text{fill:#e6ebf0}.quiet{fill:#9aa7b4}.card{fill:#14191f;stroke:#303942}.grid{stroke:#2a323a}
.newswire{fill:#2fb8ae}.epoll{fill:#b98acb}.axum{fill:#e0914f}.nchan{fill:#7f9fd6}.floor{fill:#7b8692}}
";

impl Chart {
    fn draw(&self, run: &str) -> Option<String> {
        let groups: Vec<&Group> = self.groups.iter().filter(|group| !group.bars.is_empty()).collect();
        let values = || groups.iter().flat_map(|group| &group.bars).map(|(_, value)| *value);
        let most = values().fold(0.0, f64::max);
        if most <= 0.0 {
            return None;
        }
        let mut body = String::new();
        let mut text = |class: &str, x: f64, y: f64, text: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\">{text}</text>");
        };
        text("title", MARGIN, 38.0, self.title);
        text("quiet", MARGIN, 60.0, self.note);
        let top = 80.0;
        let mut shapes = String::new();
        let mut y = top;
        for group in &groups {
            y += 24.0;
            text("group", MARGIN, y, &group.name);
            y += 8.0;
            for &(server, value) in &group.bars {
                let length = (value.max(0.0) / most * LONGEST).max(1.0);
                let _ = writeln!(
                    shapes,
                    "<rect class=\"{server}\" x=\"{LEFT}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"{:.0}\" rx=\"2\"/>",
                    y + 2.0,
                    BAR - 4.0
                );
                text("end", LEFT - 8.0, y + 16.0, server);
                text("", LEFT + length + 6.0, y + 16.0, &format!("{}{}", Short(value), self.unit));
                y += BAR;
            }
        }
        let bottom = y + 10.0;
        let step = step(most);
        let mut grid = String::new();
        for tick in 0..=(most / step) as u32 {
            let value = f64::from(tick) * step;
            let x = LEFT + value / most * LONGEST;
            let _ = writeln!(grid, "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom:.0}\"/>");
            text("quiet middle", x, bottom + 18.0, &Short(value).to_string());
        }
        text("quiet middle", LEFT + LONGEST / 2.0, bottom + 40.0, self.axis);
        for (line, said) in run.lines().enumerate() {
            text("quiet", MARGIN, bottom + 68.0 + 18.0 * line as f64, said);
        }
        let height = bottom + 70.0 + 18.0 * run.lines().count() as f64;
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{:.0}\" rx=\"8\"/>\n\
             {grid}{shapes}{body}</svg>\n",
            WIDTH - 1.0,
            height - 1.0,
            title = self.title,
        ))
    }
}

/// A round distance between ticks: 1, 2 or 5 times a power of ten, for five of them at most.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 5.0).unwrap_or(most)
}
