//! Replies of Redis, and bytes that are none.

use super::{fuzz, mutate};
use crate::server::Dice;

#[path = "../../fuzz/src/replies.rs"]
mod oracle;

use oracle::{check, check_command};

/// A reply as Redis writes it, often.
fn wire(dice: &mut Dice, depth: usize) -> Vec<u8> {
    let count = dice.below(4);
    let nested = |dice: &mut Dice, kind: &str, values: usize| {
        let head = format!("{kind}{count}\r\n").into_bytes();
        (0..values).fold(head, |wire, _| [wire, self::wire(dice, depth + 1)].concat())
    };
    match dice.below(if depth < 4 { 12 } else { 8 }) {
        0 => b"+OK\r\n".to_vec(),
        1 => format!(":{}\r\n", dice.next() as i64).into_bytes(),
        2 => b"_\r\n".to_vec(),
        3 => b"$-1\r\n".to_vec(),
        4 => format!("-ERR {}\r\n", "no".repeat(dice.below(400))).into_bytes(),
        5..8 => format!("${}\r\n{}\r\n", count * 9, "\r\n$1\r\n:x-".repeat(count)).into_bytes(),
        8 => nested(dice, "%", 2 * count),
        9 if depth == 0 => nested(dice, ">", count),
        _ => nested(dice, "*", count),
    }
}

#[test]
fn replies_are_the_same_however_they_are_cut_and_within_their_bounds() {
    fuzz("replies of Redis", |dice| {
        let mut bytes: Vec<u8> = (0..1 + dice.below(4)).flat_map(|_| wire(dice, 0)).collect();
        mutate(dice, &mut bytes);
        check(&bytes, 1 + dice.below(40), 20, 2_000);
    });
}

#[test]
fn a_command_of_any_arguments_is_read_as_it_was_encoded() {
    fuzz("commands to Redis", |dice| {
        let argument = |dice: &mut Dice| {
            let mut bytes = b"*1\r\n$3".to_vec();
            mutate(dice, &mut bytes);
            bytes.truncate(20);
            bytes
        };
        check_command((0..1 + dice.below(5)).map(|_| argument(dice)).collect());
    });
}
