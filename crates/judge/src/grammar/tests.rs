use super::*;
use proptest::prelude::*;

const DEFAULTS: TermDefaults = TermDefaults { operator: Operator::Greater, right: 90.0, points_max: 120, spare: 1 };

/// The terms in postfix order, each as `subject kind n operator right..high [recover right..high]`.
fn show(reading: &Parsed) -> String {
    let condition = |c: &Comparison| {
        let range = if c.operator.is_range() { format!("..{}", c.high) } else { String::new() };
        format!("{:?}{} {:?} {}{range}", c.function.kind, c.function.n, c.operator, c.right).replacen(
            |c: char| c.is_ascii_uppercase(),
            &format!("{:?}", c.function.kind)[..1].to_lowercase(),
            1,
        )
    };
    let program = match reading {
        Parsed::Plain(c) => return format!("plain {}", condition(c)),
        Parsed::Program(program) => program,
    };
    let term = |term: &Term| {
        let subject = match term.subject {
            Subject::Own => String::new(),
            Subject::Other(number) => {
                let Operand { metric, tags } = &program.operands[number as usize];
                let tags: Vec<String> = tags.iter().map(|(tag, value)| format!("{tag}={value}")).collect();
                format!(" of {metric}/{}", tags.join(","))
            }
        };
        match &term.question {
            Question::Silence { steps } => format!("nodata{steps}{subject}"),
            Question::Values { opens, stays } if opens == stays => format!("{}{subject}", condition(opens)),
            Question::Values { opens, stays } => {
                format!("{}{subject} recover {}..{}", condition(opens), stays.right, stays.high)
            }
        }
    };
    let code = program.code.iter().map(|code| match code {
        Code::Term(number) => format!("({})", term(&program.terms[*number as usize])),
        Code::And => "&".to_string(),
        Code::Or => "|".to_string(),
    });
    code.collect()
}

#[test]
fn reads_conditions() {
    let check = |func: &str, expected: &str| {
        assert!(is_extended(func), "{func}");
        let reading = read(func, DEFAULTS).unwrap_or_else(|error| panic!("{func}: {error}"));
        assert_eq!(show(&reading), expected, "{func}");
    };
    check("all(#3) > 95", "plain all3 Greater 95");
    check("all(#3)<-0.5", "plain all3 Less -0.5");
    check("(all(#3))", "plain all3 Greater 90");
    check("all(#3) outside 10..20", "plain all3 Outside 10..20");
    check("avg(#5) inside -1.5..2", "plain avg5 Inside -1.5..2");
    check("all(#3) recover 15", "(all3 Greater 90 recover 15..15)");
    check("all(#3) recover 90", "plain all3 Greater 90");
    check("all(#3) < 10 recover 15", "(all3 Less 10 recover 15..15)");
    check("all(#3) outside 10..20 recover 12..18", "(all3 Outside 10..20 recover 12..18)");
    check("nodata(#3)", "(nodata3)");
    check("nodata(#3) of agent.alive", "(nodata3 of agent.alive/)");
    check("all(#3) and avg(#5) of mem.free < 10", "(all3 Greater 90)(avg5 Less 10 of mem.free/)&");
    check(
        "all(#3) > 90 or max(#2) of df.used/mount=/data > 95",
        "(all3 Greater 90)(max2 Greater 95 of df.used/mount=/data)|",
    );
    check("max(#1) of a/b/x=1,y=2", "(max1 Greater 90 of a/b/x=1,y=2)");
    check("max(#1) of a/b", "(max1 Greater 90 of a/b/)");
    check("max(#1) of \"a (b)\" = 5", "(max1 Equal 5 of a (b)/)");
    check("(max(#1) of a)", "(max1 Greater 90 of a/)");
    check("all(#1) or all(#2) and all(#3)", "(all1 Greater 90)(all2 Greater 90)(all3 Greater 90)&|");
    check("(all(#1) or all(#2)) and all(#3)", "(all1 Greater 90)(all2 Greater 90)|(all3 Greater 90)&");
    check("all(#1)and(all(#2)or lookup(#2,3)!=0)", "(all1 Greater 90)(all2 Greater 90)(lookup3 NotEqual 0)|&");
    check("max(#1) of a and min(#2) of a", "(max1 Greater 90 of a/)(min2 Greater 90 of a/)&");
}

