//! Expressions (`falcon_portal.expression`): conditions on every series of a metric with given tags, as rows.
//!
//! Each expression has an action of its own. Compat: the text `each(metric=m k=v)` as hbs reads it
//! (docs/open-falcon/control-plane.md §1); commas between its parts are taken for blanks.

use super::Portal;
use super::action::{self, Action};
use super::db::{Record, Salvaged, Target, Transaction, query, record, salvage, select};
use model::RuleTags;
use serde::Serialize;

/// Length of the column `expression`, in characters.
pub const EXPRESSION_MAX: usize = 1024;
/// Characters of a condition: the original has 16, but conditions of several functions are longer.
pub const FUNC_MAX: usize = 512;
/// Length of the column `op`, in characters.
pub const OP_MAX: usize = 8;
/// Length of the column `right_value`, in characters.
pub const RIGHT_VALUE_MAX: usize = 16;
/// Length of the column `note`, in characters.
pub const NOTE_MAX: usize = 1024;

record! {
    /// Row of an expression, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Expression {
        pub id: i64,
        pub expression: String,
        pub func: String,
        pub op: String,
        pub right_value: String,
        pub max_step: i64,
        pub priority: i64,
        pub note: String,
        pub action_id: i64,
        pub create_user: String,
        /// 1 while the expression is switched off.
        pub pause: i64,
    }
}

impl Expression {
    /// Whether rules are made of it: it has an action, and is not paused.
    pub fn is_in_effect(&self) -> bool {
        self.action_id > 0 && !self.is_paused()
    }

    /// Whether it is switched off.
    pub fn is_paused(&self) -> bool {
        self.pause != 0
    }

    /// The bytes of its texts, for the memory ledger.
    pub fn text_bytes(&self) -> usize {
        let texts = [&self.expression, &self.func, &self.op, &self.right_value, &self.note, &self.create_user];
        texts.into_iter().map(String::capacity).sum()
    }
}

/// The metric and tags that an expression's text asks for. The word before the parenthesis is not looked at.
pub fn parse_text(text: &str) -> Result<(String, RuleTags), String> {
    let example = EXAMPLE;
    let items = items(text)?;
    if items.len() < 2 {
        return Err(format!("a metric and at least one tag are needed: {example}"));
    }
    let pair = |item: &str| match item.split_once('=') {
        Some((key, value)) if !value.contains('=') && (key == METRIC || !value.contains(',')) => {
            Ok((key.to_string(), value.to_string()))
        }
        _ => Err(format!("{item:?} is not of the form key=value: {example}")),
    };
    let mut tags = items.into_iter().map(pair).collect::<Result<RuleTags, String>>()?;
    match tags.remove(METRIC) {
        Some(metric) if !metric.is_empty() => Ok((metric, tags)),
        _ => Err(format!("{METRIC}=… is missing: {example}")),
    }
}

const METRIC: &str = "metric";
const EXAMPLE: &str = "want a text like each(metric=cpu.idle endpoint=web-01)";

/// A key that a text gives twice, of which only the last counts.
pub fn repeated_key(text: &str) -> Option<&str> {
    let items = items(text).ok()?;
    let keys: Vec<&str> = items.iter().filter_map(|item| item.split_once('=')).map(|(key, _)| key).collect();
    keys.iter().enumerate().find(|(at, key)| keys[..*at].contains(key)).map(|(_, key)| *key)
}

/// What stands between the parentheses, by its parts.
fn items(text: &str) -> Result<Vec<&str>, String> {
    let open = text.find('(').ok_or_else(|| format!("no opening parenthesis: {EXAMPLE}"))?;
    let close = text.find(')').ok_or_else(|| format!("no closing parenthesis: {EXAMPLE}"))?;
    let inside = text.get(open + 1..close).ok_or_else(|| format!("`)` comes before `(`: {EXAMPLE}"))?;
    Ok(inside.split_whitespace().flat_map(parts).collect())
}

