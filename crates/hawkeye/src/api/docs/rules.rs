//! Templates, their actions and strategies, and expressions.

use super::Kind::{Flag, Int, Object, Text, Texts};
use super::{Doc, doc, may, need};

/// Fields of an action, behind the id that says whose it is.
macro_rules! action {
    ($first:expr) => {
        &[
            $first,
            may("uic", Text, "teams to tell, joined by commas"),
            may("url", Text, "callback"),
            may("callback", Flag, "whether to call `url`"),
            may("before_callback_sms", Flag, ""),
            may("before_callback_mail", Flag, ""),
            may("after_callback_sms", Flag, ""),
            may("after_callback_mail", Flag, ""),
        ]
    };
}

/// Fields of what is judged, between those that say where and those that only one kind of rule has.
macro_rules! rule {
    ([$($first:expr),*], [$($last:expr),*]) => {
        &[
            $($first,)*
            need("func", Text, "condition, as `all(#3)`: docs/rules.md"),
            need("op", Text, "one of `== != < <= > >=`"),
            need("right_value", Text, "a number"),
            need("max_step", Int, "most messages of one alarm"),
            may("note", Text, "goes into messages"),
            $($last,)*
        ]
    };
}

/// Fields of a strategy, behind its id or its template's.
macro_rules! strategy {
    ($first:expr) => {
        rule!(
            [$first, need("metric", Text, ""), may("tags", Text, "`key=value`, joined by commas; empty fits all")],
            [
                may("priority", Int, "0, the highest, to 6; 0 when left out, as in the original"),
                may("run_begin", Text, "`HH:MM`, or empty for always"),
                may("run_end", Text, "`HH:MM`, or empty for always")
            ]
        )
    };
}

/// Fields of an expression, behind its id.
macro_rules! expression {
    ($($first:expr)?) => {
        rule!(
            [$($first,)? need("expression", Text, "`each(metric=M key=value …)`")],
            [
                need("priority", Int, "1 to 6"),
                may("pause", Flag, "1 switches it off"),
                need("action", Object, "as an action's fields, with `uic` a list of names")
            ]
        )
    };
}

/// Fields of an exception, behind those that say what it is for.
macro_rules! exception {
    ($($first:expr),*) => {
        &[
            $($first,)*
            may("right_value", Text, "a number; empty is the strategy's"),
            may("max_step", Int, "0 is the strategy's"),
            may("pause", Flag, "1: the strategy does not hold there"),
            may("note", Text, ""),
        ]
    };
}

