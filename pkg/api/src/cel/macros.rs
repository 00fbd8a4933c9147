//! Calls that stand for other expressions.

use super::ast::{ACCUMULATOR, Comprehension, Expr, Item, Kind, Literal};
use super::parser::Parser;

type Expanded = Result<Expr, (usize, String)>;

/// A call of a function by its name.
pub(super) fn global(parser: &mut Parser<'_>, at: usize, function: &str, mut args: Vec<Expr>) -> Expr {
    if function != "has" || args.len() != 1 {
        return parser.call(at, function, args);
    }
    let argument = args.remove(0);
    let place = parser.places[argument.id];
    match argument.kind {
        Kind::Select { operand, field, test: false } => parser.make(at, Kind::Select { operand, field, test: true }),
        _ => broken(parser, place, "invalid argument to has() macro"),
    }
}

fn broken(parser: &mut Parser<'_>, at: usize, why: &str) -> Expr {
    parser.found.report(at, why);
    parser.make(at, Kind::Broken)
}

/// A call of a function of something.
pub(super) fn member(parser: &mut Parser<'_>, at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
    let mut m = Macro { parser, at };
    let expanded = match (function, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => m.quantifier(function, target, args),
        ("map", 2 | 3) | ("filter", 2) => m.list(function, target, args, false),
        ("transformList", 3 | 4) => m.list("map", target, args, true),
        ("transformMap", 3 | 4) => m.map(target, args, false),
        ("transformMapEntry", 3 | 4) => m.map(target, args, true),
        ("optMap" | "optFlatMap", 2) => m.optional(function, target, args),
        ("sortBy", 2) => m.sort_by(target, args),
        ("bind", 3) if m.parser.binds && target.as_ident().is_some_and(|name| &**name == "cel") => m.cel_bind(args),
        _ => return parser.member(at, target, function, args),
    };
    expanded.unwrap_or_else(|(at, why)| broken(parser, at, &why))
}

struct Macro<'p, 't> {
    parser: &'p mut Parser<'t>,
    at: usize,
}

