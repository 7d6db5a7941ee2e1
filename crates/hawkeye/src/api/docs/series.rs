//! Series and their points, Grafana's Falcon plug-in, and the old dashboard's screens.

use super::Kind::{Flag, Int, Text, Texts};
use super::{Doc, Field, doc, may, need};

/// Fields of a chart.
macro_rules! graph {
    ($($first:expr),*) => {
        &[
            $($first,)*
            may("timespan", Int, "seconds that it shows, 3600 by default"),
            may("graph_type", Text, "`h`: a chart per counter; `k`: one per endpoint; `a`: one"),
            may("method", Text, "`SUM`, a consolidation function, or empty"),
            may("position", Int, "order on the screen"),
            may("falcon_tags", Text, ""),
        ]
    };
}

/// Fields of Grafana's plug-in.
const RENDER: &[Field] = &[
    need("target", Texts, "as `{web-01,web-02}#cpu#idle`; repeated"),
    need("from", Int, "Unix seconds"),
    need("until", Int, "Unix seconds"),
    may("consolFun", Text, "`AVERAGE` (default), `MAX`, `MIN` or `LAST`"),
];

/// Fields of a search as Grafana's plug-in asks it.
const FIND: &[Field] = &[may("query", Text, "begin of a target"), may("limit", Int, "items, 1000 by default")];

pub const DOCS: &[Doc] = &[
    doc("GET /graph/endpoint", "Endpoints that fit.")
        .fields(&[
            may("q", Text, "regular expressions with blanks between, all of which fit"),
            may("tags", Text, "parts of counters, joined by commas"),
            may("limit", Int, "500 by default"),
            may("page", Int, "from 1 on"),
            may("sort", Text, "`endpoint` or `id` (default), `-` in front for the reverse"),
        ])
        .at("/graph/endpoint?q=web"),
    doc("GET /graph/endpointobj", "Endpoints by their names, with the time of their newest point.")
        .fields(&[need("endpoints", Texts, "repeated"), may("deadline", Int, "Unix seconds that this time has reached")])
        .at("/graph/endpointobj?endpoints=web-01"),
    doc("GET /graph/endpoint_counter", "Counters of endpoints.")
        .fields(&[
            need("eid", Text, "ids, joined by commas"),
            may("metricQuery", Text, "regular expressions with blanks between; `!` in front of one that must not fit"),
            may("limit", Int, "500 by default"),
            may("page", Int, "from 1 on"),
            may("sort", Text, "`counter`, `endpoint_id`, `step` or `type`, `-` in front for the reverse"),
        ])
        .at("/graph/endpoint_counter?eid=1&metricQuery=cpu"),
    doc("POST /graph/history", "Points of series, in rows that widen with their age.")
        .fields(&[
            need("hostnames", Texts, ""),
            need("counters", Texts, "as `net.if.in.bytes/iface=eth0`"),
            need("start_time", Int, "Unix seconds"),
            need("end_time", Int, "Unix seconds"),
            may("consol_fun", Text, "`AVERAGE`, `MAX`, `MIN` or `LAST`; may be left out with `raw`"),
            may("step", Int, "with a step, unknown series are in the answer, too"),
            may("raw", Flag, "true: the points as they are stored"),
        ])
        .body(r#"{"hostnames":["web-01"],"counters":["cpu.idle"],"consol_fun":"AVERAGE","start_time":1790000000,"end_time":1790003600}"#)
        .answer(r#"[{"endpoint":"web-01","counter":"cpu.idle","dstype":"GAUGE","step":60,"Values":[{"timestamp":1790000000,"value":97.500000}]}]"#),
    doc("POST /graph/lastpoint", "Newest points of series: a list of objects with `endpoint` and `counter`.")
        .body(r#"[{"endpoint":"web-01","counter":"cpu.idle"}]"#)
        .answer(r#"[{"endpoint":"web-01","counter":"cpu.idle","value":{"timestamp":1790000000,"value":97.500000}}]"#),
    doc("DELETE /graph/counter", "Deletes series.")
        .admin()
        .fields(&[need("endpoints", Texts, ""), need("counters", Texts, "")])
        .body(r#"{"endpoints":["gone"],"counters":["cpu.idle"]}"#),
    doc("DELETE /graph/endpoint", "Deletes endpoints with all of their series: a list of names.").admin().body(r#"["gone"]"#),
    doc("GET /grafana", "Endpoints and parts of counters for Grafana's Falcon plug-in.").open().fields(FIND),
    doc("GET /grafana/metrics/find", "As `GET /grafana`.").open().fields(FIND).at("/grafana/metrics/find?query=web"),
    doc("GET /grafana/render", "Points for Grafana's Falcon plug-in.").open().fields(RENDER).at("/grafana/render?target=web-01%23cpu%23idle&from=1790000000&until=1790003600"),
    doc("POST /grafana/render", "As `GET /grafana/render`.").open().fields(RENDER).body(r#"{"target":["web-01#cpu#idle"],"from":1790000000,"until":1790003600}"#),
    doc("POST /dashboard/screen", "Makes a screen.").fields(&[need("name", Text, ""), may("pid", Int, "screen that it is in, at most 9 of them; 0 is the top")]).body(r#"{"name":"web"}"#),
    doc("GET /dashboard/screens", "Screens.").list(),
    doc("GET /dashboard/screens/pid/{pid}", "Screens within a screen.").list().at("/dashboard/screens/pid/0"),
    doc("GET /dashboard/screen/{screen_id}", "A screen.").at("/dashboard/screen/2"),
    doc("PUT /dashboard/screen/{screen_id}", "Renames a screen, or moves it.")
        .fields(&[may("name", Text, ""), may("pid", Int, "screen that it moves to")])
        .at("/dashboard/screen/2")
        .body(r#"{"name":"web servers"}"#),
    doc("POST /dashboard/graph", "Makes a chart.")
        .fields(graph![need("screen_id", Int, ""), need("title", Text, ""), need("endpoints", Texts, ""), need("counters", Texts, "")])
        .body(r#"{"screen_id":2,"title":"idle","endpoints":["web-01"],"counters":["cpu.idle"]}"#),
    doc("GET /dashboard/graphs/screen/{screen_id}", "Charts of a screen.").list().at("/dashboard/graphs/screen/2"),
    doc("GET /dashboard/graph/{id}", "A chart.").at("/dashboard/graph/2"),
    doc("PUT /dashboard/graph/{id}", "Changes a chart; what is not given stays, but for `method`.")
        .fields(graph![may("screen_id", Int, ""), may("title", Text, ""), may("endpoints", Texts, ""), may("counters", Texts, "")])
        .at("/dashboard/graph/2")
        .body(r#"{"title":"idle, in %"}"#),
    doc("POST /dashboard/tmpgraph", "Keeps a chart for a link; the same lists have the same id.")
        .fields(&[need("endpoints", Texts, ""), need("counters", Texts, "")])
        .body(r#"{"endpoints":["web-01"],"counters":["cpu.idle"]}"#),
    doc("GET /dashboard/tmpgraph/{id}", "A kept chart.").at("/dashboard/tmpgraph/1"),
    doc("DELETE /dashboard/graph/{id}", "Deletes a chart.").at("/dashboard/graph/1"),
    doc("DELETE /dashboard/screen/{screen_id}", "Deletes a screen with its charts.").at("/dashboard/screen/1"),
];
