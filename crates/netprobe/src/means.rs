//! Means: what all probes of a process share, and with the policy the ground that one stands on.

use crate::aside::Aside;
use crate::policy::Policy;
use crate::resolve::Resolver;
use crate::roots::Roots;

/// Programs that are being started at a time, for one on a dead mount.
const STARTS_MAX: usize = 4;

/// What all probes of a process share; clones are the same.
#[derive(Clone, Debug)]
pub struct Means {
    pub(crate) resolver: Resolver,
    pub(crate) roots: Roots,
    /// Starts of scripts.
    pub(crate) scripts: Aside,
}

impl Default for Means {
    fn default() -> Means {
        Means { resolver: Resolver::default(), roots: Roots::default(), scripts: Aside::new("start", STARTS_MAX) }
    }
}

/// Whom a probe may ask, and what it shares with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub policy: &'a Policy,
    pub means: &'a Means,
}