impl Macro<'_, '_> {
    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.parser.call(self.at, function, args)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.parser.literal(self.at, literal)
    }

    fn result(&mut self) -> Expr {
        self.parser.ident(self.at, ACCUMULATOR)
    }

    fn list_of(&mut self, items: Vec<Expr>) -> Expr {
        let items = items.into_iter().map(|value| Item { value, optional: false }).collect();
        self.parser.make(self.at, Kind::List(items))
    }

    fn name(&self, argument: &Expr, why: &str) -> Result<std::sync::Arc<str>, (usize, String)> {
        let place = self.parser.places[argument.id];
        let name = argument.as_ident().ok_or_else(|| (place, why.to_owned()))?;
        if &**name == "__result__" || name.starts_with('@') {
            return Err((place, "iteration variable overwrites accumulator variable".into()));
        }
        Ok(name.clone())
    }

    /// Takes one or two variables off the front of the arguments.
    fn variables(&self, args: &mut Vec<Expr>, two: bool) -> Result<Variables, (usize, String)> {
        const SIMPLE: &str = "argument must be a simple name";
        if !two {
            let first = args.remove(0);
            return Ok((self.name(&first, SIMPLE)?, None));
        }
        let (first, second) = (args.remove(0), args.remove(0));
        let (variable, other) = (self.name(&first, SIMPLE)?, self.name(&second, SIMPLE)?);
        if variable == other {
            return Err((self.parser.places[second.id], format!("duplicate variable name: {variable}")));
        }
        Ok((variable, Some(other)))
    }

    fn fold(
        &mut self,
        range: Expr,
        variables: Variables,
        start: Expr,
        condition: Expr,
        step: Expr,
        result: Expr,
    ) -> Expr {
        let (variable, second) = variables;
        let accumulator = ACCUMULATOR.into();
        let of = Comprehension { range, variable, second, accumulator, start, condition, step, result };
        self.parser.comprehension(self.at, of)
    }

    fn quantifier(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Expanded {
        let two = args.len() == 3;
        let variables = self.variables(&mut args, two)?;
        let holds = args.remove(0);
        let (start, condition, step, result);
        match function {
            "all" | "exists" => {
                let all = function == "all";
                start = self.literal(Literal::Bool(all));
                let mut so_far = self.result();
                if !all {
                    so_far = self.call("!_", vec![so_far]);
                }
                condition = self.call("@not_strictly_false", vec![so_far]);
                let before = self.result();
                step = self.call(if all { "_&&_" } else { "_||_" }, vec![before, holds]);
                result = self.result();
            }
            _ => {
                start = self.literal(Literal::Int(0));
                condition = self.literal(Literal::Bool(true));
                let (before, one) = (self.result(), self.literal(Literal::Int(1)));
                let (more, same) = (self.call("_+_", vec![before, one]), self.result());
                step = self.call("_?_:_", vec![holds, more, same]);
                let (count, one) = (self.result(), self.literal(Literal::Int(1)));
                result = self.call("_==_", vec![count, one]);
            }
        }
        Ok(self.fold(target, variables, start, condition, step, result))
    }

    /// `map`, `filter` and `transformList`.
    fn list(&mut self, function: &str, target: Expr, mut args: Vec<Expr>, two: bool) -> Expanded {
        let variables = self.variables(&mut args, two)?;
        let item = match args.pop() {
            Some(item) if function != "filter" => item,
            condition => {
                args.extend(condition);
                self.parser.ident(self.at, &variables.0.clone())
            }
        };
        let before = self.result();
        let added = self.list_of(vec![item]);
        let step = self.call("_+_", vec![before, added]);
        let start = self.list_of(Vec::new());
        Ok(self.gathered(target, variables, start, args.pop(), step))
    }

    fn gathered(&mut self, target: Expr, variables: Variables, start: Expr, filter: Option<Expr>, step: Expr) -> Expr {
        let step = match filter {
            Some(filter) => {
                let same = self.result();
                self.call("_?_:_", vec![filter, step, same])
            }
            None => step,
        };
        let (condition, result) = (self.literal(Literal::Bool(true)), self.result());
        self.fold(target, variables, start, condition, step, result)
    }

    fn map(&mut self, target: Expr, mut args: Vec<Expr>, entries: bool) -> Expanded {
        let variables = self.variables(&mut args, true)?;
        let value = args.pop().expect("there are three arguments at least");
        let mut insert = vec![self.result()];
        if !entries {
            insert.push(self.parser.ident(self.at, &variables.0.clone()));
        }
        insert.push(value);
        let step = self.call("cel.@mapInsert", insert);
        let start = self.parser.make(self.at, Kind::Map(Vec::new()));
        Ok(self.gathered(target, variables, start, args.pop(), step))
    }

    /// Evaluates `within` where the variable has the value.
    fn bind(&mut self, variable: &str, value: Expr, within: Expr) -> Expr {
        let (range, condition) = (self.list_of(Vec::new()), self.literal(Literal::Bool(false)));
        let step = self.parser.ident(self.at, variable);
        let of = Comprehension {
            range,
            variable: "#unused".into(),
            second: None,
            accumulator: variable.into(),
            start: value,
            condition,
            step,
            result: within,
        };
        self.parser.comprehension(self.at, of)
    }

    fn cel_bind(&mut self, mut args: Vec<Expr>) -> Expanded {
        let (within, value) = (args.pop(), args.pop());
        let variable = self.name(&args[0], "cel.bind() variable names must be simple identifiers")?;
        let (value, within) = value.zip(within).expect("there are three arguments");
        Ok(self.bind(&variable, value, within))
    }

    fn optional(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Expanded {
        let within = args.pop().expect("there are two arguments");
        let variable = self.name(&args[0], &format!("{function}() variable name must be a simple identifier"))?;
        let again = self.parser.copy(&target);
        let has = self.parser.member(self.at, target, "hasValue", Vec::new());
        let value = self.parser.member(self.at, again, "value", Vec::new());
        let mut some = self.bind(&variable, value, within);
        if function == "optMap" {
            some = self.call("optional.of", vec![some]);
        }
        let none = self.call("optional.none", Vec::new());
        Ok(self.call("_?_:_", vec![has, some, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Expanded {
        const INPUT: &str = "@__sortBy_input__";
        if !matches!(
            target.kind,
            Kind::Select { .. } | Kind::Ident(_) | Kind::List(_) | Kind::Comprehension(_) | Kind::Call { .. }
        ) {
            let why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((self.parser.places[target.id], why.into()));
        }
        let input = self.parser.ident(self.at, INPUT);
        let keys = self.list("map", input, args, false)?;
        let input = self.parser.ident(self.at, INPUT);
        let sorted = self.parser.member(self.at, input, "@sortByAssociatedKeys", vec![keys]);
        Ok(self.bind(INPUT, target, sorted))
    }
}

type Variables = (std::sync::Arc<str>, Option<std::sync::Arc<str>>);
