//! The protobuf wire format: tags, varints and length-delimited parts.

/// Bytes that are no protobuf message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the message ends in the middle of a field")]
    Truncated,
    #[error("a number is longer than 64 bits")]
    LongNumber,
    #[error("field {0} has wire type {1}, which it cannot have")]
    WireType(u32, u8),
    #[error("field number 0 is not allowed")]
    NoNumber,
    #[error("field {0} is not valid UTF-8")]
    Text(u32),
    #[error("field {0} does not hold JSON")]
    Json(u32),
    #[error("field {0} holds a value out of range")]
    Range(u32),
    #[error("messages are nested too deeply")]
    Depth,
    #[error("the message has too many elements")]
    Elements,
}

/// One field as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and content; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Part<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::LongNumber)?;
        if number == 0 {
            return Err(WireError::NoNumber);
        }
        let part = match tag & 7 {
            0 => Part::Varint(self.varint()?),
            1 => Part::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Part::Bytes(self.take(length)?)
            }
            5 => self.array::<4>().map(|_| Part::Fixed32)?,
            other => return Err(WireError::WireType(number, other as u8)),
        };
        Ok(Some((number, part)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Truncated } else { WireError::LongNumber })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number; negative ones take ten bytes.
pub(crate) fn write_int(out: &mut Vec<u8>, number: u32, value: i64) {
    write_varint(out, u64::from(number) << 3);
    write_varint(out, value as u64);
}

pub(crate) fn write_double(out: &mut Vec<u8>, number: u32, value: f64) {
    write_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    if number < 16 && bytes.len() < 0x80 {
        out.extend_from_slice(&[(number << 3 | 2) as u8, bytes.len() as u8]);
        return out.extend_from_slice(bytes);
    }
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A length-delimited part that `content` writes.
pub(crate) fn write_part(out: &mut Vec<u8>, number: u32, content: impl FnOnce(&mut Vec<u8>)) {
    let start = open_part(out, number);
    content(out);
    close_part(out, start);
}

/// Begins a length-delimited part; what it gives is for [`close_part`].
pub(super) fn open_part(out: &mut Vec<u8>, number: u32) -> usize {
    write_varint(out, u64::from(number) << 3 | 2);
    // Most messages are short: one byte is kept for the length, and more are made room for afterwards.
    out.push(0);
    out.len()
}

/// Ends the part that began there.
pub(super) fn close_part(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
        return;
    }
    let (mut prefix, mut size, mut rest) = ([0; 10], 0, length);
    while rest >= 0x80 {
        prefix[size] = rest as u8 | 0x80;
        (rest, size) = (rest >> 7, size + 1);
    }
    prefix[size] = rest as u8;
    out.resize(start + length + size, 0);
    out.copy_within(start..start + length, start + size);
    out[start - 1..start + size].copy_from_slice(&prefix[..=size]);
}
