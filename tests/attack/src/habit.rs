//! How subscribers behave.

use std::ops::Range;

/// How a subscriber behaves.
pub struct Habit {
    pub name: &'static str,
    /// How long it stays before it cuts its connection; for good if empty.
    pub stays_ms: Range<u64>,
    pub away_ms: Range<u64>,
    /// How long it reads before it stops for a while; always if empty.
    pub reads_ms: Range<u64>,
    pub stalls_ms: Range<u64>,
    /// Its socket's receive buffer, and the most it takes in one read.
    pub room: usize,
    pub piece: usize,
    pub half_closes: bool,
    pub from_earliest: bool,
}

const STEADY: Habit = Habit {
    name: "steady",
    stays_ms: 0..0,
    away_ms: 1..50,
    reads_ms: 0..0,
    stalls_ms: 0..0,
    room: 0,
    piece: 16 * 1024,
    half_closes: false,
    from_earliest: false,
};

pub const HABITS: [Habit; 8] = [
    STEADY,
    Habit { name: "restless", stays_ms: 1..40, away_ms: 1..30, ..STEADY },
    Habit { name: "cutting", stays_ms: 50..1_500, away_ms: 1..400, ..STEADY },
    Habit { name: "away for long", stays_ms: 200..1_000, away_ms: 500..3_000, ..STEADY },
    Habit { name: "stalling", reads_ms: 100..1_000, stalls_ms: 200..3_000, room: 8 * 1024, ..STEADY },
    Habit {
        name: "stalling and cutting",
        stays_ms: 100..4_000,
        reads_ms: 10..300,
        stalls_ms: 50..2_000,
        room: 4 * 1024,
        piece: 700,
        ..STEADY
    },
    Habit { name: "half closed", stays_ms: 300..3_000, half_closes: true, ..STEADY },
    Habit { name: "from the earliest", stays_ms: 500..4_000, from_earliest: true, piece: 97, ..STEADY },
];