#[test]
fn a_series_that_is_named_twice_is_one() {
    let Ok(Parsed::Program(program)) = read("max(#1) of a and min(#2) of a or all(#1) of b", DEFAULTS) else {
        panic!()
    };
    assert_eq!((program.operands.len(), program.terms.len()), (2, 3));
    assert_eq!(&*program.terms[1].text, "min(#2) of a");
}

#[test]
fn errors_point_at_the_column() {
    let check = |func: &str, expected: &str| {
        let error = read(func, DEFAULTS).expect_err(func).to_string();
        let error =
            error.rsplit_once("`, ").map_or(error.as_str(), |_| error.split("`, column ").nth(1).unwrap_or(&error));
        assert!(error.starts_with(expected), "{func}: {error}");
    };
    check("all(#3) und all(#2)", "9: want `and`, `or`, `of`");
    check("all(#3) and", "12: want a function such as all(#3), or `(`");
    check("all(#3) and foo(#2)", "13: want one of all, max,");
    check("all(#3) and all(2)", "16: want `(#` behind the name");
    check("all(#3) AND all(#2)", "9: want `and`");
    check("all(#3) and all(#0)", "18: want N to be a whole number from 1");
    check("all(#3) and all(#120)", "18: needs 121 points, but the judge looks back 120");
    check("nodata(#0)", "9: want a whole number of steps from 1");
    check("nodata(#121)", "9: needs 121 points");
    check("nodata(#3) > 5", "12: want `and`");
    check("all(#3) > x", "11: want a number");
    check("all(#3) >> 5", "9: want one of = ==");
    check("all(#3) outside 20..10", "17: want the lower end first");
    check("all(#3) outside 20", "19: want `..`");
    check("all(#3) inside ..5", "16: want a number");
    check("stddev(#9) outside 1..2", "12: want a number of deviations");
    check("all(#3) recover 95", "17: want at most 90");
    check("all(#3) < 10 recover 5", "22: want at least 10");
    check("all(#3) = 10 recover 5", "22: want no recover");
    check("all(#3) outside 10..20 recover 5..18", "32: want a range within 10..20");
    check("all(#3) inside 10..20 recover 12..18", "31: want a range around 10..20");
    check("(all(#3)", "9: want `)`, or `and`");
    check("all(#3))", "8: want no `)`");
    check("max(#1) of", "11: want a metric");
    check("max(#1) of a/=5", "12: want tags");
    check("max(#1) of a/b=5,c", "12: want tags");
    check("max(#1) of \"a", "12: want a closing");
    check("all(#1) or 内存(#1)", "12: want a function");
    check(&format!("{}all(#1)", "(".repeat(9)), "9: want at most 8 parentheses");
    check(&["all(#1)"; 9].join(" or "), "89: want at most 8 functions");
    check(&format!("all(#1) or {}", " ".repeat(600)), "612: want at most 512");
    check("lookup(#4,3) or all(#1)", "9: want M to be at most 3");
}

/// Texts near the grammar, and any others.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "all(#3)",
        "lookup(#2,3)",
        "nodata(#2)",
        "stddev(#4)",
        "(",
        ")",
        " and ",
        " or ",
        " of ",
        "m",
        "m/a=1",
        "m/=",
        "\"",
        "> 5",
        "<= -0.5",
        " outside 1..2",
        " inside ",
        "1..",
        "..",
        " recover ",
        "7",
        " ",
        "foo(#1)",
        "#",
        "kdiff(#1,9)",
        "内",
        "!",
        "all(#",
        "=",
    ]);
    prop_oneof![4 => prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()), 1 => "\\PC{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn nothing_panics_and_errors_are_within_the_text(func in texts()) {
        is_extended(&func);
        match read(&func, DEFAULTS) {
            Ok(Parsed::Program(program)) => {
                prop_assert!(program.terms.len() <= TERMS_MAX);
                program.answer(&[Some(true); TERMS_MAX]);
                program.answer(&[None; TERMS_MAX]);
            }
            Ok(Parsed::Plain(_)) => {}
            Err(error) => {
                if let RuleError::Condition { column, .. } | RuleError::Argument { column, .. } | RuleError::Window { column, .. } = error {
                    prop_assert!((1..=func.chars().count() + 1).contains(&column), "{:?}: {}", func, column);
                }
            }
        }
    }

    /// No text that the original can read is read by this grammar.
    #[test]
    fn old_texts_never_come_here(func in texts()) {
        if crate::rule_text::parse(&func).is_ok() {
            prop_assert!(!is_extended(&func) || read(&func, DEFAULTS).is_err(), "{:?}", func);
        }
    }
}
