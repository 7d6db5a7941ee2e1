//! Plan: the things that a set of files describes, checked as if each were saved by its route.
//!
//! How: names come first, from all files, so that a file may name what another one makes. Each table is read by the
//! functions that the routes read requests with. A file that is byte for byte what the portal would write is what the
//! portal has, and is not looked at again, unless it names what goes: a row of an old installation that no route would
//! save may stay.
//! What is there already keeps its id: by its name, and where it has none by the likeness of what it says ([`pair`]),
//! or by an `id` in the file.
//! Invariants: all files are read, and all mistakes are told at once. Nothing is written here.

use super::code::{Actor, Bundle};
use super::code_file::{self as file, Fault, Table};
use super::code_model::{
    ACTION, AggregatorThing, EXCEPTION, ExpressionThing, GRAPH, GroupThing, Kind, Model, ProbeThing, STRATEGY,
    ScreenThing, StrategyThing, TeamThing, TemplateThing, Thing, paths, sorted,
};
use super::code_probe;
use super::code_secret as secret;
use crate::api::body::Fields;
use crate::api::dashboard::{self as screens, DEPTH_MAX};
use crate::api::error::ApiError;
use crate::api::probe::{keys_of, text_of};
use crate::api::probe_said as said;
use crate::api::text::named;
use crate::api::{aggregator, exception, expression, hostgroup, nodata, rule, strategy, team, user as users};
use crate::config::Config;
use crate::portal::action::{self, Action};
use crate::portal::aggregator::Aggregator;
use crate::portal::dashboard::{self, Graph, Screen};
use crate::portal::exception::Exception;
use crate::portal::expression::Expression;
use crate::portal::group::{self, Group};
use crate::portal::host::HOSTS_MAX;
use crate::portal::mock::{self, Mock};
use crate::portal::plugin;
use crate::portal::probe::{DEFINITIONS_BYTES_MAX, PROBES_MAX, Probe};
use crate::portal::site::Site;
use crate::portal::team::Team;
use crate::portal::template::{self, CHAIN_MAX, Template};
use crate::portal::user::{self, User};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the files say, and what is wrong with them.
pub struct Planned {
    /// The things as they are to be; of kinds that are out of scope as they are.
    pub wanted: Model,
    pub faults: Vec<Fault>,
}

/// Names as they are spelled, by their lower case.
type Names = BTreeMap<String, String>;

/// What the checks of a file look at.
struct Reader<'a> {
    config: &'a Config,
    actor: &'a Actor,
    names: HashMap<Kind, Names>,
    hosts: Names,
    /// Names that will be no more, as files write them, in lower case: a file that has one is looked at again.
    lost: Vec<String>,
    faults: Vec<Fault>,
}

/// A file and its table.
struct Source<'a> {
    path: &'a str,
    table: Table,
    text: &'a str,
}

/// Reads the files of `bundle` over what is there.
pub fn plan(site: &Site, bundle: &Bundle, config: &Config, actor: &Actor) -> Planned {
    let old = Model::of(site);
    let mut sources: HashMap<Kind, Vec<Source<'_>>> = HashMap::new();
    let mut faults = odd_paths(bundle);
    for (path, text) in &bundle.files {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| path.split('/').next() == Some(kind.folder())) else {
            let text = "its folder is none of users, teams, …: see docs/as-code.md".to_string();
            faults.push(Fault { file: path.clone(), line: 1, text });
            continue;
        };
        match Table::read(text) {
            Ok(table) => sources.entry(kind).or_default().push(Source { path, table, text }),
            Err((line, text)) => {
                faults.push(Fault { file: path.clone(), line, text: format!("this is no TOML: {text}") })
            }
        }
    }
    let hosts = site.hosts.iter().map(|(_, name)| (name.to_ascii_lowercase(), name.clone())).collect();
    let mut reader = Reader { config, actor, names: HashMap::new(), hosts, lost: Vec::new(), faults };
    for kind in Kind::ALL {
        reader.collect_names(kind, sources.get(&kind).map_or(&[][..], Vec::as_slice), &old, bundle);
    }
    let wanted = reader.wanted(&sources, &old, bundle);
    let mut faults = reader.faults;
    faults.sort();
    Planned { wanted, faults }
}

/// Files whose paths no disk would have beside one another, where they are to be.
fn odd_paths(bundle: &Bundle) -> Vec<Fault> {
    let mut lower: HashMap<String, &str> = HashMap::new();
    let mut faults = Vec::new();
    for path in bundle.files.keys() {
        let text = match (file::odd_path(path), lower.insert(path.to_lowercase(), path)) {
            (Some(odd), _) => format!("files: {path:?} {odd}: name it as folder/name{}", file::ENDING),
            (None, Some(other)) => format!("files: {other:?} is one with {path:?} on some disks: rename one of them"),
            (None, None) => continue,
        };
        // The name may hold what a terminal obeys.
        faults.push(Fault { file: path.escape_debug().to_string(), line: 1, text });
    }
    faults
}

fn own_names<T: Thing>(things: &[T]) -> Names {
    things
        .iter()
        .filter_map(|thing| thing.parts().into_iter().next())
        .map(|name| (name.to_ascii_lowercase(), name))
        .collect()
}

