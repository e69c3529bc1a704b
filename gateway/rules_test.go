package gateway_test

import (
	"fmt"
	"strconv"
	"strings"
)

// rules is what clients' libraries take for granted of what a gateway sends them: a
// frame that is against it throws in them, or is lost. The peer of a new welcome
// begins anew.
type rules struct {
	me       string
	joined   bool                    // agm
	methods  map[string]map[any]bool // by peer, the ids of its methods
	contexts map[string]string       // names by id
	members  map[string]int          // contexts of which the client had the object, and what it asked last to get it
	streams  map[string]string       // the server of each live subscription
	demands  map[string]bool         // subscriptions of others that were not removed
	answered map[string]bool
}

func newRules() *rules {
	return &rules{
		methods: map[string]map[any]bool{}, contexts: map[string]string{}, members: map[string]int{}, streams: map[string]string{},
		demands: map[string]bool{}, answered: map[string]bool{},
	}
}

// see takes a frame and says what is wrong with it, given what the client has sent.
func (r *rules) see(f frame, sent map[string]frame) string {
	if f.is("welcome") {
		answered := r.answered
		*r = *newRules()
		r.answered, r.me = answered, f.str("peer_id")
		return r.answer(f, f.str("request_id"), frame{})
	}
	if peer, ok := f["peer_id"]; !ok || peer != r.me && !f.is("error") {
		return fmt.Sprintf("the frame is for %v, not for %q", peer, r.me)
	}
	if id := f.str("request_id"); id != "" && sent[id] != nil && sent[id].str("type") != "error" {
		if problem := r.answer(f, id, sent[id]); problem != "" {
			return problem
		}
	}
	switch f["domain"] {
	case "agm":
		return r.agm(f)
	case "global", "context":
		return r.context(f)
	}
	return ""
}

// unanswered are messages to which only errors are answered.
var unanswered = map[string]bool{
	"yield": true, "accepted": true, "publish": true, "post": true, "drop-subscription": true, "define": true, "ping": true,
}

// answer takes the answer to a request.
func (r *rules) answer(f frame, id string, request frame) string {
	if r.answered[id] {
		return "a second answer"
	}
	if !f.is("error") && unanswered[request.str("type")] {
		return "an answer to what has none"
	}
	r.answered[id] = true
	if f.is("subscribed") && f["domain"] == "agm" {
		r.streams[f.str("subscription_id")] = request.str("server_id")
	}
	switch {
	case request.is("create-context") && !f.is("error"): // it takes its time: what was sent meanwhile came before
		r.members[f.str("context_id")] = int(requests.Load())
		return ""
	case !f.is("success"):
		return ""
	}
	switch {
	case request.is("join") && request["destination"] == "agm":
		r.joined = true
	case request.is("leave") && request["destination"] == "agm":
		r.joined = false
		clear(r.methods)
		clear(r.streams)
		clear(r.demands)
	case request.is("unsubscribe") && f["domain"] == "agm":
		delete(r.streams, request.str("subscription_id"))
	case request.is("unsubscribe-context"):
		if number(id) > r.members[request.str("context_id")] { // else it is a member again
			delete(r.members, request.str("context_id"))
		}
	}
	return ""
}

func (r *rules) known(peer string) bool { return peer == r.me || r.methods[peer] != nil }

func (r *rules) agm(f frame) string {
	server := f.str("server_id")
	switch f["type"] {
	case "peer-added":
		return r.peerAdded(f)
	case "methods-added":
		return r.methodsAdded(f)
	case "methods-removed":
		if !r.known(server) {
			return "methods of an unknown peer"
		}
		for _, id := range list(f["methods"]) {
			if !r.methods[server][id] {
				return "an unknown method was removed"
			}
			delete(r.methods[server], id)
		}
	case "peer-removed":
		return r.peerRemoved(f.str("removed_id"))
	case "invoke", "add-interest":
		if !r.known(f.str("caller_id")) {
			return "the caller is not known"
		}
		if f.is("add-interest") {
			r.demands[f.str("subscription_id")] = true
		}
	case "remove-interest":
		if !r.demands[f.str("subscription_id")] {
			return "the interest is not known"
		}
		delete(r.demands, f.str("subscription_id"))
	case "event", "subscription-cancelled":
		if _, ok := r.streams[f.str("subscription_id")]; !ok {
			return "the subscription is not known"
		}
		if !f.is("event") {
			delete(r.streams, f.str("subscription_id"))
		}
	}
	return ""
}

func (r *rules) peerAdded(f frame) string {
	id := f.str("new_peer_id")
	switch {
	case id == "" || id == r.me || r.methods[id] != nil:
		return "a peer that is known"
	case f["identity"] == nil || f.object("meta")["local"] == nil:
		return "a peer without identity or meta"
	}
	r.methods[id] = map[any]bool{}
	return ""
}

func (r *rules) methodsAdded(f frame) string {
	server := f.str("server_id")
	if !r.known(server) {
		return "methods of an unknown peer"
	}
	if r.methods[server] == nil {
		r.methods[server] = map[any]bool{}
	}
	for _, m := range list(f["methods"]) {
		def, _ := m.(map[string]any)
		if def["id"] == nil || def["name"] == nil {
			return "a method without id or name"
		}
		r.methods[server][def["id"]] = true
	}
	return ""
}

func (r *rules) peerRemoved(id string) string {
	if r.methods[id] == nil {
		return "a peer that is not known"
	}
	if len(r.methods[id]) > 0 {
		return "its methods were not removed before"
	}
	for _, server := range r.streams {
		if server == id {
			return "a subscription on it was not cancelled before"
		}
	}
	delete(r.methods, id)
	return ""
}

func (r *rules) context(f frame) string {
	id := f.str("context_id")
	name := r.contexts[id]
	switch f["type"] {
	case "context-added":
		if f.str("name") == "" || id == "" || name != "" {
			return "a context without a name, or that is known"
		}
		for _, other := range r.contexts {
			if other == f.str("name") {
				return "a second context of the name"
			}
		}
		r.contexts[id] = f.str("name")
	case "context-created", "subscribed-context":
		if name == "" {
			return "a context that was not added"
		}
		r.members[id] = max(r.members[id], number(f.str("request_id")))
	case "context-updated":
		if _, member := r.members[id]; !member {
			return "a context of which the client is no member"
		}
	case "context-destroyed":
		if name == "" {
			return "a context that was not added"
		}
		delete(r.contexts, id)
		delete(r.members, id)
	}
	return ""
}

// number is that of a request, which tests count.
func number(request string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(request, "q")) // or it is a test's own id
	return n
}

func list(v any) []any { l, _ := v.([]any); return l }
