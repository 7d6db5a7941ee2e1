//! Model: the things of a portal as files have them, names in place of ids.
//!
//! How: [`Model::of`] makes it of the tables, `code_plan.rs` of files. A [`View`] of a thing is what its file says:
//! files are written from it, and two of them are compared key by key.
//! Invariants: the order of everything depends on names and ids only. An id is that of the row, 0 for what is new;
//! views have it for comparing, and files do not.

use super::code_file as file;
use super::code_probe;
use super::code_secret::masked;
use super::dashboard::parts as joined_parts;
use crate::portal::action::Action;
use crate::portal::aggregator::Aggregator;
use crate::portal::dashboard::{Graph, Screen};
use crate::portal::exception::Exception;
use crate::portal::expression::{self, Expression};
use crate::portal::group::Group;
use crate::portal::mock::Mock;
use crate::portal::probe::{Probe, SERVER};
use crate::portal::site::Site;
use crate::portal::strategy::Strategy;
use crate::portal::team::Team;
use crate::portal::template::Template;
use crate::portal::user::{self, User};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// What a file says, by its keys.
pub type View = Map<String, Value>;

/// A kind of thing with a folder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Users,
    Teams,
    Groups,
    Templates,
    Expressions,
    Nodata,
    Aggregators,
    Probes,
    Dashboards,
}

impl Kind {
    /// All kinds, each behind those that it names.
    pub const ALL: [Kind; 9] = [
        Kind::Users,
        Kind::Teams,
        Kind::Templates,
        Kind::Groups,
        Kind::Expressions,
        Kind::Nodata,
        Kind::Aggregators,
        Kind::Probes,
        Kind::Dashboards,
    ];

    /// The folder that has the files.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Users => "users",
            Kind::Teams => "teams",
            Kind::Groups => "groups",
            Kind::Templates => "templates",
            Kind::Expressions => "expressions",
            Kind::Nodata => "nodata",
            Kind::Aggregators => "aggregators",
            Kind::Probes => "probes",
            Kind::Dashboards => "dashboards",
        }
    }

    /// The keys of a file, in their order.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Users => &["name", "cnname", "email", "phone", "im", "qq", "role"],
            Kind::Teams => &["name", "resume", "owner", "members"],
            Kind::Groups => &["name", "owner", "templates", "plugins", "hosts"],
            Kind::Templates => &["name", "parent", "owner"],
            Kind::Expressions => {
                &["expression", "func", "op", "right_value", "max_step", "priority", "note", "pause", "owner"]
            }
            Kind::Nodata => &["name", "obj_type", "obj", "metric", "tags", "step", "mock", "owner"],
            Kind::Aggregators => &["group", "numerator", "denominator", "endpoint", "metric", "tags", "step", "owner"],
            Kind::Probes => &code_probe::KEYS,
            Kind::Dashboards => &["name", "parent"],
        }
    }
}

/// Keys of `[action]`.
pub const ACTION: [&str; 7] = [
    "uic",
    "url",
    "callback",
    "before_callback_sms",
    "before_callback_mail",
    "after_callback_sms",
    "after_callback_mail",
];
/// Keys of `[[strategy]]`.
pub const STRATEGY: [&str; 10] =
    ["metric", "tags", "func", "op", "right_value", "max_step", "priority", "note", "run_begin", "run_end"];
/// Keys of `[[strategy.exception]]`.
pub const EXCEPTION: [&str; 6] = ["kind", "target", "right_value", "max_step", "pause", "note"];

/// Keys of `[[graph]]`.
pub const GRAPH: [&str; 8] =
    ["title", "endpoints", "counters", "timespan", "graph_type", "method", "position", "falcon_tags"];

