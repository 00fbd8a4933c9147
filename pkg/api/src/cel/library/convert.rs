//! Conversions between types.

use super::Row;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::time;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("bool", "bool_to_bool", "(bool) -> bool", same),
    ("bool", "string_to_bool", "(string) -> bool", to_bool),
    ("bytes", "bytes_to_bytes", "(bytes) -> bytes", same),
    ("bytes", "string_to_bytes", "(string) -> bytes", |c| Ok(Value::Bytes(c.text(0)?.as_bytes().into()))),
    ("double", "double_to_double", "(double) -> double", same),
    ("double", "int64_to_double", "(int) -> double", to_double),
    ("double", "string_to_double", "(string) -> double", to_double),
    ("double", "uint64_to_double", "(uint) -> double", to_double),
    ("duration", "duration_to_duration", "(duration) -> duration", same),
    ("duration", "int64_to_duration", "(int) -> duration", |c| Ok(Value::Duration(c.int(0)?))),
    ("duration", "string_to_duration", "(string) -> duration", to_duration),
    ("dyn", "to_dyn", "(A) -> dyn", same),
    ("int", "int64_to_int64", "(int) -> int", same),
    ("int", "double_to_int64", "(double) -> int", to_int),
    ("int", "duration_to_int64", "(duration) -> int", to_int),
    ("int", "string_to_int64", "(string) -> int", to_int),
    ("int", "timestamp_to_int64", "(timestamp) -> int", to_int),
    ("int", "uint64_to_int64", "(uint) -> int", to_int),
    ("string", "string_to_string", "(string) -> string", same),
    ("string", "bool_to_string", "(bool) -> string", to_string),
    ("string", "bytes_to_string", "(bytes) -> string", to_string),
    ("string", "double_to_string", "(double) -> string", to_string),
    ("string", "duration_to_string", "(duration) -> string", to_string),
    ("string", "int64_to_string", "(int) -> string", to_string),
    ("string", "timestamp_to_string", "(timestamp) -> string", to_string),
    ("string", "uint64_to_string", "(uint) -> string", to_string),
    ("string", "ip_to_string", "(net.IP) -> string", to_string),
    ("string", "cidr_to_string", "(net.CIDR) -> string", to_string),
    ("timestamp", "timestamp_to_timestamp", "(timestamp) -> timestamp", same),
    ("timestamp", "int64_to_timestamp", "(int) -> timestamp", to_timestamp),
    ("timestamp", "string_to_timestamp", "(string) -> timestamp", to_timestamp),
    ("type", "type", "(A) -> type(A)", |c| Ok(Value::Type(c.arg(0).ty()))),
    ("uint", "uint64_to_uint64", "(uint) -> uint", same),
    ("uint", "double_to_uint64", "(double) -> uint", to_uint),
    ("uint", "int64_to_uint64", "(int) -> uint", to_uint),
    ("uint", "string_to_uint64", "(string) -> uint", to_uint),
];

/// Of literals these are done once, when an expression is compiled.
pub(in crate::cel) const OF_LITERALS: [&str; 8] =
    ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];

fn same<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    Ok(call.take(0))
}

fn to_bool<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    match &*call.text(0)? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true.into()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false.into()),
        _ => Err(Error::failed("type conversion error from 'string' to 'bool'")),
    }
}

fn to_double<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    Ok(Value::Double(match call.arg(0) {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::String(text) => {
            text.parse().map_err(|_| Error::failed("type conversion error from 'string' to 'double'"))?
        }
        _ => return Err(Error::no_overload()),
    }))
}

fn to_duration<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let read = time::read_duration(&call.text(0)?);
    read.map(Value::Duration)
        .ok_or_else(|| Error::failed("type conversion error from 'string' to 'google.protobuf.Duration'"))
}

fn to_timestamp<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let nanos = match call.arg(0) {
        Value::Int(seconds) => i128::from(*seconds) * 1_000_000_000,
        Value::String(text) => time::read_timestamp(text)
            .ok_or_else(|| Error::failed(format!("invalid RFC 3339 timestamp {:?}", &**text)))?,
        _ => return Err(Error::no_overload()),
    };
    let fits = (time::EARLIEST..=time::LATEST).contains(&nanos);
    fits.then_some(Value::Timestamp(nanos)).ok_or_else(|| Error::failed("timestamp overflow"))
}

fn to_int<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let overflow = || Error::failed("integer overflow");
    Ok(Value::Int(match call.arg(0) {
        // The bounds themselves have no exact neighbours.
        Value::Double(value) if *value > -9.223372036854775e18 && *value < 9.223372036854775e18 => *value as i64,
        Value::Double(_) => return Err(overflow()),
        Value::Duration(nanos) => *nanos,
        Value::Timestamp(nanos) => i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| overflow())?,
        Value::Uint(value) => i64::try_from(*value).map_err(|_| overflow())?,
        Value::String(text) => {
            text.parse().map_err(|_| Error::failed("type conversion error from 'string' to 'int'"))?
        }
        _ => return Err(Error::no_overload()),
    }))
}

fn to_uint<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let overflow = || Error::failed("unsigned integer overflow");
    Ok(Value::Uint(match call.arg(0) {
        Value::Double(value) if *value >= 0.0 && *value < 1.844674407370955e19 => *value as u64,
        Value::Double(_) => return Err(overflow()),
        Value::Int(value) => u64::try_from(*value).map_err(|_| overflow())?,
        Value::String(text) => {
            text.parse().map_err(|_| Error::failed("type conversion error from 'string' to 'uint'"))?
        }
        _ => return Err(Error::no_overload()),
    }))
}

fn to_string<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let text = match call.arg(0) {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => super::printf::shortest(*value),
        Value::Duration(nanos) => time::show_duration(*nanos),
        Value::Timestamp(nanos) => time::show_timestamp(*nanos),
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes);
            text.map_err(|_| Error::failed("invalid UTF-8 in bytes, cannot convert to string"))?.to_owned()
        }
        Value::Extension(Extension::Ip(ip)) => ip.to_string(),
        Value::Extension(Extension::Cidr(cidr)) => cidr.to_string(),
        _ => return Err(Error::no_overload()),
    };
    call.new_text(text)
}