impl Reader<'_> {
    fn fault(&mut self, source: &Source<'_>, line: usize, text: impl Into<String>) {
        self.faults.push(Fault { file: source.path.to_string(), line, text: text.into() });
    }

    /// What a table means; its mistakes are noted.
    fn check<T>(&mut self, source: &Source<'_>, table: &Table, read: Result<T, Vec<ApiError>>) -> Option<T> {
        let mut note = |error: ApiError| self.fault(source, table.line_of_error(error.text()), error.text());
        read.map_err(|errors| errors.into_iter().for_each(&mut note)).ok()
    }

    fn check_keys(&mut self, source: &Source<'_>, table: &Table, keys: &[&str], tables: &[&str]) {
        for (line, text) in table.unknown(keys, tables) {
            self.fault(source, line, text);
        }
    }

    /// Notes the names of a kind as they will be.
    fn collect_names(&mut self, kind: Kind, sources: &[Source<'_>], old: &Model, bundle: &Bundle) {
        let old = match kind {
            Kind::Users => own_names(&old.users),
            Kind::Teams => own_names(&old.teams),
            Kind::Groups => own_names(&old.groups),
            Kind::Templates => own_names(&old.templates),
            Kind::Nodata => own_names(&old.nodata),
            Kind::Probes => own_names(&old.probes),
            Kind::Dashboards => return self.collect_paths(sources, &old.dashboards, bundle),
            Kind::Expressions | Kind::Aggregators => return,
        };
        let stays = !bundle.kinds.contains(&kind) || bundle.keep;
        let mut names = if stays { old.clone() } else { Names::new() };
        let mut seen: HashMap<String, &str> = HashMap::new();
        for source in sources {
            let Some(name) = source.table.text("name").filter(|name| !name.is_empty()) else { continue };
            if let Some(other) = seen.insert(name.to_ascii_lowercase(), source.path) {
                let line = source.table.line_of_error("name");
                self.fault(source, line, format!("name: {name:?} is in {other} too: take one out"));
            }
            names.insert(name.to_ascii_lowercase(), name.to_string());
        }
        let gone = old.iter().filter(|(key, _)| !names.contains_key(*key));
        self.lost.extend(gone.map(|(_, name)| file::quoted(name).to_lowercase()));
        self.names.insert(kind, names);
    }

    /// Notes the screens as they will be, by their paths.
    fn collect_paths(&mut self, sources: &[Source<'_>], old: &[ScreenThing], bundle: &Bundle) {
        let kind = Kind::Dashboards;
        let own = old.iter().map(|thing| (thing.parts(), thing.row.name.clone()));
        let old: BTreeMap<String, (Vec<String>, String)> = own.map(|one| (path_key(&one.0), one)).collect();
        let stays = !bundle.kinds.contains(&kind) || bundle.keep;
        let mut names = Names::new();
        if stays {
            names.extend(old.iter().map(|(key, (_, name))| (key.clone(), name.clone())));
        }
        let mut seen: HashMap<String, &str> = HashMap::new();
        for source in sources {
            let Some(path) = path_of(&source.table) else { continue };
            let (key, name) = (path_key(&path), path.last().cloned().unwrap_or_default());
            if let Some(other) = seen.insert(key.clone(), source.path) {
                let line = source.table.line_of_error("name");
                self.fault(source, line, format!("name: {name:?} with this parent is in {other} too: take one out"));
            }
            names.insert(key, name);
        }
        let gone = old.iter().filter(|(key, _)| !names.contains_key(*key));
        self.lost.extend(gone.map(|(_, (_, name))| file::quoted(name).to_lowercase()));
        self.names.insert(kind, names);
    }

    /// The name of a kind as it is spelled there.
    fn known(&self, kind: Kind, name: &str) -> Option<&String> {
        self.names.get(&kind)?.get(&name.to_ascii_lowercase())
    }

    /// Names of a kind in a list, as they are spelled there.
    fn known_list(&self, key: &str, what: &str, kind: Kind, list: Vec<String>) -> Result<Vec<String>, ApiError> {
        let unknown: Vec<String> = list.iter().filter(|name| self.known(kind, name).is_none()).cloned().collect();
        if !unknown.is_empty() {
            let unknown = named(&unknown);
            return Err(ApiError::bad(format!("{key}: there is no {what} {unknown}: make it, or name another")));
        }
        Ok(sorted(list.iter().filter_map(|name| self.known(kind, name)).cloned().collect()))
    }

    /// Who is to have made a thing: whom the file names, else who made it, else who applies. Somebody who is gone may
    /// have made what is there, and makes nothing else.
    fn owner(&self, fields: &Fields, old: Option<&str>) -> Result<String, ApiError> {
        let owner = fields.line("owner", user::NAME_MAX)?;
        if owner.is_empty() {
            return Ok(old.unwrap_or(&self.actor.name).to_string());
        }
        if old.is_some_and(|old| old.eq_ignore_ascii_case(&owner)) {
            return Ok(owner);
        }
        let known = self.known(Kind::Users, &owner).cloned();
        known.ok_or_else(|| ApiError::bad(format!("owner: there is no user {owner:?}: make him, or name another")))
    }

    fn wanted(&mut self, sources: &HashMap<Kind, Vec<Source<'_>>>, old: &Model, bundle: &Bundle) -> Model {
        let of = |kind: Kind| Files {
            kind,
            sources: sources.get(&kind).map_or(&[][..], Vec::as_slice),
            stay: !bundle.kinds.contains(&kind) || bundle.keep,
        };
        let mut wanted = Model {
            users: of(Kind::Users).read(self, &old.users, Reader::user),
            teams: of(Kind::Teams).read(self, &old.teams, Reader::team),
            groups: of(Kind::Groups).read(self, &old.groups, Reader::group),
            templates: of(Kind::Templates).read(self, &old.templates, Reader::template),
            expressions: of(Kind::Expressions).read(self, &old.expressions, Reader::expression),
            nodata: of(Kind::Nodata).read(self, &old.nodata, Reader::nodata),
            aggregators: of(Kind::Aggregators).read(self, &old.aggregators, Reader::aggregator),
            probes: of(Kind::Probes).read(self, &old.probes, Reader::probe),
            dashboards: of(Kind::Dashboards).read(self, &old.dashboards, Reader::screen),
        };
        self.check_users(old, &wanted, of(Kind::Users).sources);
        self.check_hosts(&wanted);
        self.check_chains(&wanted, of(Kind::Templates).sources);
        // What stays although its file is gone may name a group that goes; it goes with the group.
        wanted.aggregators.retain(|one| self.known(Kind::Groups, &one.group).is_some());
        wanted.probes.retain(|one| one.group.is_empty() || self.known(Kind::Groups, &one.group).is_some());
        self.check_probes(&wanted);
        wanted
    }

    fn user(&mut self, source: &Source<'_>, old: Option<&User>) -> Option<User> {
        let (table, fields) = (&source.table, source.table.fields());
        self.check_keys(source, table, Kind::Users.keys(), &[]);
        let read = |fields: &Fields| {
            let name = fields.required_line("name", user::NAME_MAX)?;
            let profile = users::required_profile(self.config, fields)?;
            let role = match fields.line("role", user::NAME_MAX)?.as_str() {
                "" | "user" => user::NORMAL,
                "admin" => user::ADMIN,
                "root" => user::ROOT,
                "blocked" => user::BLOCKED,
                other => return Err(ApiError::bad(format!("role is {other:?}: give user, admin or blocked"))),
            };
            let user::Profile { cnname, email, phone, im, qq } = profile;
            Ok(User { id: old.map_or(0, |old| old.id), name, cnname, email, phone, im, qq, role })
        };
        let read = every(&fields, read);
        self.check(source, table, read)
    }

    /// Refuses what no route does with users: root is neither made nor deleted, nobody deletes or blocks himself, and
    /// nobody changes one above him.
    fn check_users(&mut self, old: &Model, wanted: &Model, sources: &[Source<'_>]) {
        let whole = |text: String| Fault { file: Kind::Users.folder().to_string(), line: 1, text };
        for before in &old.users {
            let after = wanted.users.iter().find(|user| user.id == before.id);
            let is_same = after.is_some_and(|after| after == before);
            let is_changed_role = after.is_none_or(|after| after.role != before.role);
            let name = &before.name;
            let fault = if is_same {
                continue;
            } else if before.role == user::ROOT && is_changed_role {
                format!("{name} is root, who stays: give a file with role = \"root\"")
            } else if before.id == self.actor.uid && is_changed_role {
                format!(
                    "{name} applies this, and can neither delete himself nor change his role: keep his file as it was"
                )
            } else if before.role > self.actor.role {
                format!("{name} is above {}, and is not changed by him", self.actor.name)
            } else {
                continue;
            };
            let source = sources
                .iter()
                .find(|source| source.table.text("name").is_some_and(|own| own.eq_ignore_ascii_case(name)));
            match source {
                Some(source) => self.fault(source, source.table.line_of_error("role"), fault),
                None => self.faults.push(whole(fault)),
            }
        }
        for made in wanted.users.iter().filter(|user| user.role == user::ROOT) {
            if !old.users.iter().any(|before| before.id == made.id && before.role == user::ROOT)
                && !old.users.is_empty()
            {
                let text = format!("{}: a server makes root by itself: give role = \"admin\"", made.name);
                self.faults.push(whole(text));
            }
        }
    }

    fn team(&mut self, source: &Source<'_>, old: Option<&TeamThing>) -> Option<TeamThing> {
        let (table, fields) = (&source.table, source.table.fields());
        self.check_keys(source, table, Kind::Teams.keys(), &[]);
        let read = |fields: &Fields| {
            fields.required_line("name", crate::portal::team::NAME_MAX)?;
            let name = team::team_name(fields, "name")?;
            let resume = fields.line("resume", crate::portal::team::RESUME_MAX)?;
            let owner = self.owner(fields, old.map(|old| old.owner.as_str()))?;
            if !owner.is_empty() && self.known(Kind::Users, &owner).is_none() {
                return Err(ApiError::bad(format!("owner: there is no user {owner:?}: make him, or name another")));
            }
            let members = fields.lines("members", user::NAME_MAX)?.unwrap_or_default();
            let members = self.known_list("members", "user", Kind::Users, members)?;
            let row = Team { id: old.map_or(0, |old| old.row.id), name, resume, creator: 0 };
            Ok(TeamThing { row, owner, members })
        };
        let read = every(&fields, read);
        self.check(source, table, read)
    }

    fn group(&mut self, source: &Source<'_>, old: Option<&GroupThing>) -> Option<GroupThing> {
        let (table, fields) = (&source.table, source.table.fields());
        self.check_keys(source, table, Kind::Groups.keys(), &[]);
        let read = |fields: &Fields| {
            let grp_name = hostgroup::group_name(fields, "name")?;
            let create_user = self.owner(fields, old.map(|old| old.row.create_user.as_str()))?;
            let templates = fields.lines("templates", template::NAME_MAX)?.unwrap_or_default();
            let templates = self.known_list("templates", "template", Kind::Templates, templates)?;
            let plugins = fields.lines("plugins", plugin::DIR_MAX)?.unwrap_or_default();
            for dir in &plugins {
                plugin::check_dir(dir).map_err(|error| ApiError::bad(format!("plugins: {error}")))?;
            }
            let hosts = if fields.has("hosts") { hostgroup::required_hosts(fields)? } else { Vec::new() };
            let hosts = hosts.into_iter().map(|host| self.host(host)).collect::<Result<_, _>>()?;
            let row = Group { id: old.map_or(0, |old| old.row.id), grp_name, create_user };
            Ok(GroupThing { row, templates, plugins: sorted(plugins), hosts: sorted(hosts) })
        };
        let read = every(&fields, read);
        self.check(source, table, read)
    }

    /// The host as the portal spells it, if it is a name that a host may have.
    fn host(&self, name: String) -> Result<String, ApiError> {
        if let Some(known) = self.hosts.get(&name.to_ascii_lowercase()) {
            return Ok(known.clone());
        }
        match hostgroup::odd_name(&name) {
            Some(what) => {
                Err(ApiError::bad(format!("hosts: {name:?} {what}: list each host by itself, by its full name")))
            }
            None => Ok(name),
        }
    }

    fn template(&mut self, source: &Source<'_>, old: Option<&TemplateThing>) -> Option<TemplateThing> {
        let (table, fields) = (&source.table, source.table.fields());
        self.check_keys(source, table, Kind::Templates.keys(), &["action", "strategy"]);
        let read = |fields: &Fields| {
            let tpl_name = fields.required_line("name", template::NAME_MAX)?;
            let create_user = self.owner(fields, old.map(|old| old.row.create_user.as_str()))?;
            let parent = fields.line("parent", template::NAME_MAX)?;
            let parent = match parent.is_empty() {
                true => parent,
                false => self.known_list("parent", "template", Kind::Templates, vec![parent])?.remove(0),
            };
            let (id, action_id) = old.map_or((0, 0), |old| (old.row.id, old.row.action_id));
            Ok((Template { id, tpl_name, parent_id: 0, action_id, create_user }, parent))
        };
        let read = every(&fields, read);
        let own = self.check(source, table, read);
        let action = self.action(source, table, old.and_then(|old| old.action.as_ref()));
        let strategies = self.strategies(source, table, old.map_or(&[][..], |old| &old.strategies));
        let (row, parent) = own?;
        Some(TemplateThing { row, parent, action, strategies })
    }

    /// The action of a template or an expression, if there is one.
    fn action(&mut self, source: &Source<'_>, table: &Table, old: Option<&Action>) -> Option<Action> {
        let table = table.named("action").next()?;
        self.check_keys(source, table, &ACTION, &[]);
        let fields = table.fields();
        let read = |fields: &Fields| {
            let written = fields.line("url", usize::MAX)?;
            let url = secret::meant(&written, old.map_or("", |old| &old.url)).map_err(ApiError::bad)?;
            let mut fields = fields.clone();
            if let Fields::Json(values) = &mut fields {
                values.insert("url".to_string(), url.into());
            }
            let teams = fields.lines("uic", action::UIC_MAX)?.unwrap_or_default();
            if let Some(team) = teams.iter().find(|team| team.contains(',')) {
                return Err(ApiError::bad(format!("uic: {team:?} contains a comma; list each team by itself")));
            }
            let teams: Vec<&str> = teams.iter().map(String::as_str).collect();
            let action = rule::required_action(&fields, "", &teams)?;
            let is_unknown = |name: &&&str| self.known(Kind::Teams, name).is_none();
            let unknown: Vec<String> = teams.iter().filter(is_unknown).map(|name| name.to_string()).collect();
            match rule::faults_of(self.config, &action, "", &unknown).into_iter().next() {
                Some(fault) if self.config.is_strict() => Err(ApiError::bad(fault)),
                _ => Ok(Action { id: old.map_or(0, |old| old.id), ..action }),
            }
        };
        let read = every(&fields, read);
        self.check(source, table, read)
    }

    fn strategies(&mut self, source: &Source<'_>, table: &Table, old: &[StrategyThing]) -> Vec<StrategyThing> {
        let keys: Vec<&str> = STRATEGY.into_iter().chain(["id"]).collect();
        let mut found = Vec::new();
        for table in table.named("strategy") {
            self.check_keys(source, table, &keys, &["exception"]);
            let fields = as_text(table, "right_value");
            let read = |fields: &Fields| {
                let row = strategy::required_strategy(self.config, fields)?;
                let id = fields.int("id")?;
                if id != 0 && found.iter().any(|other: &StrategyThing| other.row.id == id) {
                    return Err(ApiError::bad(format!("id: {id} is there twice: take one out")));
                }
                if id != 0 && !old.iter().any(|old| old.row.id == id) {
                    return Err(ApiError::bad(format!("id: this template has no strategy {id}: take the line out")));
                }
                Ok(StrategyThing { row: crate::portal::strategy::Strategy { id, ..row }, exceptions: Vec::new() })
            };
            let read = every(&fields, read);
            let Some(mut thing) = self.check(source, table, read) else { continue };
            thing.exceptions = self.exceptions(source, table, &thing.row);
            found.push(thing);
        }
        let ids = pair(old, &found, |one| one.row.id, &STRATEGY_LIKENESS);
        for (thing, id) in found.iter_mut().zip(ids) {
            thing.row.id = id;
            let before = old.iter().find(|old| old.row.id == id).filter(|_| id != 0);
            let before = before.map_or(&[][..], |old| &old.exceptions);
            for new in &mut thing.exceptions {
                let same = before.iter().find(|old| (&old.kind, &old.target) == (&new.kind, &new.target));
                (new.id, new.strategy_id) = (same.map_or(0, |old| old.id), id);
            }
        }
        found
    }

    fn exceptions(
        &mut self,
        source: &Source<'_>,
        table: &Table,
        strategy: &crate::portal::strategy::Strategy,
    ) -> Vec<Exception> {
        let mut found: Vec<Exception> = Vec::new();
        for table in table.named("exception") {
            self.check_keys(source, table, &EXCEPTION, &[]);
            let fields = as_text(table, "right_value");
            let read = |fields: &Fields| {
                let (kind, target) = exception::required_target(fields)?;
                let target = match kind.as_str() {
                    crate::portal::exception::GROUP => {
                        self.known_list("target", "host group", Kind::Groups, vec![target])?.remove(0)
                    }
                    crate::portal::exception::HOST => {
                        self.hosts.get(&target.to_ascii_lowercase()).cloned().unwrap_or(target)
                    }
                    _ => target,
                };
                let new = Exception { kind, target, ..exception::required_changes(fields)? };
                exception::check_against(self.config, strategy, &new)?;
                if found.iter().any(|other| (&other.kind, &other.target) == (&new.kind, &new.target)) {
                    let Exception { kind, target, .. } = &new;
                    return Err(ApiError::bad(format!("target: the {kind} {target:?} is there twice: take one out")));
                }
                exception::check_number(&new.kind, found.iter())?;
                Ok(new)
            };
            let read = every(&fields, read);
            found.extend(self.check(source, table, read));
        }
        found
    }

    /// Refuses more hosts than the table takes.
    fn check_hosts(&mut self, wanted: &Model) {
        let names = wanted.groups.iter().flat_map(|group| &group.hosts).map(|host| host.to_ascii_lowercase());
        let new: BTreeSet<String> = names.filter(|host| !self.hosts.contains_key(host)).collect();
        if (self.hosts.len() + new.len()) as i64 > HOSTS_MAX {
            let file = Kind::Groups.folder().to_string();
            let text = format!("hosts: there would be more than {HOSTS_MAX} hosts: delete what no longer reports");
            self.faults.push(Fault { file, line: 1, text });
        }
    }

    /// Refuses parents that form a cycle, or a chain that is too long.
    fn check_chains(&mut self, wanted: &Model, sources: &[Source<'_>]) {
        let place = |name: &str| {
            let at = wanted.templates.iter().position(|one| one.row.tpl_name.eq_ignore_ascii_case(name));
            at.map_or(0, |at| at as i64 + 1)
        };
        let parents: HashMap<i64, i64> = (1_i64..)
            .zip(&wanted.templates)
            .map(|(at, one)| (at, if one.parent.is_empty() { 0 } else { place(&one.parent) }))
            .collect();
        for source in sources {
            let at = place(source.table.text("name").unwrap_or_default());
            if at != 0 && template::chain(&parents, at).is_none() {
                let text =
                    format!("parent: the parents form a cycle, or a chain of {CHAIN_MAX} templates: name another");
                self.fault(source, source.table.line_of_error("parent"), text);
            }
        }
    }

    fn expression(&mut self, source: &Source<'_>, old: Option<&ExpressionThing>) -> Option<ExpressionThing> {
        let table = &source.table;
        let keys: Vec<&str> = Kind::Expressions.keys().iter().copied().chain(["id"]).collect();
        self.check_keys(source, table, &keys, &["action"]);
        let fields = as_text(table, "right_value");
        let read = |fields: &Fields| {
            // As in the route, which takes 0 for missing.
            fields.required_int("priority")?;
            let row = expression::required_rule(self.config, fields)?;
            let create_user = self.owner(fields, old.map(|old| old.row.create_user.as_str()))?;
            let (id, action_id) = old.map_or((0, 0), |old| (old.row.id, old.row.action_id));
            Ok(Expression { id, action_id, create_user, ..row })
        };
        let read = every(&fields, read);
        let own = self.check(source, table, read);
        let action = self.action(source, table, old.map(|old| &old.action));
        Some(ExpressionThing { row: own?, action: action.unwrap_or_default() })
    }

    fn nodata(&mut self, source: &Source<'_>, old: Option<&Mock>) -> Option<Mock> {
        let (table, fields) = (&source.table, source.table.fields());
        self.check_keys(source, table, Kind::Nodata.keys(), &[]);
        let read = |fields: &Fields| {
            let name = fields.required_line("name", mock::NAME_MAX)?;
            let creator = self.owner(fields, old.map(|old| old.creator.as_str()))?;
            let obj = fields.lines("obj", mock::OBJ_MAX)?.unwrap_or_default().join("\n");
            let mut fields = fields.clone();
            if let Fields::Json(values) = &mut fields {
                values.insert("obj".to_string(), obj.into());
                values.insert("dstype".to_string(), "GAUGE".into());
            }
            let row = nodata::required_mock(self.config, &fields)?;
            if row.obj_type == "group" && self.config.is_strict() {
                nodata::check_known(&row, |name| self.known(Kind::Groups, name).is_some())?;
            }
            Ok(Mock { id: old.map_or(0, |old| old.id), name, creator, ..row })
        };
        let read = every(&fields, read);
        self.check(source, table, read)
    }

    fn probe(&mut self, source: &Source<'_>, old: Option<&ProbeThing>) -> Option<ProbeThing> {
        let (table, fields) = (&source.table, source.table.fields());
        let known = old.map_or_else(Default::default, |old| keys_of(&old.row));
        let bad = |faults: Vec<String>| faults.into_iter().map(ApiError::bad).collect::<Vec<ApiError>>();
        let definition = self.check(source, table, code_probe::read(source.text, &known).map_err(bad));
        let read = |fields: &Fields| {
            let create_user = self.owner(fields, old.map(|old| old.row.create_user.as_str()))?;
            let pause = fields.flag("pause")?;
            let group = fields.line("group", group::NAME_MAX)?;
            let group = match group.is_empty() {
                true => group,
                false => self.known_list("group", "host group", Kind::Groups, vec![group])?.remove(0),
            };
            let places = fields.int("places")?;
            said::check_places(&group, places).map_err(ApiError::bad)?;
            if let Some(definition) = &definition {
                said::check_place(definition, group.is_empty()).map_err(ApiError::bad)?;
            }
            let (id, create_at) = old.map_or((0, 0), |old| (old.row.id, old.row.create_at));
            Ok(ProbeThing { row: Probe { id, places, pause, create_user, create_at, ..Probe::default() }, group })
        };
        let read = every(&fields, read);
        let own = self.check(source, table, read);
        let (definition, own) = (definition?, own?);
        let text = self.check(source, table, text_of(&definition).map_err(|error| vec![error]))?;
        Some(ProbeThing { row: Probe { name: definition.name, definition: text, ..own.row }, ..own })
    }

    /// Refuses more probes than the table takes.
    fn check_probes(&mut self, wanted: &Model) {
        let bytes: usize = wanted.probes.iter().map(|one| one.row.definition.len()).sum();
        let text = match (wanted.probes.len() > PROBES_MAX, bytes as i64 > DEFINITIONS_BYTES_MAX) {
            (true, _) => format!("there would be more than {PROBES_MAX} probes: delete what nobody needs"),
            (_, true) => {
                format!("all probes together would have more than {DEFINITIONS_BYTES_MAX} bytes: give shorter texts")
            }
            _ => return,
        };
        self.faults.push(Fault { file: Kind::Probes.folder().to_string(), line: 1, text });
    }

    fn screen(&mut self, source: &Source<'_>, old: Option<&ScreenThing>) -> Option<ScreenThing> {
        let (table, fields) = (&source.table, source.table.fields());
        let keys: Vec<&str> = Kind::Dashboards.keys().iter().copied().chain(["id"]).collect();
        self.check_keys(source, table, &keys, &["graph"]);
        let read = |fields: &Fields| {
            let name = fields.required_line("name", dashboard::NAME_MAX)?;
            let parent = fields.lines("parent", dashboard::NAME_MAX)?.unwrap_or_default();
            if parent.len() >= DEPTH_MAX {
                return Err(ApiError::bad(format!("parent: screens are at most {DEPTH_MAX} deep: name a higher one")));
            }
            let parent = self.known_path(&parent)?;
            Ok((Screen { id: old.map_or(0, |old| old.row.id), pid: old.map_or(0, |old| old.row.pid), name }, parent))
        };
        let read = every(&fields, read);
        let own = self.check(source, table, read);
        let graphs = self.graphs(source, table, old.map_or(&[][..], |old| &old.graphs));
        let (row, parent) = own?;
        Some(ScreenThing { row, parent, graphs })
    }

    /// The names of a path of screens, as they are spelled there.
    fn known_path(&self, path: &[String]) -> Result<Vec<String>, ApiError> {
        let known = |end: usize| {
            let name = self.names.get(&Kind::Dashboards).and_then(|names| names.get(&path_key(&path[..end])));
            let text = || format!("parent: there is no screen {:?}: make it, or name another", path[..end].join(" / "));
            name.cloned().ok_or_else(|| ApiError::bad(text()))
        };
        (1..=path.len()).map(known).collect()
    }

    fn graphs(&mut self, source: &Source<'_>, table: &Table, old: &[Graph]) -> Vec<Graph> {
        let keys: Vec<&str> = GRAPH.into_iter().chain(["id"]).collect();
        let mut found: Vec<Graph> = Vec::new();
        for table in table.named("graph") {
            self.check_keys(source, table, &keys, &[]);
            let fields = table.fields();
            let read = |fields: &Fields| {
                screens::check_required(fields, &["title", "endpoints", "counters"])?;
                let id = fields.int("id")?;
                if id != 0 && found.iter().any(|other| other.id == id) {
                    return Err(ApiError::bad(format!("id: {id} is there twice: take one out")));
                }
                if id != 0 && !old.iter().any(|old| old.id == id) {
                    return Err(ApiError::bad(format!("id: this screen has no chart {id}: take the line out")));
                }
                screens::said_of_graph(fields, Graph { id, ..screens::new_graph() })
            };
            let read = every(&fields, read);
            found.extend(self.check(source, table, read));
        }
        let ids = pair(old, &found, |one| one.id, &GRAPH_LIKENESS);
        for (graph, id) in found.iter_mut().zip(ids) {
            graph.id = id;
            graph.screen_id = old.iter().find(|old| old.id == id).map_or(0, |old| old.screen_id);
        }
        // As they are read from the table.
        found.sort_by_key(|graph| graph.position);
        found
    }

    fn aggregator(&mut self, source: &Source<'_>, old: Option<&AggregatorThing>) -> Option<AggregatorThing> {
        let (table, fields) = (&source.table, source.table.fields());
        let keys: Vec<&str> = Kind::Aggregators.keys().iter().copied().chain(["id"]).collect();
        self.check_keys(source, table, &keys, &[]);
        let read = |fields: &Fields| {
            let row = aggregator::required_aggregator(self.config, fields)?;
            aggregator::check_expressions(&row)?;
            let creator = self.owner(fields, old.map(|old| old.row.creator.as_str()))?;
            // Last, for there is no value that is right for sure.
            let group = fields.required_line("group", group::NAME_MAX)?;
            let group = self.known_list("group", "host group", Kind::Groups, vec![group])?.remove(0);
            let row = Aggregator { id: old.map_or(0, |old| old.row.id), creator, ..row };
            Ok(AggregatorThing { row, group })
        };
        let read = every(&fields, read);
        self.check(source, table, read)
    }
}

/// What fields say, or all that is wrong with them: a value that is refused gives way to one that is right, until
/// nothing is left, or nothing is known that would be.
fn every<T>(fields: &Fields, read: impl Fn(&Fields) -> Result<T, ApiError>) -> Result<T, Vec<ApiError>> {
    let mut next = match (read(fields), fields) {
        (Ok(read), _) => return Ok(read),
        (Err(error), Fields::Json(values)) => (error, values.clone()),
        (Err(error), Fields::Form(_)) => return Err(vec![error]),
    };
    let (mut errors, mut mended) = (Vec::new(), BTreeSet::new());
    loop {
        let (error, mut values) = next;
        let key = file::key_of_error(error.text()).to_string();
        values.insert(key.clone(), right_value_of(&key));
        if !mended.insert(key) {
            return Err(errors);
        }
        errors.push(error);
        let fields = Fields::Json(values.clone());
        let Err(error) = read(&fields) else { return Err(errors) };
        next = (error, values);
    }
}

/// A value that a key may have whatever the others are; absence, where only what is there can be wrong.
fn right_value_of(key: &str) -> Value {
    match key {
        "name" | "cnname" | "metric" | "endpoint" | "title" => "x".into(),
        "email" => "x@x.com".into(),
        "expression" => "each(metric=x endpoint=x)".into(),
        "func" => "all(#1)".into(),
        "op" => ">".into(),
        "right_value" => "0".into(),
        "max_step" | "priority" => 1.into(),
        "step" => 60.into(),
        "obj_type" => "host".into(),
        "obj" | "endpoints" | "counters" => json!(["x"]),
        "numerator" => "$(x)".into(),
        "denominator" => "$#".into(),
        _ => Value::Null,
    }
}

/// Names of screens from the top to the one that a table describes, if it has a name.
fn path_of(table: &Table) -> Option<Vec<String>> {
    let name = table.text("name").filter(|name| !name.is_empty())?;
    let parent = table.fields().lines("parent", dashboard::NAME_MAX).ok()?.unwrap_or_default();
    Some(parent.into_iter().chain([name.to_string()]).collect())
}

/// A path of screens as a key; case does not matter, and no name has a zero byte.
fn path_key(path: &[String]) -> String {
    path.join("\0").to_ascii_lowercase()
}

/// The fields of a table, in which a number of this key is a text, as the API wants it.
fn as_text(table: &Table, key: &str) -> Fields {
    let mut fields = table.fields();
    if let Fields::Json(values) = &mut fields
        && let Some(Value::Number(number)) = values.get(key)
    {
        let text = number.to_string();
        values.insert(key.to_string(), text.into());
    }
    fields
}

/// The files of one kind.
struct Files<'f, 's> {
    kind: Kind,
    sources: &'f [Source<'s>],
    /// Whether what has no file stays.
    stay: bool,
}

impl Files<'_, '_> {
    /// The things of the files, and those that stay.
    fn read<'c, T: Thing>(
        &self,
        reader: &mut Reader<'c>,
        old: &[T],
        one: fn(&mut Reader<'c>, &Source<'_>, Option<&T>) -> Option<T>,
    ) -> Vec<T> {
        let written: HashMap<String, (String, &T)> = paths(self.kind, old)
            .into_iter()
            .map(|(path, thing)| (path, (super::code_model::text(self.kind, &thing.view()), thing)))
            .collect();
        let lost = reader.lost.clone();
        let names_lost = |text: &str| !lost.is_empty() && lost.iter().any(|name| text.to_lowercase().contains(name));
        let is_as_written = |source: &&Source<'_>| {
            written.get(source.path).is_some_and(|(text, _)| text == source.text && !names_lost(text))
        };
        let mut taken: BTreeSet<i64> = BTreeSet::new();
        let mut things: Vec<T> = Vec::new();
        for source in self.sources.iter().filter(is_as_written) {
            let thing = written[source.path].1;
            taken.insert(thing.id());
            things.push(thing.clone());
        }
        let changed: Vec<&Source<'_>> = self.sources.iter().filter(|source| !is_as_written(source)).collect();
        let left: Vec<&T> = old.iter().filter(|thing| !taken.contains(&thing.id())).collect();
        for (source, id) in changed.iter().zip(self.pair(reader, &left, &changed)) {
            let before = left.iter().find(|thing| thing.id() == id).copied().filter(|_| id != 0);
            taken.extend(before.map(Thing::id));
            things.extend(one(reader, source, before));
        }
        if self.stay {
            things.extend(old.iter().filter(|thing| !taken.contains(&thing.id())).cloned());
        }
        things
    }

    /// The id of the screen that is there, for each file: by an `id`, else by its path. A screen that moves by its `id`
    /// takes those in it along: they are found by where it was.
    fn pair_screens<T: Thing>(&self, reader: &mut Reader<'_>, old: &[&T], changed: &[&Source<'_>]) -> Vec<i64> {
        let explicit = explicit_ids(reader, old, changed);
        let was: HashMap<i64, Vec<String>> = old.iter().map(|thing| (thing.id(), thing.parts())).collect();
        let ids: HashMap<String, i64> = was.iter().map(|(id, path)| (path_key(path), *id)).collect();
        let new: Vec<Vec<String>> = changed.iter().map(|source| path_of(&source.table).unwrap_or_default()).collect();
        let moved: HashMap<String, &Vec<String>> =
            explicit.iter().zip(&new).filter_map(|(id, path)| Some((path_key(path), was.get(id)?))).collect();
        let mut taken: BTreeSet<i64> = explicit.iter().copied().collect();
        let mut find = |(explicit, path): (&i64, &Vec<String>)| {
            if *explicit != 0 || path.is_empty() {
                return *explicit;
            }
            let above = (1..path.len()).rev().find_map(|end| Some((end, moved.get(&path_key(&path[..end]))?)));
            let before = above.map_or(path.clone(), |(end, was)| was.iter().chain(&path[end..]).cloned().collect());
            ids.get(&path_key(&before)).copied().filter(|id| taken.insert(*id)).unwrap_or(0)
        };
        explicit.iter().zip(&new).map(&mut find).collect()
    }

    /// The id of what is there, for each file: by name, or where things have none by what they say.
    fn pair<T: Thing>(&self, reader: &mut Reader<'_>, old: &[&T], changed: &[&Source<'_>]) -> Vec<i64> {
        let keys: &[&[&str]] = match self.kind {
            Kind::Expressions => &[&["expression", "func", "op", "priority"], &["expression", "func"], &["expression"]],
            Kind::Aggregators => &[&["group", "endpoint", "metric", "tags"], &["endpoint", "metric", "tags"]],
            _ => &[],
        };
        if self.kind == Kind::Dashboards {
            return self.pair_screens(reader, old, changed);
        }
        if keys.is_empty() {
            let name = |thing: &&T| (thing.parts().concat().to_ascii_lowercase(), thing.id());
            let ids: HashMap<String, i64> = old.iter().map(name).collect();
            let id = |source: &&Source<'_>| {
                let name = source.table.text("name").unwrap_or_default();
                ids.get(&name.to_ascii_lowercase()).copied().unwrap_or(0)
            };
            return changed.iter().map(id).collect();
        }
        let explicit = explicit_ids(reader, old, changed);
        let says = |view: &super::code_model::View, keys: &[&str]| {
            keys.iter()
                .map(|key| view.get(*key).cloned().unwrap_or_else(|| json!("")).to_string())
                .collect::<Vec<_>>()
                .join("\0")
        };
        let old: Vec<(i64, super::code_model::View)> = old.iter().map(|thing| (thing.id(), thing.view())).collect();
        let new: Vec<(i64, super::code_model::View)> = changed
            .iter()
            .zip(explicit)
            .map(|(source, id)| match source.table.fields() {
                Fields::Json(view) => (id, view),
                Fields::Form(_) => (id, super::code_model::View::new()),
            })
            .collect();
        let likeness: Vec<Likeness<(i64, super::code_model::View)>> = keys
            .iter()
            .map(|keys| Box::new(move |one: &(i64, super::code_model::View)| says(&one.1, keys)) as _)
            .collect();
        pair(&old, &new, |one| one.0, &likeness)
    }
}

