package cache

import (
	"slices"
	"strings"
)

// watchers of a set, by what they want to hear of. All under the set's lock.
type watchers struct {
	every     map[*watcher]struct{}
	all       map[*watcher]struct{}
	namespace groups
	name      groups            // by set key, or by "/name" for a name in any namespace
	index     []groups          // by value
	label     map[string]groups // by key and value
	touched   []*watcher
}

type groups map[string]map[*watcher]struct{}

func newWatchers(indexes int) watchers {
	ws := watchers{every: map[*watcher]struct{}{}, all: map[*watcher]struct{}{}, namespace: groups{}, name: groups{}, label: map[string]groups{}}
	for range indexes {
		ws.index = append(ws.index, groups{})
	}
	return ws
}

// group that a watcher belongs to; nil = all.
func (ws *watchers) group(w *watcher) (groups, string) {
	switch {
	case w.index >= 0:
		return ws.index[w.index], w.scope.Value
	case w.scope.Name != "" && (w.scope.Namespace != "" || w.set.kind.Cluster):
		return ws.name, setKey(w.scope.Namespace, w.scope.Name)
	case w.scope.Name != "":
		return ws.name, "/" + w.scope.Name
	case w.label != "":
		g := ws.label[w.label]
		if g == nil {
			g = groups{}
			ws.label[w.label] = g
		}
		return g, w.labelValue
	case w.scope.Namespace != "":
		return ws.namespace, w.scope.Namespace
	}
	return nil, ""
}

func (ws *watchers) add(w *watcher) {
	ws.every[w] = struct{}{}
	g, key := ws.group(w)
	switch {
	case g == nil:
		ws.all[w] = struct{}{}
	case g[key] == nil:
		g[key] = map[*watcher]struct{}{w: {}}
	default:
		g[key][w] = struct{}{}
	}
}

func (ws *watchers) remove(w *watcher) {
	delete(ws.every, w)
	delete(ws.all, w)
	if g, key := ws.group(w); g != nil {
		delete(g[key], w)
		if len(g[key]) == 0 {
			delete(g, key)
		}
		if w.labelled() && len(g) == 0 {
			delete(ws.label, w.label)
		}
	}
}

// dispatch changes to whom they concern: those who watch everything get them in
// one piece, the others are found change by change.
func (ws *watchers) dispatch(s *Set, changes []change) {
	if len(ws.every) == 0 {
		return
	}
	if len(ws.all) > 0 {
		events := make([]Event, len(changes))
		for i := range changes {
			events[i] = changes[i].Event
		}
		for w := range ws.all {
			w.push(events)
		}
	}
	for i := range changes {
		ws.offer(&changes[i])
	}
	for n, w := range ws.touched {
		w.push(w.pending)
		clear(w.pending)
		w.pending = w.pending[:0]
		ws.touched[n] = nil
	}
	ws.touched = ws.touched[:0]
}

func (ws *watchers) offer(ch *change) {
	key := ch.Item.key
	ns, name, namespaced := strings.Cut(key, "/")
	if namespaced {
		ws.to(ws.namespace[ns], ch)
		if len(ws.name) > 0 {
			ws.to(ws.name["/"+name], ch)
		}
	}
	ws.to(ws.name[key], ch)
	if len(ws.label) > 0 {
		ws.offerLabelled(ch)
	}
	for n, g := range ws.index {
		if len(g) == 0 {
			continue
		}
		if ch.before != nil {
			for _, v := range ch.before[n] {
				ws.to(g[v], ch)
			}
		}
		if ch.after != nil {
			for _, v := range ch.after[n] {
				if ch.before == nil || !slices.Contains(ch.before[n], v) {
					ws.to(g[v], ch)
				}
			}
		}
	}
}

// offerLabelled finds those who watch one value of a label.
func (ws *watchers) offerLabelled(ch *change) {
	var was map[string]string
	if ch.Prev != nil {
		was = ch.Prev.Object.GetLabels()
	}
	is := ch.Item.Object.GetLabels()
	for key, g := range ws.label {
		before, had := was[key]
		if had {
			ws.to(g[before], ch)
		}
		if after, has := is[key]; has && !(had && before == after) {
			ws.to(g[after], ch)
		}
	}
}

func (ws *watchers) to(group map[*watcher]struct{}, ch *change) {
	for w := range group {
		if e, ok := w.translate(ch); ok {
			if len(w.pending) == 0 {
				ws.touched = append(ws.touched, w)
			}
			w.pending = append(w.pending, e)
		}
	}
}

// push appends to the queue and wakes. The set's lock is held.
func (w *watcher) push(events []Event) {
	for len(events) > 0 && events[0].Item.Revision <= w.after {
		events = events[1:]
	}
	if len(events) == 0 {
		return
	}
	w.mu.Lock()
	full := len(events) > w.most-len(w.queue)
	if !full {
		w.queue = append(w.queue, events...)
		w.rouse()
	}
	w.mu.Unlock()
	if full {
		w.end(ErrSlow)
		w.drop()
	}
}
