// A client of Graph as Open-Falcon's transfer and api are one: Go's own net/rpc and encoding/gob, with structs of the same
// fields. It starts the given hawkeye as a graph alone, talks to it, kills it, starts it again, and ends with an error at
// the first answer that is not what the original would give (or what docs/compat.md says instead).
//
// Usage: main HAWKEYE DATA-DIR GRAPH-ADDRESS ADMIN-ADDRESS
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

type GraphItem struct {
	Endpoint  string
	Metric    string
	Tags      map[string]string
	Value     float64
	Timestamp int64
	DsType    string
	Step      int
	Heartbeat int
	Min       string
	Max       string
}

type NullRpcRequest struct{}

type SimpleRpcResponse struct{ Code int }

type GraphQueryParam struct {
	Start     int64
	End       int64
	ConsolFun string
	Endpoint  string
	Counter   string
	Step      int
}

type JsonFloat float64

type RRDData struct {
	Timestamp int64
	Value     JsonFloat
}

type GraphQueryResponse struct {
	Endpoint string
	Counter  string
	DsType   string
	Step     int
	Values   []*RRDData
}

type GraphInfoParam struct{ Endpoint, Counter string }

type GraphInfoResp struct {
	ConsolFun string
	Step      int
	Filename  string
}

type GraphLastParam struct{ Endpoint, Counter string }

type GraphLastResp struct {
	Endpoint string
	Counter  string
	Value    *RRDData
}

type GraphDeleteParam struct {
	Endpoint string
	Metric   string
	Step     int
	DsType   string
	Tags     string
}

type GraphDeleteResp struct{}

type File struct {
	Filename string
	Body     []byte
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func check(what string, ok bool, got ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: got %v\n", what, got)
		os.Exit(1)
	}
}

// fails wants an error that contains part.
func fails(what string, err error, part string) {
	check(what, err != nil && strings.Contains(err.Error(), part), err)
}

type server struct {
	arguments []string
	process   *exec.Cmd
}

// start returns when the server says that it takes calls.
func (s *server) start() {
	s.process = exec.Command(s.arguments[0], s.arguments[1:]...)
	s.process.Stderr = os.Stderr
	// Also when a check ends this program.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.process.StdoutPipe()
	must("a pipe", err)
	must("start the server", s.process.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "the graph takes points") {
			go io.Copy(io.Discard, out)
			return
		}
	}
	s.process.Wait()
	check("the server's start", false, "it ended")
}

func (s *server) kill() {
	must("kill", s.process.Process.Kill())
	s.process.Wait()
}

func (s *server) stop() {
	must("interrupt", s.process.Process.Signal(os.Interrupt))
	must("an orderly end", s.process.Wait())
}

// As in transfer's pool.
func dial(address string) *rpc.Client {
	connection, err := net.DialTimeout("tcp", address, 5*time.Second)
	must("dial", err)
	return rpc.NewClient(connection)
}

func gauge(endpoint, metric string, tags map[string]string, timestamp int64, value float64) *GraphItem {
	return &GraphItem{endpoint, metric, tags, value, timestamp, "GAUGE", 60, 120, "U", "U"}
}

func derive(endpoint, metric string, timestamp int64, value float64) *GraphItem {
	return &GraphItem{endpoint, metric, map[string]string{}, value, timestamp, "DERIVE", 60, 120, "0", "U"}
}

func send(client *rpc.Client, items []*GraphItem) {
	reply := SimpleRpcResponse{Code: 7}
	must("Graph.Send", client.Call("Graph.Send", items, &reply))
	check("Graph.Send's code", reply.Code == 7 || reply.Code == 0, reply)
}

func query(client *rpc.Client, endpoint, counter string, start, end int64) *GraphQueryResponse {
	reply := &GraphQueryResponse{}
	must("Graph.Query", client.Call("Graph.Query", GraphQueryParam{start, end, "AVERAGE", endpoint, counter, 60}, reply))
	check("Graph.Query's names", reply.Endpoint == endpoint && reply.Counter == counter, reply)
	return reply
}

func last(client *rpc.Client, method, endpoint, counter string) (int64, float64) {
	reply := GraphLastResp{}
	must(method, client.Call(method, GraphLastParam{endpoint, counter}, &reply))
	check(method+" has a value", reply.Value != nil, reply)
	return reply.Value.Timestamp, float64(reply.Value.Value)
}

func info(client *rpc.Client, endpoint, counter string) GraphInfoResp {
	reply := GraphInfoResp{}
	must("Graph.Info", client.Call("Graph.Info", GraphInfoParam{endpoint, counter}, &reply))
	return reply
}