/// The parts of `a=1,b=2,`; a comma that begins no further `key=` belongs to what is before it, for a metric may have
/// one.
fn parts(word: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, _) in word.match_indices(',') {
        let behind = &word[at + 1..];
        let next = behind.split(',').next().unwrap_or_default();
        if next.contains('=') || behind.trim_matches(',').is_empty() {
            parts.push(&word[start..at]);
            start = at + 1;
        }
    }
    parts.push(&word[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// The text behind the closing parenthesis, which nobody reads.
pub fn tail(text: &str) -> &str {
    text.find(')').map_or("", |close| text[close + 1..].trim())
}

/// All expressions, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Expression>> {
    select::<Expression>("FROM falcon_portal.expression ORDER BY id").all(portal).await
}

/// All expressions that can be read, in no order.
pub async fn that_read(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Expression>> {
    salvage(transaction, Expression::COLUMNS, "falcon_portal.expression").await
}

/// Finds an expression by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Expression>> {
    select::<Expression>("FROM falcon_portal.expression WHERE id = ?").bind(id).optional(portal).await
}

/// Saves a new expression with its action (both ids are ignored); answers its id.
pub async fn create(portal: &Portal, expression: &Expression, action: &Action) -> sqlx::Result<i64> {
    let mut transaction = portal.write().await?;
    let id = insert(&mut transaction, expression, action).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(id)
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(transaction: &mut Transaction, expression: &Expression, action: &Action) -> sqlx::Result<i64> {
    let action_id = action::insert(transaction, action).await?;
    let done = query(
        "INSERT INTO falcon_portal.expression (expression, func, op, right_value, max_step, priority, note, action_id,
         create_user, pause) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&expression.expression)
    .bind(&expression.func)
    .bind(&expression.op)
    .bind(&expression.right_value)
    .bind(expression.max_step)
    .bind(expression.priority)
    .bind(&expression.note)
    .bind(action_id)
    .bind(&expression.create_user)
    .bind(expression.pause)
    .execute(transaction)
    .await?;
    Ok(done.id)
}

/// Saves everything but the creator. An action that is gone is made anew.
pub async fn update(portal: &Portal, expression: &Expression, action: &Action) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    change(&mut transaction, expression, action).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// As [`update`], inside a transaction; the caller announces it.
pub async fn change(transaction: &mut Transaction, expression: &Expression, action: &Action) -> sqlx::Result<()> {
    let mut action_id = expression.action_id;
    let action = Action { id: action_id, ..action.clone() };
    if action::update(&mut *transaction, &action).await? == 0 {
        action_id = action::insert(transaction, &action).await?;
    }
    query(
        "UPDATE falcon_portal.expression SET expression = ?, func = ?, op = ?, right_value = ?, max_step = ?,
         priority = ?, note = ?, action_id = ?, pause = ? WHERE id = ?",
    )
    .bind(&expression.expression)
    .bind(&expression.func)
    .bind(&expression.op)
    .bind(&expression.right_value)
    .bind(expression.max_step)
    .bind(expression.priority)
    .bind(&expression.note)
    .bind(action_id)
    .bind(expression.pause)
    .bind(expression.id)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Switches on those of some expressions that are there and switched off; answers how many.
pub async fn resume(portal: &Portal, ids: &[i64]) -> sqlx::Result<u64> {
    let mut count = 0;
    for id in ids {
        let sql = "UPDATE falcon_portal.expression SET pause = 0 WHERE id = ? AND pause <> 0";
        count += query(sql).bind(*id).execute(portal).await?.rows;
    }
    portal.announce();
    Ok(count)
}

/// Sets who made an expression, inside a transaction; the caller announces it.
pub async fn set_owner(transaction: &mut Transaction, id: i64, create_user: &str) -> sqlx::Result<()> {
    let sql = "UPDATE falcon_portal.expression SET create_user = ? WHERE id = ?";
    query(sql).bind(create_user).bind(id).execute(transaction).await?;
    Ok(())
}

/// Deletes an expression. Its action is left to [`super::purge`].
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    remove(portal, id).await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM falcon_portal.expression WHERE id = ?").bind(id).execute(on).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    #[test]
    fn texts() {
        let check = |text: &str, metric: &str, tags: &[(&str, &str)]| {
            let tags = tags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!(parse_text(text), Ok((metric.to_string(), tags)), "{text}");
        };
        check("each(metric=agent.alive endpoint=web-01)", "agent.alive", &[("endpoint", "web-01")]);
        check("any( metric=m  a=1\tb= ) tail", "m", &[("a", "1"), ("b", "")]);
        check("(a=1 metric=m a=2)", "m", &[("a", "2")]);
        for commas in ["metric=m, a=1,b=2", "metric=m,a=1 ,b=2,", "metric=m ,, a=1, b=2", ",metric=m,a=1,b=2"] {
            check(&format!("each({commas})"), "m", &[("a", "1"), ("b", "2")]);
        }
        check("each(metric=m,n a=1)", "m,n", &[("a", "1")]);
        check("each(a=1,metric=m,n,o)", "m,n,o", &[("a", "1")]);
    }

    #[test]
    fn wrong_texts_say_what_is_wrong() {
        let check = |text: &str, part: &str| {
            let error = parse_text(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        };
        check("", "no opening");
        check("each metric=m a=1", "no opening");
        check("each(metric=m a=1", "no closing");
        check(")each(metric=m", "before");
        check("each(metric=m)", "at least one tag");
        check("each()", "at least one tag");
        check("each(a=1 b=2)", "metric=… is missing");
        check("each(metric= b=2)", "metric=… is missing");
        check("each(metric=m b)", "\"b\"");
        check("each(metric=m b=2=3)", "\"b=2=3\"");
        check("each(metric=m b=2,3)", "\"b=2,3\"");
        check("each(metric=m, b)", "\"b\"");
        check("each(metric=m,)", "at least one tag");
    }

    #[tokio::test]
    async fn an_expression_has_an_action_of_its_own() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let text = str::to_string;
        let new = Expression {
            expression: text("each(metric=m a=1)"),
            func: text("all(#1)"),
            op: text(">"),
            right_value: text("1"),
            max_step: 3,
            priority: 2,
            note: text("n"),
            create_user: text("alice"),
            ..Expression::default()
        };
        let action = Action { uic: text("ops"), ..Action::default() };
        create(&portal, &new, &action).await?;
        create(&portal, &Expression { pause: 1, ..new.clone() }, &action).await?;
        let [first, paused_one] = &all(&portal).await?[..] else { panic!("two were created") };
        assert_eq!(*first, Expression { id: first.id, action_id: first.action_id, ..new.clone() });
        assert_eq!([first, paused_one].map(Expression::is_in_effect), [true, false]);
        assert_eq!(that_read(&mut portal.read().await?).await?.rows, [first.clone(), paused_one.clone()]);
        assert_eq!(by_id(&portal, first.id).await?.as_ref(), Some(first));

        // An action that is gone is made anew.
        let lost = Expression { action_id: 999, note: text("changed"), create_user: text("bob"), ..first.clone() };
        update(&portal, &lost, &Action { url: text("http://x"), ..action }).await?;
        let changed = by_id(&portal, first.id).await?.expect("still there");
        assert_eq!((changed.note.as_str(), changed.create_user.as_str()), ("changed", "alice"));
        let anew = action::by_id(&portal, changed.action_id).await?.expect("made anew");
        assert_eq!(anew.url, "http://x");
        delete(&portal, first.id).await?;
        assert_eq!(by_id(&portal, first.id).await?, None);
        assert!(action::by_id(&portal, anew.id).await?.is_some(), "recoveries are told to it");
        Ok(())
    }
}
