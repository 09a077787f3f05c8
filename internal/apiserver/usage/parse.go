package usage

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"
)

// reading is what something has used until a time by the node's clock.
type reading struct {
	at     time.Time
	cpu    float64 // seconds in all
	memory uint64  // working set in bytes
	start  float64 // of a container, seconds since 1970; 0 = not known
	has    uint8   // which of them are there
}

const (
	hasCPU = 1 << iota
	hasMemory
	whole = hasCPU | hasMemory
)

// pod and container by their names.
type pod struct{ namespace, name string }

// shot is what a node and its containers have used until now.
type shot struct {
	taken time.Time // by the clock here
	node  reading
	pods  map[pod]map[string]reading // containers by name
}

// The families that are read, as bits of what they tell.
var (
	nodeCPU         = []byte("node_cpu_usage_seconds_total")
	nodeMemory      = []byte("node_memory_working_set_bytes")
	containerCPU    = []byte("container_cpu_usage_seconds_total")
	containerMemory = []byte("container_memory_working_set_bytes")
	containerStart  = []byte("container_start_time_seconds")
)

// parse the text of a kubelet's /metrics/resource (Prometheus' format 0.0.4).
// Lines without a time are of now.
func parse(text []byte, now time.Time) (*shot, error) {
	s := &shot{taken: now, pods: map[pod]map[string]reading{}}
	for len(text) > 0 {
		line := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			line, text = text[:end], text[end+1:]
		} else {
			text = nil
		}
		switch {
		case bytes.HasPrefix(line, nodeCPU), bytes.HasPrefix(line, nodeMemory):
			rest := bytes.TrimLeft(line, "abcdefghijklmnopqrstuvwxyz_") // the name
			v, at, err := sample(bytes.TrimPrefix(rest, []byte("{}")), now)
			if err != nil {
				return nil, fmt.Errorf("%.80q: %w", line, err)
			}
			s.node.set(line[len("node_")] == 'c', v, at)
		case bytes.HasPrefix(line, containerCPU), bytes.HasPrefix(line, containerMemory), bytes.HasPrefix(line, containerStart):
			if err := s.container(line, now); err != nil {
				return nil, fmt.Errorf("%.200q: %w", line, err)
			}
		}
	}
	return s, nil
}

// container takes in a line about one.
func (s *shot) container(line []byte, now time.Time) error {
	open := bytes.IndexByte(line, '{')
	if open < 0 {
		return fmt.Errorf("no labels")
	}
	var p pod
	var name string
	rest, err := eachLabel(line[open+1:], func(key, value []byte) {
		switch string(key) {
		case "namespace":
			p.namespace = string(value)
		case "pod":
			p.name = string(value)
		case "container":
			name = string(value)
		}
	})
	if err != nil {
		return err
	}
	v, at, err := sample(rest, now)
	if err != nil {
		return err
	}
	of := s.pods[p]
	if of == nil {
		of = make(map[string]reading, 1)
		s.pods[p] = of
	}
	r := of[name]
	if line[len("container_")] == 's' {
		r.start = v
	} else {
		r.set(line[len("container_")] == 'c', v, at)
	}
	of[name] = r
	return nil
}

// set one figure. The time is that of the CPU's, whose rate matters.
func (r *reading) set(cpu bool, v float64, at time.Time) {
	if cpu {
		r.cpu, r.at, r.has = v, at, r.has|hasCPU
		return
	}
	r.memory, r.has = uint64(math.Max(v, 0)), r.has|hasMemory
	if r.at.IsZero() {
		r.at = at
	}
}

// eachLabel visits KEY="VALUE",…} and returns what comes after.
func eachLabel(b []byte, visit func(key, value []byte)) ([]byte, error) {
	for {
		b = bytes.TrimLeft(b, ", ")
		if len(b) > 0 && b[0] == '}' {
			return b[1:], nil
		}
		eq := bytes.IndexByte(b, '=')
		if eq < 0 || eq+1 >= len(b) || b[eq+1] != '"' {
			return nil, fmt.Errorf("labels that are not KEY=\"VALUE\"")
		}
		key := b[:eq]
		b = b[eq+2:]
		end, escaped := 0, false
		for end < len(b) && b[end] != '"' {
			if b[end] == '\\' {
				escaped = true
				end++
			}
			end++
		}
		if end >= len(b) {
			return nil, fmt.Errorf("a label's value does not end")
		}
		value := b[:end]
		if escaped {
			if text, err := strconv.Unquote(`"` + string(value) + `"`); err == nil {
				value = []byte(text)
			}
		}
		visit(key, value)
		b = b[end+1:]
	}
}

// sample is "VALUE [MILLISECONDS]".
func sample(b []byte, now time.Time) (float64, time.Time, error) {
	value, at, timed := bytes.Cut(bytes.TrimSpace(b), []byte(" "))
	v, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, now, fmt.Errorf("%q is no amount", value)
	}
	if !timed {
		return v, now, nil
	}
	ms, err := strconv.ParseInt(string(bytes.TrimSpace(at)), 10, 64)
	if err != nil {
		return 0, now, fmt.Errorf("%q is no time", at)
	}
	return v, time.UnixMilli(ms), nil
}
