package state

import (
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

// op is one thing that a client asked for, and what it was told.
type op struct {
	client       int
	kind         string // "create", "update", "delete", "get"
	name         string
	from         string // update: the value that is replaced
	value        string // what is written, unique; of a get: what was read, "" = nothing there
	rv           int64  // that a write was acknowledged with, 0 = none was told
	outcome      outcome
	begin, ended int64 // ns of one clock
}

type outcome int

const (
	done    outcome = iota
	refused         // told that it was not done: a conflict, not found, already exists
	unknown         // the answer was lost
)

// registers is what objects are to this test, for porcupine: each name holds a
// value or nothing. An operation whose answer was lost may have been done or not,
// but not after the server that was asked had gone.
var registers = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, input, _ any) (next []any) {
		for _, v := range step(state.(string), input.(op)) {
			next = append(next, v)
		}
		return next
	},
}

// step says what a value can be after an operation, nothing = it cannot have gone
// as it did.
func step(state string, o op) []string {
	next, possible := state, false
	switch o.kind {
	case "start":
		return []string{o.value}
	case "get":
		if o.value == state || o.outcome == unknown {
			return []string{state}
		}
		return nil
	case "create":
		next, possible = o.value, state == ""
	case "update":
		next, possible = o.value, state == o.from && state != ""
	case "delete":
		next, possible = "", state != ""
	}
	switch {
	case !possible && o.outcome != done:
		return []string{state}
	case possible && o.outcome == unknown:
		return []string{state, next}
	case possible && o.outcome == done:
		return []string{next}
	}
	return nil
}

func (o op) String() string {
	return fmt.Sprintf("%s %s %s→%s %s rv=%d", o.kind, o.name, o.from, o.value, []string{"done", "refused", "unknown"}[o.outcome], o.rv)
}

// checkLinearizable says what is wrong with a round's history. before and after
// are what was there when nobody wrote.
func checkLinearizable(ops []op, before, after map[string]string, began, ended int64) error {
	names := map[string][]op{}
	for _, o := range ops {
		names[o.name] = append(names[o.name], o)
	}
	for name, of := range names {
		of = append(of, op{kind: "start", name: name, value: before[name], begin: began, ended: began + 1},
			op{kind: "get", name: name, value: after[name], begin: ended, ended: ended + 1})
		history := make([]porcupine.Operation, len(of))
		for i, o := range of {
			history[i] = porcupine.Operation{ClientId: o.client, Input: o, Call: o.begin, Output: struct{}{}, Return: o.ended}
		}
		model := registers.ToModel()
		switch porcupine.CheckOperationsTimeout(model, history, time.Minute) {
		case porcupine.Illegal:
			sort.Slice(of, func(i, j int) bool { return of[i].begin < of[j].begin })
			text := ""
			for _, o := range of {
				text += fmt.Sprintf("\n  %12d %12d  %v", o.begin, o.ended, o)
			}
			return fmt.Errorf("no order of its operations explains what %s went through:%s", name, text)
		case porcupine.Unknown:
			return fmt.Errorf("the history of %s could not be checked in time: %d operations", name, len(of))
		}
	}
	return nil
}

// checkRevisions: a write that began after another was acknowledged has a higher
// revision, and no two writes have the same.
func checkRevisions(ops []op) error {
	var writes []op
	for _, o := range ops {
		if o.kind != "get" && o.outcome == done && o.rv > 0 {
			writes = append(writes, o)
		}
	}
	byEnd := append([]op(nil), writes...)
	sort.Slice(writes, func(i, j int) bool { return writes[i].begin < writes[j].begin })
	sort.Slice(byEnd, func(i, j int) bool { return byEnd[i].ended < byEnd[j].ended })
	var highest op
	n := 0
	seen := map[int64]op{}
	for _, o := range writes {
		for ; n < len(byEnd) && byEnd[n].ended < o.begin; n++ {
			if byEnd[n].rv > highest.rv {
				highest = byEnd[n]
			}
		}
		if o.rv <= highest.rv {
			return fmt.Errorf("revisions go back: %v was acknowledged before %v began", highest, o)
		}
		if other, twice := seen[o.rv]; twice {
			return fmt.Errorf("one revision for two writes: %v and %v", other, o)
		}
		seen[o.rv] = o
	}
	return nil
}

func number(rv string) int64 {
	n, _ := strconv.ParseInt(rv, 10, 64)
	return n
}
