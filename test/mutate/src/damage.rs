//! How inputs are damaged.

/// Longest input that is made.
const LONGEST: usize = 256 * 1024;

/// A small generator of pseudo-random numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> Option<&'a T> {
        let index = self.below(all.len());
        all.get(index).copied()
    }

    /// A range of the bytes, mostly a short one.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let longest = if self.below(4) == 0 { bytes.len() } else { 16 };
        start..bytes.len().min(start + self.below(longest + 1))
    }
}

/// Texts that make decoders recurse, overflow or stumble.
const NUISANCES: [&str; 36] = [
    "0",
    "-1",
    "1e999",
    "-0",
    "18446744073709551616",
    "9223372036854775807",
    "-9223372036854775808",
    "1e-400",
    "NaN",
    "0x7fffffff",
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "ü",
    "\r\n",
    "\t",
    " ",
    ",",
    ":",
    "/",
    "~0",
    "~1",
    "..",
    "*",
    "&a",
    "*a",
    "---\n",
];

/// Inputs that every decoder should see whole.
pub fn extremes() -> Vec<Vec<u8>> {
    let mut inputs = vec![Vec::new(), vec![0; 4096], vec![0xff; 4096], "a".repeat(LONGEST).into_bytes()];
    for opening in ["[", "{\"a\":", "(", "!", "-", "{", "[[0],", "- ", "? ", "a.", "a(", "\n ", "&a ", "%25"] {
        inputs.push(opening.repeat(LONGEST / 16 / opening.len()).into_bytes());
    }
    let closed =
        |open: &str, close: &str, depth: usize| [open.repeat(depth), close.repeat(depth)].concat().into_bytes();
    for depth in [60, 130, 10_000] {
        inputs.push(closed("[", "]", depth));
        inputs.push(closed("{\"a\":", "}", depth));
        inputs.push(closed("(", ")", depth));
    }
    inputs
}

/// Seeds and words again and again: what takes more than linear time shows.
pub fn repeated<'a>(seeds: &'a [&[u8]], words: &'a [&str]) -> impl Iterator<Item = Vec<u8>> {
    let parts = seeds.iter().copied().chain(words.iter().map(|word| word.as_bytes()));
    parts.filter(|part| !part.is_empty()).map(|part| part.repeat(LONGEST / 4 / part.len()))
}

/// A seed with a few kinds of damage.
pub fn damaged(random: &mut Random, seeds: &[&[u8]], words: &[&str]) -> Vec<u8> {
    let mut input = random.pick(seeds).unwrap_or_default().to_vec();
    for _ in 0..=random.below(6) {
        hurt(random, &mut input, seeds, words);
        input.truncate(LONGEST);
    }
    input
}

fn hurt(random: &mut Random, input: &mut Vec<u8>, seeds: &[&[u8]], words: &[&str]) {
    let at = random.below(input.len() + 1);
    match random.below(10) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => input.insert(at, random.below(256) as u8),
        2 => {
            let range = random.range(input);
            input.drain(range);
        }
        // Once more, or very often.
        3 => {
            let range = random.range(input);
            let times = if random.below(8) == 0 { random.below(5000) } else { random.below(4) };
            let part = input[range].repeat(times);
            input.splice(at..at, part.into_iter().take(LONGEST));
        }
        4 => {
            let other = random.pick(seeds).unwrap_or_default();
            let part = other[random.range(other)].to_vec();
            input.splice(at..at, part);
        }
        5 => {
            let other = random.pick(seeds).unwrap_or_default();
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        6 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = [0, 1, 0x7f, 0x80, 0xff][random.below(5)];
            }
        }
        7 => number(random, input),
        _ => {
            let own = !words.is_empty() && random.below(2) == 0;
            let word = if own { random.pick(words) } else { random.pick(&NUISANCES) }.unwrap_or_default();
            let end = if random.below(2) == 0 { at } else { random.range(&input[at..]).end + at };
            input.splice(at..end, word.bytes());
        }
    }
}

/// Puts another number in the place of one.
fn number(random: &mut Random, input: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..input.len()).filter(|i| input[*i].is_ascii_digit()).collect();
    let Some(start) = starts.get(random.below(starts.len())).copied() else { return };
    let end = start + input[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let other = NUISANCES[random.below(9)];
    input.splice(start..end, other.bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_the_same_in_every_run_and_never_too_long() {
        let all = |seed| {
            let mut random = Random::new(seed);
            (0..2000).map(|_| damaged(&mut random, &[b"{\"a\": 12}", b"x"], &["word"])).collect::<Vec<_>>()
        };
        assert_eq!(all(3), all(3));
        assert!(all(3) != all(5));
        assert!(all(3).iter().all(|input| input.len() <= LONGEST));
        assert!(all(3).iter().any(|input| input.windows(4).any(|w| w == b"word")));
    }
}
