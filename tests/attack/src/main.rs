//! newswire attacked, by a program that has nothing in common with it but the protocols: it starts
//! the server itself, on a port of loopback, and says at the end what it has seen, or why that must
//! not have been. In `tests/attack`, after `make`:
//!
//! ```text
//! cargo run --release -- flood --newswire ../../target/newswire
//! cargo run --release -- soak --newswire ../../target/newswire --minutes 20
//! cargo run --release -- kill --newswire ../../target/newswire --rounds 200
//! ```
//!
//! Read it in this order; each file uses only those before it, and what stands here:
//!
//! - `report`, what was seen; `client`, requests and subscriptions; `server`, a newswire process
//!   and its vital signs; `payload`, events that can be recognized;
//! - `visits`, that do not last; `views` of several channels; `swarm`, many attackers; `citizen`, the well-behaved client; `siege`,
//!   the one against the other; `shortage`, of what the system gives; `flood`, all of these;
//! - `habit`, of a subscriber; `oracle`, what every client must have seen; `stage`, what the clients share that publish and
//!   subscribe; `publisher`; `subscriber`; `crowd`, all of them; `soak` and `kill`, their attacks.

mod citizen;
mod client;
mod crowd;
mod flood;
mod habit;
mod kill;
mod oracle;
mod payload;
mod publisher;
mod report;
mod server;
mod shortage;
mod siege;
mod soak;
mod stage;
mod subscriber;
mod swarm;
mod views;
mod visits;

use lexopt::prelude::*;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
newswire attacked

    attack flood --newswire PATH [--connections N] [--only PART] [--seed N]
    attack soak --newswire PATH [--minutes N] [--seed N]
    attack kill --newswire PATH [--rounds N] [--journal WHEN] [--seed N]

--newswire PATH    the server to attack
--connections N    short connections in the last part of the flood   [500000]
--only PART        one part of the flood: silence, heads, bodies, refused, lines,
                   readers, streams, descriptors, threads, directory, views, short
--minutes N        how long the soak takes                           [20]
--rounds N         how often the server is killed                    [200]
--journal WHEN     it has a journal that is synced then: always, interval or never
--seed N           of everything that is left to chance, as far as threads allow it
";

/// What goes wrong with the attack itself, not with the server.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What the command line asks for.
struct Order {
    newswire: PathBuf,
    connections: u64,
    only: Option<String>,
    minutes: f64,
    rounds: u64,
    journal: Option<String>,
    seed: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(report) => report.conclude(),
        Err(error) => {
            eprintln!("attack: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Outcome<Report> {
    let mut arguments = lexopt::Parser::from_env();
    let (mut attack, mut newswire) = (None, None);
    let mut order = Order {
        newswire: PathBuf::new(),
        connections: 500_000,
        only: None,
        minutes: 20.0,
        rounds: 200,
        journal: None,
        seed: fastrand::u64(..1_000_000),
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(value) if attack.is_none() => attack = Some(value.string()?),
            Long("newswire") => newswire = Some(PathBuf::from(arguments.value()?)),
            Long("connections") => order.connections = arguments.value()?.parse()?,
            Long("only") => order.only = Some(arguments.value()?.string()?),
            Long("minutes") => order.minutes = arguments.value()?.parse()?,
            Long("journal") => order.journal = Some(arguments.value()?.string()?),
            Long("rounds") => order.rounds = arguments.value()?.parse()?,
            Long("seed") => order.seed = arguments.value()?.parse()?,
            Long("help") => {
                print!("{HELP}");
                std::process::exit(0);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    order.newswire = newswire.ok_or("--newswire says where the server is")?;
    let attack = match attack.as_deref() {
        Some("flood") => flood::run,
        Some("soak") => soak::run,
        Some("kill") => kill::run,
        _ => return Err("flood, soak or kill? See --help".into()),
    };
    println!("seed {}", order.seed);
    let report = Report::new();
    // Most likely the server has ended, or says what it must not: what was seen until then counts.
    if let Err(error) = attack(&order, &report) {
        report.violation(format!("the attack could not go on: {error}"));
    }
    Ok(report)
}
