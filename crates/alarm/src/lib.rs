//! Alarm: who is told of which alarm, when, and why.
//!
//! Why: between the judge's event and a person stand questions that every site answers otherwise: whom, together with
//! what, how often, what if nobody reacts. The answers are data, and this crate decides by them.
//! How: `fact` (what is known of an alarm), `matcher` (conditions), `window` (times of the week), then what people
//! write: `route`, `silence`, `inhibit`, `rota`, all of it in `policy`; then what happens: `alarm`, `flap`, `group`,
//! `storm`, and `pipeline`, which decides; what follows is an `effect`.
//! Invariants: pure. Time is an argument, zones are values, nothing is read or sent; equal histories give equal
//! decisions.

mod alarm;
mod effect;
mod fact;
mod flap;
mod group;
mod inhibit;
mod matcher;
mod pipeline;
mod policy;
mod rota;
mod route;
mod rows;
mod silence;
mod storm;
mod window;

pub use alarm::{Acknowledged, Alarm, Quiet};
pub use effect::{Effect, Line, Notice, What};
pub use fact::{Fact, Rule};
pub use flap::{CHANGES_MAX, Changes};
pub use group::{Escalating, Group, Member};
pub use inhibit::{Cause, Dependencies, Explaining, Inhibition, Serial};
pub use matcher::{MATCHERS_MAX, Matcher, all_match};
pub use pipeline::{Changed, Pipeline, Stored};
pub use policy::{Escalation, Flapping, Policy, Step, Storm};
pub use rota::{Layer, Override, Rota, SHIFTS_MAX, Shift, Turn};
pub use route::{By, ROUTES_MAX, Receiver, Route, RouteText, Times, To, Tree};
pub use silence::Silence;
pub use window::{Window, day_name};