/// The ids that files name; 0 where they name none.
fn explicit_ids<T: Thing>(reader: &mut Reader<'_>, old: &[&T], changed: &[&Source<'_>]) -> Vec<i64> {
    let mut explicit = Vec::new();
    for source in changed {
        let id = source.table.fields().int("id").unwrap_or(0);
        let is_there = id == 0 || (old.iter().any(|thing| thing.id() == id) && !explicit.contains(&id));
        if !is_there {
            let text = format!("id: there is none with the id {id}, or another file has it: take the line out");
            reader.fault(source, source.table.line_of_error("id"), text);
        }
        explicit.push(if is_there { id } else { 0 });
    }
    explicit
}

/// A text that things have in common which are alike.
type Likeness<T> = Box<dyn Fn(&T) -> String>;

/// What strategies of a template have in common which are the same, from much to little: so a strategy keeps its id
/// when its threshold is edited, and also when its function is.
const STRATEGY_LIKENESS: [fn(&StrategyThing) -> String; 4] =
    [|one| likeness(one, 8), |one| likeness(one, 7), |one| likeness(one, 3), |one| likeness(one, 2)];

/// What charts of a screen have in common which are the same, from much to little.
const GRAPH_LIKENESS: [fn(&Graph) -> String; 4] = [
    |one| format!("{}\0{}\0{}\0{}", one.title, one.hosts, one.counters, one.position),
    |one| format!("{}\0{}\0{}", one.title, one.hosts, one.counters),
    |one| format!("{}\0{}", one.title, one.counters),
    |one| one.title.clone(),
];