#[derive(Clone, Debug)]
pub struct TeamThing {
    pub row: Team,
    /// Name of the creator.
    pub owner: String,
    pub members: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct GroupThing {
    pub row: Group,
    pub templates: Vec<String>,
    pub plugins: Vec<String>,
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct TemplateThing {
    pub row: Template,
    /// Name of the parent, or "".
    pub parent: String,
    pub action: Option<Action>,
    pub strategies: Vec<StrategyThing>,
}

#[derive(Clone, Debug, Default)]
pub struct StrategyThing {
    pub row: Strategy,
    pub exceptions: Vec<Exception>,
}

#[derive(Clone, Debug)]
pub struct ExpressionThing {
    pub row: Expression,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub struct AggregatorThing {
    pub row: Aggregator,
    /// Name of the group.
    pub group: String,
}

#[derive(Clone, Debug)]
pub struct ProbeThing {
    pub row: Probe,
    /// Name of the group; "" is the server.
    pub group: String,
}

#[derive(Clone, Debug)]
pub struct ScreenThing {
    pub row: Screen,
    /// Names of the screens that it is in, from the top.
    pub parent: Vec<String>,
    /// Charts, by their positions.
    pub graphs: Vec<Graph>,
}

/// The things of a portal.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub users: Vec<User>,
    pub teams: Vec<TeamThing>,
    pub groups: Vec<GroupThing>,
    pub templates: Vec<TemplateThing>,
    pub expressions: Vec<ExpressionThing>,
    pub nodata: Vec<Mock>,
    pub aggregators: Vec<AggregatorThing>,
    pub probes: Vec<ProbeThing>,
    pub dashboards: Vec<ScreenThing>,
}

/// A thing that has a file.
pub trait Thing: Clone {
    /// The row's id; 0 for a new thing.
    fn id(&self) -> i64;

    /// The name that people know it by, as parts.
    fn parts(&self) -> Vec<String>;

    /// What its file says.
    fn view(&self) -> View;
}

fn view(value: Value) -> View {
    match value {
        Value::Object(view) => view,
        _ => View::new(),
    }
}

impl Thing for User {
    fn id(&self) -> i64 {
        self.id
    }

    fn parts(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn view(&self) -> View {
        let User { name, cnname, email, phone, im, qq, role, .. } = self;
        let role = role_text(*role);
        view(
            json!({ "name": name, "cnname": cnname, "email": email, "phone": phone, "im": im, "qq": qq, "role": role }),
        )
    }
}

/// The word for a role; "" is a user without further rights.
pub fn role_text(role: i64) -> &'static str {
    match role {
        user::ROOT => "root",
        user::ADMIN => "admin",
        user::BLOCKED => "blocked",
        _ => "",
    }
}

impl Thing for TeamThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        vec![self.row.name.clone()]
    }

    fn view(&self) -> View {
        let Team { name, resume, .. } = &self.row;
        view(json!({ "name": name, "resume": resume, "owner": self.owner, "members": self.members }))
    }
}

impl Thing for GroupThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        vec![self.row.grp_name.clone()]
    }

    fn view(&self) -> View {
        let Group { grp_name, create_user, .. } = &self.row;
        let (templates, plugins, hosts) = (&self.templates, &self.plugins, &self.hosts);
        view(
            json!({ "name": grp_name, "owner": create_user, "templates": templates, "plugins": plugins, "hosts": hosts }),
        )
    }
}

impl Thing for TemplateThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        vec![self.row.tpl_name.clone()]
    }

    fn view(&self) -> View {
        let Template { tpl_name, create_user, .. } = &self.row;
        let strategies: Vec<Value> = self.strategies.iter().map(StrategyThing::view).collect();
        let mut view =
            view(json!({ "name": tpl_name, "parent": self.parent, "owner": create_user, "strategy": strategies }));
        if let Some(action) = &self.action {
            view.insert("action".to_string(), action_view(action));
        }
        view
    }
}

impl StrategyThing {
    fn view(&self) -> Value {
        let mut view = view(json!(self.row));
        view.remove("tpl_id");
        let exceptions = self.exceptions.iter().map(|row| {
            let Exception { kind, target, right_value, max_step, pause, note, .. } = row;
            json!({ "kind": kind, "target": target, "right_value": right_value, "max_step": max_step, "pause": pause,
                    "note": note })
        });
        view.insert("exception".to_string(), exceptions.collect());
        Value::Object(view)
    }
}

