//! newswire measured beside its peers.
mod figures;
mod load;
mod net;
mod peer;
mod peer_axum;
mod peer_floor;
mod probe;
mod scenarios;
mod visits;
mod wire;
use lexopt::prelude::*;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == "peer") {
        let page = std::fs::read(&args[2])?;
        return Ok(if args[1] == "axum" { peer_axum::serve(page)? } else { peer_floor::serve(page)? });
    }
    let mut parser = lexopt::Parser::from_args(args.drain(..));
    let (mut newswire, mut only, mut rounds, mut quick) = (None, None, 3, false);
    let mut peers = peer::Peer::ALL.to_vec();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("newswire") => newswire = Some(parser.value()?.into()),
            Long("only") => only = Some(parser.value()?.string()?),
            Long("rounds") => rounds = parser.value()?.parse()?,
            Long("quick") => quick = true,
            Long("peers") => { let v = parser.value()?.string()?; peers.retain(|p| v.split(',').any(|n| n == p.name())); }
            _ => return Err(arg.unexpected().into()),
        }
    }
    probe::allow_open_files(20000)?;
    if let Ok(core) = std::env::var("PIN") {
        let mut set = rustix::thread::CpuSet::new(); set.set(core.parse()?);
        // threads of children inherit; only for trying out
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let stage = peer::Stage::new(newswire)?;
    peers.retain(|p| stage.lacks(*p).is_none());
    let mut bench = scenarios::Bench { stage, peers, rounds, quick, figures: Default::default() };
    for s in &scenarios::SCENARIOS {
        if only.as_ref().is_none_or(|o: &String| o.split(',').any(|n| n == s.name)) {
            (s.run)(&mut bench);
            println!("\n{}: {}\n{}", s.name, s.about, bench.figures.table(s.name));
        }
    }
    Ok(())
}
