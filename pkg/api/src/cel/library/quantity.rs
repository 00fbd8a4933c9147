//! Kubernetes' quantities.

use std::cmp::Ordering;

use super::Row;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::value::{Error, Value};
use crate::quantity::Quantity;

pub(super) const ROWS: &[Row] = &[
    ("quantity", "string_to_quantity", "(string) -> kubernetes.Quantity", |c| {
        Quantity::parse(&c.text(0)?).map(|q| Extension::Quantity(q).into()).map_err(Error::failed)
    }),
    ("isQuantity", "is_quantity_string", "(string) -> bool", |c| Ok(Quantity::parse(&c.text(0)?).is_ok().into())),
    ("sign", "quantity_sign", "(kubernetes.Quantity) -> int", |c| {
        let q = quantity(c, 0)?;
        Ok(Value::Int(if q.is_zero() {
            0
        } else if q.is_negative() {
            -1
        } else {
            1
        }))
    }),
    ("isGreaterThan", "quantity_is_greater_than", "kubernetes.Quantity.(kubernetes.Quantity) -> bool", |c| {
        Ok(compare(c)?.is_gt().into())
    }),
    ("isLessThan", "quantity_is_less_than", "kubernetes.Quantity.(kubernetes.Quantity) -> bool", |c| {
        Ok(compare(c)?.is_lt().into())
    }),
    ("compareTo", "quantity_compare_to", "kubernetes.Quantity.(kubernetes.Quantity) -> int", |c| {
        Ok(Value::Int(compare(c)? as i64))
    }),
    ("asApproximateFloat", "quantity_get_float", "kubernetes.Quantity.() -> double", |c| {
        Ok(Value::Double(quantity(c, 0)?.approximately()))
    }),
    ("asInteger", "quantity_get_int", "kubernetes.Quantity.() -> int", |c| {
        let whole = quantity(c, 0)?.whole();
        whole.map(Value::Int).ok_or_else(|| Error::failed("cannot convert value to integer"))
    }),
    ("isInteger", "quantity_is_integer", "kubernetes.Quantity.() -> bool", |c| {
        Ok(quantity(c, 0)?.whole().is_some().into())
    }),
    ("add", "quantity_add", "kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity", |c| {
        Ok(Extension::Quantity(quantity(c, 0)?.plus(quantity(c, 1)?)).into())
    }),
    ("add", "quantity_add_int", "kubernetes.Quantity.(int) -> kubernetes.Quantity", |c| {
        Ok(Extension::Quantity(quantity(c, 0)?.plus(quantity(c, 1)?)).into())
    }),
    ("sub", "quantity_sub", "kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity", |c| {
        Ok(Extension::Quantity(quantity(c, 0)?.minus(quantity(c, 1)?)).into())
    }),
    ("sub", "quantity_sub_int", "kubernetes.Quantity.(int) -> kubernetes.Quantity", |c| {
        Ok(Extension::Quantity(quantity(c, 0)?.minus(quantity(c, 1)?)).into())
    }),
];

fn quantity(call: &Call<'_, '_>, index: usize) -> Result<Quantity, Error> {
    match call.arg(index) {
        Value::Extension(Extension::Quantity(quantity)) => Ok(*quantity),
        Value::Int(units) => Ok(Quantity::from_units(*units)),
        _ => Err(Error::no_overload()),
    }
}

fn compare(call: &mut Call<'_, '_>) -> Result<Ordering, Error> {
    quantity(call, 0)?.partial_cmp(&quantity(call, 1)?).ok_or_else(Error::no_overload)
}