fn action_view(action: &Action) -> Value {
    let mut view = view(json!(action));
    view.remove("id");
    let teams: Vec<&str> = crate::portal::action::teams(&action.uic).collect();
    view.insert("uic".to_string(), json!(teams));
    Value::Object(view)
}

impl Thing for ExpressionThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        match expression::parse_text(&self.row.expression) {
            Ok((metric, tags)) => {
                let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                std::iter::once(metric).chain(tags).collect()
            }
            Err(_) => vec![self.row.expression.clone()],
        }
    }

    fn view(&self) -> View {
        let mut view = view(json!(self.row));
        view.remove("action_id");
        view.insert("owner".to_string(), json!(self.row.create_user));
        view.remove("create_user");
        view.insert("action".to_string(), action_view(&self.action));
        view
    }
}

impl Thing for Mock {
    fn id(&self) -> i64 {
        self.id
    }

    fn parts(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn view(&self) -> View {
        let obj: Vec<&str> = self.names().collect();
        let Mock { name, obj_type, metric, tags, step, mock, creator, .. } = self;
        view(json!({ "name": name, "obj_type": obj_type, "obj": obj, "metric": metric, "tags": tags, "step": step,
                     "mock": mock, "owner": creator }))
    }
}

impl Thing for AggregatorThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        let Aggregator { endpoint, metric, tags, .. } = &self.row;
        let tags = Some(tags.clone()).filter(|tags| !tags.is_empty());
        [self.group.clone(), endpoint.clone(), metric.clone()].into_iter().chain(tags).collect()
    }

    fn view(&self) -> View {
        let Aggregator { numerator, denominator, endpoint, metric, tags, step, creator, .. } = &self.row;
        view(json!({ "group": self.group, "numerator": numerator, "denominator": denominator, "endpoint": endpoint,
                     "metric": metric, "tags": tags, "step": step, "owner": creator }))
    }
}

impl Thing for ProbeThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        vec![self.row.name.clone()]
    }

    fn view(&self) -> View {
        code_probe::view(&self.row, &self.group)
    }
}

impl Thing for ScreenThing {
    fn id(&self) -> i64 {
        self.row.id
    }

    fn parts(&self) -> Vec<String> {
        self.parent.iter().chain([&self.row.name]).cloned().collect()
    }

    fn view(&self) -> View {
        let graphs: Vec<Value> = self.graphs.iter().map(graph_view).collect();
        view(json!({ "name": self.row.name, "parent": self.parent, "graph": graphs }))
    }
}

fn graph_view(graph: &Graph) -> Value {
    let Graph { id, title, hosts, counters, timespan, graph_type, method, position, falcon_tags, .. } = graph;
    // In the order in which they are saved, whatever an old row has.
    let list = |joined: &str| {
        let mut names: Vec<String> = joined_parts(joined).into_iter().map(str::to_string).collect();
        names.sort();
        names
    };
    json!({ "id": id, "title": title, "endpoints": list(hosts), "counters": list(counters),
            "timespan": timespan, "graph_type": graph_type, "method": method, "position": position,
            "falcon_tags": falcon_tags })
}

impl Model {
    /// The things in the tables. What names nothing that is there is left out, as the API leaves it out.
    pub fn of(site: &Site) -> Model {
        Model {
            users: site.users.clone(),
            teams: teams(site),
            groups: groups(site),
            templates: templates(site),
            expressions: expressions(site),
            nodata: site.mocks.clone(),
            aggregators: aggregators(site),
            probes: probes(site),
            dashboards: dashboards(site),
        }
    }

    /// The files of these kinds, by their paths.
    pub fn files(&self, kinds: &[Kind]) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for kind in kinds {
            match kind {
                Kind::Users => push(&mut files, *kind, &self.users),
                Kind::Teams => push(&mut files, *kind, &self.teams),
                Kind::Groups => push(&mut files, *kind, &self.groups),
                Kind::Templates => push(&mut files, *kind, &self.templates),
                Kind::Expressions => push(&mut files, *kind, &self.expressions),
                Kind::Nodata => push(&mut files, *kind, &self.nodata),
                Kind::Aggregators => push(&mut files, *kind, &self.aggregators),
                Kind::Probes => push(&mut files, *kind, &self.probes),
                Kind::Dashboards => push(&mut files, *kind, &self.dashboards),
            }
        }
        files
    }
}