func main() {
	// The server dies with the thread that started it.
	runtime.LockOSThread()
	binary, dir, address, admin := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	graph := &server{arguments: []string{binary, "server", "--roles", "graph", "--data-dir", dir,
		"--set", "listen.graph_rpc=" + address, "--set", "listen.admin=" + admin}}
	graph.start()

	// Whole minutes; the newest points are an hour old, so that all are within the rows of one step.
	end := time.Now().Unix()/60*60 - 3600
	client := dial(address)
	points(client, end)
	errorsAreTold(client, address)
	concurrentCalls(client, end)
	manyConnections(address, end)

	before := query(client, "host-0", "concurrent/k=v", end-600, end)
	graph.kill()
	err := client.Call("Graph.Ping", NullRpcRequest{}, &SimpleRpcResponse{})
	check("a call to a killed server", errors.Is(err, rpc.ErrShutdown) || errors.Is(err, io.ErrUnexpectedEOF), err)
	graph.start()
	client = dial(address)
	time_, value := last(client, "Graph.LastRaw", "host-0", "concurrent/k=v")
	check("LastRaw after kill -9", time_ == end && value == 63, time_, value)
	after := query(client, "host-0", "concurrent/k=v", end-600, end)
	check("rows after kill -9", same(before, after), before, after)
	send(client, []*GraphItem{gauge("host-0", "concurrent", map[string]string{"k": "v"}, end+60, 64)})
	deletes(client, end)
	client.Close()
	graph.stop()
	fmt.Println("a Go client is served")
}

func same(a, b *GraphQueryResponse) bool {
	if len(a.Values) != len(b.Values) || len(a.Values) == 0 {
		return false
	}
	for i := range a.Values {
		if math.Float64bits(float64(a.Values[i].Value)) != math.Float64bits(float64(b.Values[i].Value)) {
			return false
		}
	}
	return true
}

// A batch like transfer's, and everything that can be asked of it.
func points(client *rpc.Client, end int64) {
	reply := SimpleRpcResponse{}
	must("Graph.Ping", client.Call("Graph.Ping", NullRpcRequest{}, &reply))
	check("Graph.Ping's code", reply.Code == 0, reply)

	var batch []*GraphItem
	for minute := int64(0); minute < 50; minute++ {
		timestamp := end - 60*(49-minute)
		// A hole of three minutes.
		if minute < 20 || minute > 22 {
			batch = append(batch, gauge("主机-01", "cpu.idle", map[string]string{}, timestamp, 99.5-float64(minute)/3))
		}
		batch = append(batch, derive("主机-01", "net.if.in.bytes", timestamp, float64(1000+1200*minute)))
		// Three tags, so that Go's order of a map is any.
		tags := map[string]string{"c": "3", "a": "1", "b": "x y"}
		batch = append(batch, gauge("主机-01", "tagged", tags, timestamp, -float64(minute)))
	}
	send(client, batch)

	rows := query(client, "主机-01", "cpu.idle", end-49*60, end)
	check("type and step", rows.DsType == "GAUGE" && rows.Step == 60, rows.DsType, rows.Step)
	check("one row past the end", len(rows.Values) == 51, len(rows.Values))
	for i, row := range rows.Values {
		minute, value := int64(i), float64(row.Value)
		check("a row's time", row.Timestamp == end-60*(49-minute), row.Timestamp)
		hole := minute >= 20 && minute <= 22 || minute == 50
		check("a hole is NaN", math.IsNaN(value) == hole, i, value)
		check("a row's value", hole || value == 99.5-float64(minute)/3, i, value)
	}
	rows = query(client, "主机-01", "net.if.in.bytes", end-49*60, end)
	check("a counter's type", rows.DsType == "DERIVE" && len(rows.Values) == 50, rows.DsType, len(rows.Values))
	for i, row := range rows.Values {
		value := float64(row.Value)
		check("a rate", i == 0 && math.IsNaN(value) || value == 20, i, value)
	}
	rows = query(client, "主机-01", "tagged/a=1,b=xy,c=3", end-120, end)
	check("sorted tags", len(rows.Values) == 4 && float64(rows.Values[2].Value) == -49, rows)
	rows = query(client, "主机-01", "nothing", end-120, end)
	check("an unknown counter", rows.DsType == "" && rows.Step == 0 && len(rows.Values) == 0, rows)

	timestamp, value := last(client, "Graph.Last", "主机-01", "net.if.in.bytes")
	check("Graph.Last", timestamp == end && value == 20, timestamp, value)
	timestamp, value = last(client, "Graph.LastRaw", "主机-01", "net.if.in.bytes")
	check("Graph.LastRaw", timestamp == end && value == 59800, timestamp, value)
	timestamp, value = last(client, "Graph.Last", "nobody", "nothing")
	check("Graph.Last of nothing", timestamp == 0 && value == 0, timestamp, value)
	about := info(client, "主机-01", "cpu.idle")
	named := strings.HasSuffix(about.Filename, "_GAUGE_60.rrd")
	check("Graph.Info", about.ConsolFun == "GAUGE" && about.Step == 60 && named, about)
	about = info(client, "主机-01", "nothing")
	check("Graph.Info of nothing", about == GraphInfoResp{}, about)
}

