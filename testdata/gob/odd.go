// Writes odd.c2s.bin: requests of a Go client whose types have more, fewer and other fields than the original's.
//
//	go run odd.go > odd.c2s.bin
package main

import (
	"encoding/gob"
	"os"
	"time"
)

type request struct {
	Seq           uint64 // in another order than net/rpc's
	ServiceMethod string
	Trace         []string
}

type list struct {
	Next *list
	Many []list
}

type everything struct {
	Bool    bool
	Uint    uint
	Float   float32
	Complex complex128
	Bytes   []byte
	Texts   []string
	Array   [3]int
	Empty   [0]int
	Map     map[string]map[int][]float64
	Struct  struct{ A, B int8 }
	List    *list
	Time    time.Time // with an encoding of its own
	Nil     any
	Tags    map[string]string
	Metric  **string
	Step    int16
	Value   float32
}

type little struct {
	Endpoint string
}

type filled struct {
	Endpoint  string
	Interface any
}

type unsigned struct {
	Endpoint string
	Step     uint
}

type stranger struct {
	Name string
}

func main() {
	encoder := gob.NewEncoder(os.Stdout)
	seq := uint64(0)
	send := func(method string, argument any) {
		for _, value := range []any{request{seq, method, []string{"a", "b"}}, argument} {
			if err := encoder.Encode(value); err != nil {
				panic(err)
			}
		}
		seq++
	}
	metric := "m"
	pointer := &metric
	full := everything{
		true, 1 << 40, 1.5, complex(1, -2), []byte("\x00\xff"), []string{"", "x"}, [3]int{-1, 0, 1}, [0]int{},
		map[string]map[int][]float64{"a": {-1: {0, 1}, 2: nil}, "b": nil}, struct{ A, B int8 }{-128, 127},
		&list{&list{nil, []list{{}, {}}}, nil}, time.Unix(1600000000, 5).UTC(), nil,
		map[string]string{"k": "v"}, &pointer, 60, 0.25,
	}
	send("Graph.Send", []*everything{&full, {Metric: &pointer}, &full})
	send("Graph.Send", []little{{"h"}, {""}})
	send("Graph.Send", []filled{{"h", "text"}})
	send("Graph.Send", []unsigned{{"h", 60}})
	send("Graph.Send", []stranger{{"n"}})
	send("Graph.Send", [1]little{{"h"}})
	send("Graph.Send", little{"h"})
	send("Graph.Query", struct{ Start int8 }{-1})
	send("Graph.GetRrd", 7)
	send("Graph.GetRrd", "key")
	send("Graph.Ping", time.Unix(0, 0))
	send("Judge.Send", []map[string]string{{"a": "b"}})
}

func init() { gob.Register("") }