fn push<T: Thing>(files: &mut BTreeMap<String, String>, kind: Kind, things: &[T]) {
    for (path, thing) in paths(kind, things) {
        files.insert(path, text(kind, &thing.view()));
    }
}

/// Things with the paths of their files. Of several that are named alike the older ones come first.
pub fn paths<T: Thing>(kind: Kind, things: &[T]) -> Vec<(String, &T)> {
    let mut count: HashMap<String, usize> = HashMap::new();
    let path = |thing: &T| {
        let name = file::name(&thing.parts());
        let count = count.entry(name.to_ascii_lowercase()).or_default();
        *count += 1;
        match *count {
            1 => format!("{}/{name}.toml", kind.folder()),
            count => format!("{}/{name}~~{count:04}.toml", kind.folder()),
        }
    };
    things.iter().map(path).collect::<Vec<_>>().into_iter().zip(things).collect()
}

/// The file of a thing.
pub(super) fn text(kind: Kind, view: &View) -> String {
    if kind == Kind::Probes {
        return code_probe::text(view);
    }
    let mut out = String::new();
    file::push_values(&mut out, view, kind.keys());
    if let Some(Value::Object(action)) = view.get("action") {
        out.push_str("\n[action]\n");
        let url = action.get("url").and_then(Value::as_str).unwrap_or_default();
        let mut action = action.clone();
        action.insert("url".to_string(), masked(url).into());
        file::push_values(&mut out, &action, &ACTION);
    }
    for strategy in objects(view, "strategy") {
        out.push_str("\n[[strategy]]\n");
        file::push_values(&mut out, strategy, &STRATEGY);
        for exception in objects(strategy, "exception") {
            out.push_str("\n[[strategy.exception]]\n");
            file::push_values(&mut out, exception, &EXCEPTION);
        }
    }
    for graph in objects(view, "graph") {
        out.push_str("\n[[graph]]\n");
        file::push_values(&mut out, graph, &GRAPH);
    }
    out
}

/// The tables of a list of tables.
pub fn objects<'v>(view: &'v View, key: &str) -> impl Iterator<Item = &'v View> {
    view.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// Sorts names as people do, each once.
pub fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_by(|a, b| (a.to_ascii_lowercase(), a).cmp(&(b.to_ascii_lowercase(), b)));
    names.dedup();
    names
}

fn by_id<'s>(rows: impl Iterator<Item = (i64, &'s String)>) -> HashMap<i64, &'s String> {
    rows.collect()
}

/// Names of the right sides of pairs, by their left sides.
fn names_of(pairs: &[(i64, i64)], names: &HashMap<i64, &String>) -> HashMap<i64, Vec<String>> {
    let mut found: HashMap<i64, Vec<String>> = HashMap::new();
    for (of, id) in pairs {
        if let Some(name) = names.get(id) {
            found.entry(*of).or_default().push(name.to_string());
        }
    }
    found
}

fn teams(site: &Site) -> Vec<TeamThing> {
    let users = by_id(site.users.iter().map(|user| (user.id, &user.name)));
    let mut members = names_of(&site.members, &users);
    let team = |row: &Team| TeamThing {
        owner: users.get(&row.creator).map_or(String::new(), |name| name.to_string()),
        members: sorted(members.remove(&row.id).unwrap_or_default()),
        row: row.clone(),
    };
    site.teams.iter().map(team).collect()
}

