//! The field's nouns as plain values with their canonical texts. No IO, no clock, no async.
//!
//! Everything else in Hawkeye speaks in these: the door (`wire`) turns bytes into them, the store and the judge
//! exchange [`Sample`]s, the portal produces [`Rules`], the judge produces [`Event`]s.

pub mod event;
pub mod explanation;
pub mod number;
pub mod point;
pub mod ring;
pub mod rule;
mod rule_tags;
pub mod series;
pub mod tags;

pub use event::{Event, EventRule, Status};
pub use explanation::{Explanation, TermExplanation};
pub use point::{Point, Sample};
pub use ring::Ring;
pub use rule::{Expression, Rules, Strategy, Template};
pub use rule_tags::RuleTags;
pub use series::{CounterType, SeriesId, SeriesKey};
pub use tags::Tags;