// What is wrong is the call's error; the connection stays, unless it has lost its frame.
func errorsAreTold(client *rpc.Client, address string) {
	empty := &SimpleRpcResponse{}
	fails("an unknown method", client.Call("Graph.Nope", NullRpcRequest{}, empty), "rpc: can't find method Graph.Nope")
	fails("an unknown service", client.Call("Judge.Send", NullRpcRequest{}, empty), "rpc: can't find service Judge.Send")
	fails("a wrong argument", client.Call("Graph.Send", "text", empty), "invalid gob")
	fails("Graph.GetRrd", client.Call("Graph.GetRrd", "0123_GAUGE_60", &File{}), "Graph.Query")
	must("Graph.Ping after errors", client.Call("Graph.Ping", NullRpcRequest{}, empty))

	tooLong := dial(address)
	items := make([]*GraphItem, 40)
	for i := range items {
		items[i] = gauge(strings.Repeat("x", 1<<20), "m", nil, 0, 0)
	}
	// As a rule it says so, but a close in the middle of 40 MB can overtake the answer.
	err := tooLong.Call("Graph.Send", items, empty)
	check("a message that is too long", err != nil, err)
	err = tooLong.Call("Graph.Ping", NullRpcRequest{}, empty)
	check("a call after it, over a connection that is closed", err != nil, err)
}

// Many calls at once over one connection.
func concurrentCalls(client *rpc.Client, end int64) {
	var sends []*rpc.Call
	for i := 0; i < 64; i++ {
		var items []*GraphItem
		for j := 0; j < 200; j++ {
			endpoint := fmt.Sprintf("host-%d", j)
			timestamp := end - int64(60*(63-i))
			items = append(items, gauge(endpoint, "concurrent", map[string]string{"k": "v"}, timestamp, float64(i)))
		}
		sends = append(sends, client.Go("Graph.Send", items, &SimpleRpcResponse{}, nil))
	}
	for _, call := range sends {
		must("a concurrent Graph.Send", (<-call.Done).Error)
	}
	var queries []*rpc.Call
	for j := 0; j < 200; j++ {
		parameter := GraphQueryParam{end - 63*60, end, "AVERAGE", fmt.Sprintf("host-%d", j), "concurrent/k=v", 0}
		queries = append(queries, client.Go("Graph.Query", parameter, &GraphQueryResponse{}, nil))
	}
	for j, call := range queries {
		must("a concurrent Graph.Query", (<-call.Done).Error)
		reply := call.Reply.(*GraphQueryResponse)
		check("whose answer it is", reply.Endpoint == fmt.Sprintf("host-%d", j), reply.Endpoint)
		for i := 0; i < 64; i++ {
			check("a concurrent row", float64(reply.Values[i].Value) == float64(i), j, i, reply.Values[i].Value)
		}
	}
	large := make([]*GraphItem, 50000)
	for i := range large {
		large[i] = gauge(fmt.Sprintf("large-%d", i%500), fmt.Sprintf("m.%d", i/500), nil, end, float64(i))
	}
	send(client, large)
	_, value := last(client, "Graph.LastRaw", "large-499", "m.99")
	check("the last of a large batch", value == 49999, value)
}

// As transfer's pool does when it is busy.
func manyConnections(address string, end int64) {
	var all sync.WaitGroup
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			client := dial(address)
			defer client.Close()
			endpoint := fmt.Sprintf("pool-%d", i)
			send(client, []*GraphItem{gauge(endpoint, "m", nil, end, float64(i))})
			_, value := last(client, "Graph.Last", endpoint, "m")
			check("a point of one connection of many", value == float64(i), endpoint, value)
		}()
	}
	all.Wait()
}

func deletes(client *rpc.Client, end int64) {
	named := []*GraphDeleteParam{
		{"host-1", "concurrent", 60, "GAUGE", "k=v"},
		{"host-2", "concurrent", 60, "DERIVE", "k=v"},
		{"host-3", "concurrent", 30, "GAUGE", "k=v"},
	}
	must("Graph.Delete", client.Call("Graph.Delete", named, &GraphDeleteResp{}))
	for j, gone := range []bool{false, true, false, false} {
		timestamp, _ := last(client, "Graph.LastRaw", fmt.Sprintf("host-%d", j), "concurrent/k=v")
		check("what was deleted", (timestamp == 0) == gone, j, timestamp)
	}
	rows := query(client, "host-1", "concurrent/k=v", end-600, end)
	check("rows of a deleted series", len(rows.Values) == 0, rows)
}
