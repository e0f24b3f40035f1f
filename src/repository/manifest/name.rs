//! A file name as its shape and its numbers.
//!
//! `1763800000.M123456P1234.mx1,S=2345,W=2399:2,S` is the shape `_.M_P_.mx_,S=_,W=_:2,S` with five numbers in it. The
//! shape is that of the whole folder; of the numbers most follow from the file's time or size, or count up.

use super::column::Malformed;

/// Most numbers that are taken out of a name; further digits stay in its shape.
pub(super) const HOLES: usize = 8;

/// Stands in a shape where a number was: no name has it.
const HOLE: u8 = 0;

/// Digits of a number that fits into 64 bits whatever they are.
const DIGITS: usize = 18;

/// Takes the numbers out of a name: what begins with a digit other than 0 and has nothing but digits.
pub(super) fn split(name: &[u8]) -> (Vec<u8>, Vec<u64>) {
    let (mut shape, mut numbers) = (Vec::with_capacity(name.len()), Vec::new());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        if numbers.len() == HOLES || !matches!(byte, b'1'..=b'9') {
            shape.push(byte);
            rest = behind;
            continue;
        }
        let digits = rest.iter().take(DIGITS).take_while(|byte| byte.is_ascii_digit());
        let (length, number) =
            digits.fold((0, 0), |(length, number), digit| (length + 1, number * 10 + u64::from(digit - b'0')));
        shape.push(HOLE);
        numbers.push(number);
        rest = rest.get(length..).unwrap_or_default();
    }
    (shape, numbers)
}

/// How many numbers a shape wants.
///
/// # Errors
/// Where they are more than a name has.
pub(super) fn holes(shape: &[u8]) -> Result<usize, Malformed> {
    let holes = shape.iter().filter(|&&byte| byte == HOLE).count();
    if holes > HOLES {
        return Err(Malformed("a name has too many numbers"));
    }
    Ok(holes)
}

/// Puts the numbers back, behind what `name` has already.
pub(super) fn join(name: &mut Vec<u8>, shape: &[u8], mut numbers: impl Iterator<Item = u64>) {
    for &byte in shape {
        match byte {
            HOLE => push_decimal(name, numbers.next().unwrap_or_default()),
            byte => name.push(byte),
        }
    }
}

fn push_decimal(bytes: &mut Vec<u8>, mut number: u64) {
    let begin = bytes.len();
    loop {
        bytes.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    bytes.get_mut(begin..).unwrap_or_default().reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(shape: &[u8], numbers: Vec<u64>) -> Vec<u8> {
        let mut name = Vec::new();
        join(&mut name, shape, numbers.into_iter());
        name
    }

    #[test]
    fn the_numbers_of_a_message_leave_its_shape() {
        let (shape, numbers) = split(b"1763800000.M123456P1234.mx1,S=2345,W=2399:2,S");
        assert_eq!(shape, b"\0.M\0P\0.mx\0,S=\0,W=\0:\0,S");
        assert_eq!(numbers, [1_763_800_000, 123_456, 1234, 1, 2345, 2399, 2]);
        let (shape, numbers) = split(b"V0000FD07I0012_0");
        assert_eq!((&shape[..], &numbers[..]), (&b"V0000FD0\0I00\0_0"[..], &[7, 12][..]));
    }

    proptest! {
        #[test]
        fn a_name_comes_back(name in "[0-9a-c.]{0,60}") {
            let (shape, numbers) = split(name.as_bytes());
            prop_assert_eq!(holes(&shape), Ok(numbers.len()));
            prop_assert_eq!(joined(&shape, numbers), name.as_bytes());
        }
    }
}