pub const DOCS: &[Doc] = &[
    doc("POST /template", "Makes a template.")
        .fields(&[
            need("name", Text, ""),
            may("parent_id", Int, "template whose strategies it inherits; 0 is none"),
            may("action_id", Int, "action of another template that it shares; 0 is none"),
        ])
        .body(r#"{"name":"linux"}"#)
        .answer(r#"{"id":2,"tpl_name":"linux","parent_id":0,"action_id":0,"create_user":"root"}"#),
    doc("GET /template", "Templates.")
        .list()
        .fields(&[may("q", Text, "regular expression on the name")])
        .at("/template?page=1&limit=10&sort=tpl_name")
        .answer(r#"{"templates":[{"template":{"id":2,"tpl_name":"linux","parent_id":0,"action_id":0,"create_user":"root"},"parent_name":""}]}"#),
    doc("GET /template_simple", "Names and ids of templates.").open().list().fields(&[may("q", Text, "regular expression on the name")]),
    doc("PUT /template", "Renames a template, or gives it another parent.")
        .fields(&[need("tpl_id", Int, ""), need("name", Text, ""), may("parent_id", Int, "0 is none")])
        .body(r#"{"tpl_id":2,"name":"linux"}"#),
    doc("POST /template/action", "Says whom a template tells; takes the place of an earlier action.")
        .fields(action!(need("tpl_id", Int, "")))
        .body(r#"{"tpl_id":2,"uic":"ops"}"#),
    doc("PUT /template/action", "Changes an action.").fields(action!(need("id", Int, ""))).body(r#"{"id":2,"uic":"ops"}"#),
    doc("GET /action/{act_id}", "An action.").open().at("/action/2"),
    doc("POST /strategy", "Adds a strategy to a template. It judges the next point.")
        .fields(strategy!(need("tpl_id", Int, "")))
        .body(r#"{"tpl_id":2,"metric":"cpu.idle","func":"all(#1)","op":"<","right_value":"10","max_step":3,"priority":1,"note":"busy"}"#),
    doc("GET /strategy", "Strategies of a template.").list().fields(&[need("tid", Int, "id of the template")]).at("/strategy?tid=2"),
    doc("GET /strategy/{sid}", "A strategy.").at("/strategy/2"),
    doc("PUT /strategy", "Changes a strategy.")
        .fields(strategy!(need("id", Int, "")))
        .body(r#"{"id":2,"metric":"cpu.idle","func":"all(#1)","op":"<","right_value":"15","max_step":3,"priority":1,"note":"busy"}"#),
    doc("POST /strategy/replay", "What a rule, saved or not, would have sent over stored history: docs/rules.md.")
        .fields(&[
            may("id", Int, "a saved strategy, whose fields count where they are left out here"),
            may("expression_id", Int, "a saved expression, instead"),
            may("tpl_id", Int, "template whose hosts a strategy is played for"),
            may("hosts", Texts, "endpoints, instead; `*` is all that have the metric"),
            may("metric", Text, "of a strategy"),
            may("tags", Text, "of a strategy"),
            may("expression", Text, "of an expression"),
            may("func", Text, ""),
            may("op", Text, ""),
            may("right_value", Text, "a number"),
            may("max_step", Int, ""),
            may("priority", Int, ""),
            may("note", Text, ""),
            may("run_begin", Text, "of a strategy"),
            may("run_end", Text, "of a strategy"),
            may("pause", Flag, "of an expression"),
            may("action", Object, "of an expression"),
            may("from", Text, "Unix seconds, or like `-7d`, which it is when left out"),
            may("to", Text, "Unix seconds, or like `-1h` or `now`, which it is when left out"),
        ])
        .body(r#"{"id":2,"hosts":["web-01"]}"#),
    doc("POST /exception", "Makes an exception: another threshold or number of messages, or a pause, for one host, group or tag.")
        .fields(exception!(
            need("strategy_id", Int, ""),
            need("kind", Text, "`host`, `group` or `tag`"),
            need("target", Text, "endpoint, name of a group, or `key=value`")
        ))
        .body(r#"{"strategy_id":2,"kind":"host","target":"web-02","right_value":"5"}"#),
    doc("GET /exception", "Exceptions of a strategy, or all.").list().fields(&[may("strategy_id", Int, "")]).at("/exception?strategy_id=2"),
    doc("GET /exception/{id}", "An exception.").at("/exception/2"),
    doc("PUT /exception/{id}", "Changes an exception; what it is for stays.")
        .fields(exception!(
            may("strategy_id", Int, "as it is"),
            may("kind", Text, "as it is"),
            may("target", Text, "as it is")
        ))
        .at("/exception/2")
        .body(r#"{"right_value":"7"}"#),
    doc("DELETE /exception/{id}", "Deletes an exception.").at("/exception/1"),
    doc("GET /template/{tpl_id}", "A template with its strategies (`stratges`) and its action.").at("/template/2"),
    doc("GET /template/{tpl_id}/hostgroup", "Groups that a template is bound to.").list().at("/template/2/hostgroup"),
    doc("GET /metric/default_list", "Names of the agent's own metrics, for forms."),
    doc("POST /expression", "Makes an expression: a rule over all endpoints that have a metric with tags.")
        .fields(expression!())
        .body(r#"{"expression":"each(metric=qps srv=api)","func":"all(#3)","op":">","right_value":"5000","max_step":3,"priority":2,"action":{"uic":["ops"]}}"#),
    doc("GET /expression", "Expressions.").list(),
    doc("GET /expression/{eid}", "An expression with its action.").at("/expression/2"),
    doc("PUT /expression", "Changes an expression and its action.")
        .fields(expression!(need("id", Int, "")))
        .body(r#"{"id":2,"expression":"each(metric=qps srv=api)","func":"all(#3)","op":">","right_value":"6000","max_step":3,"priority":2,"action":{"uic":["ops"]}}"#),
    doc("DELETE /strategy/{sid}", "Deletes a strategy; its open alarms end.").at("/strategy/1"),
    doc("DELETE /template/{tpl_id}", "Deletes a template with its strategies; their open alarms end.").at("/template/1"),
    doc("DELETE /expression/{eid}", "Deletes an expression; its open alarms end.").at("/expression/1"),
];