fn groups(site: &Site) -> Vec<GroupThing> {
    let templates = by_id(site.templates.iter().map(|row| (row.id, &row.tpl_name)));
    let hosts = by_id(site.hosts.iter().map(|(id, name)| (*id, name)));
    let mut bound = names_of(&site.bindings, &templates);
    let mut members = names_of(&site.group_hosts, &hosts);
    let mut plugins: HashMap<i64, Vec<String>> = HashMap::new();
    site.plugins.iter().for_each(|row| plugins.entry(row.grp_id).or_default().push(row.dir.clone()));
    let mut group = |row: &Group| GroupThing {
        templates: sorted(bound.remove(&row.id).unwrap_or_default()),
        plugins: sorted(plugins.remove(&row.id).unwrap_or_default()),
        hosts: sorted(members.remove(&row.id).unwrap_or_default()),
        row: row.clone(),
    };
    site.groups.iter().map(&mut group).collect()
}

fn templates(site: &Site) -> Vec<TemplateThing> {
    let names = by_id(site.templates.iter().map(|row| (row.id, &row.tpl_name)));
    let actions: HashMap<i64, &Action> = site.actions.iter().map(|row| (row.id, row)).collect();
    let mut exceptions: HashMap<i64, Vec<Exception>> = HashMap::new();
    site.exceptions.iter().for_each(|row| exceptions.entry(row.strategy_id).or_default().push(row.clone()));
    let mut strategies: HashMap<i64, Vec<StrategyThing>> = HashMap::new();
    for row in &site.strategies {
        let exceptions = exceptions.remove(&row.id).unwrap_or_default();
        strategies.entry(row.tpl_id).or_default().push(StrategyThing { row: row.clone(), exceptions });
    }
    let mut template = |row: &Template| TemplateThing {
        parent: names.get(&row.parent_id).map_or(String::new(), |name| name.to_string()),
        action: actions.get(&row.action_id).map(|action| (*action).clone()),
        strategies: strategies.remove(&row.id).unwrap_or_default(),
        row: row.clone(),
    };
    site.templates.iter().map(&mut template).collect()
}

fn expressions(site: &Site) -> Vec<ExpressionThing> {
    let actions: HashMap<i64, &Action> = site.actions.iter().map(|row| (row.id, row)).collect();
    let action = |row: &Expression| actions.get(&row.action_id).map_or_else(Action::default, |one| (*one).clone());
    site.expressions.iter().map(|row| ExpressionThing { action: action(row), row: row.clone() }).collect()
}

fn aggregators(site: &Site) -> Vec<AggregatorThing> {
    let names = by_id(site.groups.iter().map(|row| (row.id, &row.grp_name)));
    // One whose group is gone computes nothing.
    let thing =
        |row: &Aggregator| Some(AggregatorThing { group: names.get(&row.grp_id)?.to_string(), row: row.clone() });
    site.aggregators.iter().filter_map(thing).collect()
}

fn probes(site: &Site) -> Vec<ProbeThing> {
    let names = by_id(site.groups.iter().map(|row| (row.id, &row.grp_name)));
    // One whose group is gone is run by nobody.
    let group = |row: &Probe| {
        if row.grp_id == SERVER { Some(String::new()) } else { names.get(&row.grp_id).map(|name| name.to_string()) }
    };
    site.probes.iter().filter_map(|row| Some(ProbeThing { group: group(row)?, row: row.clone() })).collect()
}

fn dashboards(site: &Site) -> Vec<ScreenThing> {
    let screens: HashMap<i64, &Screen> = site.screens.iter().map(|row| (row.id, row)).collect();
    let mut graphs: HashMap<i64, Vec<Graph>> = HashMap::new();
    site.charts.iter().for_each(|row| graphs.entry(row.screen_id).or_default().push(row.clone()));
    let mut thing = |row: &Screen| {
        let parent = path_above(&screens, row)?;
        Some(ScreenThing { parent, graphs: graphs.remove(&row.id).unwrap_or_default(), row: row.clone() })
    };
    site.screens.iter().filter_map(&mut thing).collect()
}

/// The names above a screen, from the top. None where one of these screens is gone, or they are in one another: nobody
/// comes to such a screen by the tree.
fn path_above(screens: &HashMap<i64, &Screen>, row: &Screen) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut above = row.pid;
    while above != 0 {
        let screen = screens.get(&above).filter(|_| path.len() < screens.len())?;
        path.push(screen.name.clone());
        above = screen.pid;
    }
    path.reverse();
    Some(path)
}
