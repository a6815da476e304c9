//! What was seen, as a table, and what must not have been.

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Collects from all threads; says each violation when it happens, and everything at the end.
pub struct Report {
    started: Instant,
    rows: Mutex<Vec<(String, String)>>,
    violations: Mutex<Vec<String>>,
}

/// Beyond these, violations are counted and not said: they come in thousands or not at all.
const SAID: usize = 40;

impl Report {
    pub fn new() -> Report {
        Report { started: Instant::now(), rows: Mutex::default(), violations: Mutex::default() }
    }

    /// A line of the table.
    pub fn row(&self, what: impl Into<String>, figure: impl ToString) {
        let (what, figure) = (what.into(), figure.to_string());
        println!("{:7.1}s  {what:<44} {figure}", self.seconds());
        hold(&self.rows).push((what, figure));
    }

    /// A promise that was broken.
    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        let mut violations = hold(&self.violations);
        if violations.len() < SAID {
            println!("{:7.1}s  VIOLATION {what}", self.seconds());
        }
        violations.push(what);
    }

    pub fn expect(&self, is_so: bool, what: impl Into<String>) {
        if !is_so {
            self.violation(what);
        }
    }

    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The table again, whole, and the verdict.
    pub fn conclude(self) -> ExitCode {
        println!();
        for (what, figure) in hold(&self.rows).iter() {
            println!("{what:<44} {figure}");
        }
        let violations = hold(&self.violations);
        println!("{:<44} {:.0} s", "time", self.seconds());
        println!("{:<44} {}", "violations", violations.len());
        for violation in violations.iter().take(SAID) {
            println!("    {violation}");
        }
        if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The guard, also after another thread panicked: the report is wanted then most of all.
pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
