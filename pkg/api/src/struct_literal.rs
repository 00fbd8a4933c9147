//! Struct literals of CEL, such as `Object.spec{replicas: 3}` and `JSONPatch{op: "add"}`. The evaluator does not know
//! them; as their types only say which fields may be set, they become maps.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, MapEntryExpr, MapExpr, StructExpr};

/// How deep the expression goes.
pub(crate) fn depth(expression: &IdedExpr) -> usize {
    let mut below = 0;
    each_child(expression, &mut |child| below = below.max(depth(child)));
    below + 1
}

pub(crate) fn each_child<'a>(expression: &'a IdedExpr, tell: &mut dyn FnMut(&'a IdedExpr)) {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(tell),
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter().for_each(tell);
        }
        Expr::List(list) => list.elements.iter().for_each(tell),
        Expr::Select(select) => tell(&select.operand),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            entries.iter().for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [&entry.key, &entry.value].into_iter().for_each(&mut *tell),
                EntryExpr::StructField(field) => tell(&field.value),
            });
        }
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

/// Turns all struct literals in the expression into maps; the error names a type that does not exist.
pub(crate) fn into_maps(expression: &mut IdedExpr) -> Result<(), String> {
    match &mut expression.expr {
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                into_maps(target)?;
            }
            call.args.iter_mut().try_for_each(into_maps)
        }
        Expr::Comprehension(comprehension) => {
            let comprehension = comprehension.as_mut();
            into_maps(&mut comprehension.iter_range)?;
            into_maps(&mut comprehension.accu_init)?;
            into_maps(&mut comprehension.loop_cond)?;
            into_maps(&mut comprehension.loop_step)?;
            into_maps(&mut comprehension.result)
        }
        Expr::List(list) => list.elements.iter_mut().try_for_each(into_maps),
        Expr::Select(select) => into_maps(&mut select.operand),
        Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => into_maps(&mut entry.key).and_then(|()| into_maps(&mut entry.value)),
            EntryExpr::StructField(field) => into_maps(&mut field.value),
        }),
        Expr::Struct(literal) => {
            let name = literal.type_name.as_str();
            if name != "JSONPatch" && name != "Object" && !name.starts_with("Object.") {
                return Err(format!("undeclared type '{name}'"));
            }
            let mut entries = std::mem::take(&mut literal.entries);
            for entry in &mut entries {
                if let EntryExpr::StructField(field) = &mut entry.expr {
                    into_maps(&mut field.value)?;
                    let key = Expr::Literal(LiteralValue::String(field.field.as_str().into()));
                    let key = IdedExpr { id: entry.id, expr: key };
                    let value = std::mem::take(&mut field.value);
                    entry.expr = EntryExpr::MapEntry(MapEntryExpr { key, value, optional: field.optional });
                }
            }
            expression.expr = Expr::Map(MapExpr { entries });
            Ok(())
        }
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(()),
    }
}
