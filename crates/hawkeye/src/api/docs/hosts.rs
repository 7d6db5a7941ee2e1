//! Hosts, host groups, plug-ins, aggregators and nodata.

use super::Kind::{Flag, Int, Ints, Number, Text, Texts};
use super::{Doc, doc, may, need};

/// Fields of an aggregator, behind its id or its group's.
macro_rules! aggregator {
    ($first:expr) => {
        &[
            $first,
            need("numerator", Text, "as `$(cpu.busy)`: docs/rules.md"),
            need("denominator", Text, "as `$#`, the number of hosts"),
            need("endpoint", Text, "endpoint of the new series"),
            need("metric", Text, "metric of the new series"),
            may("tags", Text, "tags of the new series"),
            need("step", Int, "seconds"),
        ]
    };
}

/// Fields of a nodata, behind its name or id.
macro_rules! nodata {
    ($first:expr) => {
        &[
            $first,
            need("obj", Text, "names of hosts or groups, a line each"),
            need("obj_type", Text, "`host`, `group` or `other`"),
            need("metric", Text, ""),
            may("tags", Text, ""),
            need("dstype", Text, "`GAUGE`"),
            need("step", Int, "seconds"),
            may("mock", Number, "value of a silent series"),
        ]
    };
}

pub const DOCS: &[Doc] = &[
    doc("POST /hostgroup", "Makes a host group.").fields(&[need("name", Text, "")]).body(r#"{"name":"web"}"#).answer(r#"{"id":2,"grp_name":"web","create_user":"root"}"#),
    doc("GET /hostgroup", "Host groups.").list().fields(&[may("q", Text, "regular expression on the name")]).at("/hostgroup?q=web"),
    doc("PUT /hostgroup", "Renames a group.").fields(&[need("id", Int, ""), need("grp_name", Text, "")]).body(r#"{"id":2,"grp_name":"web"}"#),
    doc("POST /hostgroup/host", "Replaces the hosts of a group; hosts that are unknown are made.")
        .fields(&[need("hostgroup_id", Int, ""), need("hosts", Texts, "names")])
        .body(r#"{"hostgroup_id":2,"hosts":["web-01","web-02"]}"#),
    doc("PATCH /hostgroup/{id}/host", "Adds hosts to a group, or takes them out.")
        .fields(&[need("action", Text, "`add` or `remove`"), need("hosts", Texts, "names")])
        .at("/hostgroup/2/host")
        .body(r#"{"action":"add","hosts":["web-03"]}"#),
    doc("PUT /hostgroup/host", "Takes one host out of a group.")
        .fields(&[need("hostgroup_id", Int, ""), need("host_id", Int, "")])
        .body(r#"{"hostgroup_id":2,"host_id":5}"#),
    doc("GET /hostgroup/{id}", "A group with its hosts.").list().fields(&[may("q", Text, "regular expression on the host's name")]).at("/hostgroup/2?sort=hostname"),
    doc("POST /hostgroup/template", "Binds a template to a group.")
        .fields(&[need("tpl_id", Int, ""), need("grp_id", Int, "")])
        .body(r#"{"tpl_id":2,"grp_id":2}"#),
    doc("GET /hostgroup/{id}/template", "Templates of a group.").list().at("/hostgroup/2/template"),
    doc("GET /host", "Hosts, with what they do now.")
        .list()
        .fields(&[
            may("q", Text, "regular expression on the name"),
            may("group", Int, "id of a group"),
            may("ip", Text, "begin of the address"),
            may("agent_version", Text, ""),
            may("state", Text, "`reporting`, `silent` (no point for 5 minutes), `maintenance`, or `unknown` (over old graphs)"),
            may("ahead", Flag, "1: hosts whose points were refused in the last hour, for their clock is ahead"),
            may("clock_offset_min", Int, "hosts whose clock is off by at least so many seconds, ahead or behind; `sort=-clock_offset` has the furthest first"),
        ])
        .at("/host?state=silent&sort=-last")
        .answer(r#"[{"id":3,"hostname":"web-01","ip":"","agent_version":"","plugin_version":"","maintain_begin":0,"maintain_end":0,"state":"silent","last":0,"ahead":null,"clock_offset":null}]"#),
    doc("GET /agent", "What Hawkeye agents say of themselves: version, settings (equal digests are equal settings), and how far their clocks are off.")
        .list()
        .fields(&[
            may("q", Text, "regular expression on the host's name"),
            may("version", Text, "begin of the version"),
            may("config_digest", Text, ""),
            may("clock_offset_ms_min", Int, "agents whose clock is off by at least so many milliseconds, ahead or behind"),
        ])
        .at("/agent?version=0.1")
        .answer(r#"[{"hostname":"web-01","version":"0.1.0 x86_64","config_digest":"0123456789abcdef","clock_offset_ms":-12,"told_at":1767225600}]"#),
    doc("GET /agent/install", "The line that installs an agent on a new host, which fetches it from `GET /download/agent?arch=$(uname -m)` of this server: docs/agent-install.md."),
    doc("GET /host/stream", "Changes of hosts as server-sent events: `host` with a row as of `GET /host`, `gone` with an id, `lost` where the list is to be read anew.").stream(),
    doc("GET /host/{id}/hostgroup", "Groups of a host.").list().at("/host/3/hostgroup"),
    doc("GET /host/{id}/template", "Templates of a host.").list().at("/host/3/template"),
    doc("GET /host/{id}/rule", "What holds on a host: strategies and expressions, with exceptions, and why the rest does not.").at("/host/3/rule"),
    doc("POST /host/maintain", "Sets a maintenance: nothing is judged, open alarms end.")
        .fields(&[
            may("hosts", Texts, "names"),
            may("ids", Ints, "instead of names"),
            need("maintain_begin", Int, "Unix seconds"),
            need("maintain_end", Int, "Unix seconds"),
        ])
        .body(r#"{"hosts":["old-02"],"maintain_begin":1790000000,"maintain_end":1790003600}"#),
    doc("DELETE /host/maintain", "Ends a maintenance.")
        .fields(&[may("hosts", Texts, "names"), may("ids", Ints, "instead of names")])
        .body(r#"{"hosts":["old-02"]}"#),
    doc("DELETE /host/{id}", "Takes a host out of all groups; its history stays, and who reports comes back.").at("/host/2"),
    doc("POST /plugin", "Gives the hosts of a group a directory of plug-ins.")
        .fields(&[need("hostgroup_id", Int, ""), need("dir_path", Text, "below the agents' directory")])
        .body(r#"{"hostgroup_id":2,"dir_path":"sys/ntp"}"#),
    doc("GET /hostgroup/{id}/plugins", "Directories of plug-ins of a group.").list().at("/hostgroup/2/plugins"),
    doc("DELETE /plugin/{id}", "Takes a directory of plug-ins away.").at("/plugin/1"),
    doc("POST /aggregator", "Makes an aggregator: a series that is computed over the hosts of a group.")
        .fields(aggregator!(need("hostgroup_id", Int, "")))
        .body(r##"{"hostgroup_id":2,"numerator":"$(cpu.idle)","denominator":"$#","endpoint":"web","metric":"cpu.idle.avg","step":60}"##),
    doc("GET /hostgroup/{id}/aggregators", "Aggregators of a group.").list().at("/hostgroup/2/aggregators"),
    doc("GET /aggregator/{id}", "An aggregator.").at("/aggregator/2"),
    doc("GET /aggregator/{id}/last", "What became of an aggregator when it was computed last, and why there was no value.").at("/aggregator/2/last"),
    doc("PUT /aggregator", "Changes an aggregator.")
        .fields(aggregator!(need("id", Int, "")))
        .body(r##"{"id":2,"numerator":"$(cpu.idle)","denominator":"$#","endpoint":"web","metric":"cpu.idle.avg","step":120}"##),
    doc("DELETE /aggregator/{id}", "Deletes an aggregator.").at("/aggregator/1"),
    doc("POST /nodata/", "Makes a nodata: a value for series that are silent.")
        .fields(nodata!(need("name", Text, "")))
        .body(r#"{"name":"web is silent","obj":"web","obj_type":"group","metric":"agent.alive","dstype":"GAUGE","step":60,"mock":-1}"#),
    doc("POST /nodata", "Leads to `POST /nodata/`.").open(),
    doc("GET /nodata", "Nodata.").list(),
    doc("GET /nodata/", "Nodata, as by `GET /nodata`.").list(),
    doc("GET /nodata/{nid}", "A nodata.").at("/nodata/2"),
    doc("PUT /nodata/", "Changes a nodata; its name stays.")
        .fields(nodata!(need("id", Int, "")))
        .body(r#"{"id":2,"obj":"web","obj_type":"group","metric":"agent.alive","dstype":"GAUGE","step":60,"mock":-2}"#),
    doc("PUT /nodata", "Leads to `PUT /nodata/`.").open(),
    doc("DELETE /nodata/{nid}", "Deletes a nodata.").at("/nodata/1"),
    doc("PUT /hostgroup/template", "Unbinds a template.")
        .fields(&[need("tpl_id", Int, ""), need("grp_id", Int, "")])
        .body(r#"{"tpl_id":2,"grp_id":2}"#),
    doc("DELETE /hostgroup/{id}", "Deletes a group with its bindings, plug-ins, aggregators and probes.").at("/hostgroup/1"),
];
