//! The program as its users meet it: the real binary, started on free ports and a fresh data directory.
//!
//! One module per behaviour; `harness` starts, kills and talks to the server. Nothing here needs an outside service.

mod harness;

mod agent_buffer;
mod alarms;
mod api_docs;
mod backup;
mod budget;
mod code;
mod disk;
mod durability;
mod first_alarm;
mod gateway;
mod graph;
mod hostile;
mod judge;
mod memory;
mod modules;
mod old_clients;
mod old_graphs;
mod points;
mod portal;
mod probes;
mod replay;
mod start;
mod tls;
mod token;