/// The first texts of a strategy, from what names its series to its threshold.
fn likeness(one: &StrategyThing, count: usize) -> String {
    let row = &one.row;
    let priority = row.priority.to_string();
    [&row.metric, &row.tags, &priority, &row.func, &row.op, &row.run_begin, &row.run_end, &row.right_value][..count]
        .iter()
        .map(|text| text.as_str())
        .collect::<Vec<_>>()
        .join("\0")
}

/// The ids of `old` for things that are new: those that they name, then by likeness, in both lists from the front. 0 is
/// for what is like nothing that is left.
fn pair<T, L: Fn(&T) -> String>(old: &[T], new: &[T], id: impl Fn(&T) -> i64, likeness: &[L]) -> Vec<i64> {
    let mut ids: Vec<i64> = new.iter().map(&id).collect();
    for like in likeness {
        let mut left: HashMap<String, std::collections::VecDeque<i64>> = HashMap::new();
        for one in old.iter().filter(|one| !ids.contains(&id(one))) {
            left.entry(like(one)).or_default().push_back(id(one));
        }
        for (one, id) in new.iter().zip(&mut ids).filter(|(_, id)| **id == 0) {
            *id = left.get_mut(&like(one)).and_then(std::collections::VecDeque::pop_front).unwrap_or(0);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::strategy::Strategy;

    #[test]
    fn strategies_keep_their_ids() {
        let one = |id: i64, text: &str| {
            let [metric, func, right_value] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            let (metric, func, right_value) = (metric.to_string(), func.to_string(), right_value.to_string());
            StrategyThing { row: Strategy { id, metric, func, right_value, ..Strategy::default() }, exceptions: vec![] }
        };
        let check = |old: &[&str], new: &[&str], expected: &[i64]| {
            let old: Vec<StrategyThing> = (1..).zip(old).map(|(id, text)| one(id, text)).collect();
            let new: Vec<StrategyThing> = new.iter().map(|text| one(0, text)).collect();
            assert_eq!(pair(&old, &new, |one| one.row.id, &STRATEGY_LIKENESS), expected);
        };
        check(&["a f 1", "b f 1"], &["b f 1", "a f 1"], &[2, 1]);
        check(&["a f 1"], &["a f 2"], &[1]);
        check(&["a f 1"], &["a g 2"], &[1]);
        // What is equal goes first, before what is alike.
        check(&["a f 1", "a f 2"], &["a f 2", "a f 3"], &[2, 1]);
        check(&["a f 1", "a g 2"], &["a g 3"], &[2]);
        check(&["a f 1"], &["b f 1", "a f 1", "a f 1"], &[0, 1, 0]);
    }
}
