package wire

import (
	"reflect"
	"strings"
	"testing"
)

// known is an identity in which every field has a value of its own.
var known = Identity{
	Application: "app", ApplicationName: "App Name", Instance: "i-1", PID: 42, WindowID: "w", Environment: "UAT", Region: "EMEA", Service: "svc", API: "5.1",
	User: "login", OSUser: "os", Machine: "m", Node: "n", App: "boot-1",
	Extra: `{"desk":"FX","level":3,"half":-0.5e1,"vip":true,"temp":false,"none":null,"list":[1],"more":{"a":"b"},"huge":1e999,"Z\u00fcrich":"\u00e9","empty":"","osUser":"root","machine":"forged","app":"claimed"}`,
}

func TestAttributes(t *testing.T) {
	for name, want := range map[string]any{
		"application": "app", "applicationName": "App Name", "instance": "i-1", "windowId": "w", "environment": "UAT", "region": "EMEA",
		"service": "svc", "api": "5.1", "user": "login", "login": "login", "osUser": "os", "machine": "m", "node": "n", "process": 42.0, "pid": 42.0,
		"desk": "FX", "level": 3.0, "half": -5.0, "vip": true, "temp": false, "Zürich": "é", "empty": "",
		// What is no text, number or boolean is not there; names count as they are written.
		"none": nil, "list": nil, "more": nil, "huge": nil, "nobody": nil, "": nil, "Desk": nil, "DESK": nil, "extra": nil, "Extra": nil,
	} {
		got, found := known.Attribute(name)
		if found != (want != nil) || found && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v, want %#v", name, got, found, want)
		}
	}
	// A field without a value is not there, and no claim takes its place.
	bare := Identity{Extra: known.Extra}
	for _, name := range []string{"application", "applicationName", "instance", "windowId", "environment", "region", "service", "api", "user", "login", "osUser", "machine", "node", "process", "pid"} {
		if got, found := bare.Attribute(name); found {
			t.Errorf("%s of nobody is %v", name, got)
		}
	}
	for name, extra := range map[string]string{
		"nothing": "", "no object": `["desk"]`, "cut": `{"desk":"FX"`, "twice": `{"desk":"FX","DESK":"EQ"}`, "too many": strings.Replace(object(MaxMembers), "{", `{"desk":"FX",`, 1),
	} {
		id := Identity{Extra: extra}
		if got, found := id.Attribute("desk"); found {
			t.Errorf("%s: %v", name, got)
		}
		if (Filter{"desk": "FX"}).Match(&id) {
			t.Errorf("%s: matches", name)
		}
	}
}

func TestFilterMatchesClaims(t *testing.T) {
	for _, c := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{}, true},
		{nil, true},
		{Filter{"Application": "APP", "PID": "42", "process": "42", "Login": "login", "user": "LOGIN", "OSUSER": "os", "app": "boot-1"}, true},
		{Filter{"desk": "FX"}, true},
		{Filter{"desk": "fx", "region": "emea"}, true},
		{Filter{"desk": "FX", "region": "APAC"}, false},
		{Filter{"desk": "EQ"}, false},
		{Filter{"Desk": "FX"}, false}, // claims are named as they are written
		{Filter{"level": "3", "vip": "TRUE", "temp": "false", "none": "null", "list": "[1]", "more": `{"a":"b"}`, "half": "-0.5e1"}, true},
		{Filter{"level": "3.0"}, false},
		{Filter{"Zürich": "É"}, true},
		{Filter{"empty": ""}, true},
		{Filter{"nobody": ""}, false}, // a claim that is not there is no empty one
		{Filter{"region": ""}, false},
		// No claim stands in for what the node says.
		{Filter{"osUser": "root"}, false},
		{Filter{"machine": "forged"}, false},
		{Filter{"app": "claimed"}, false},
	} {
		if got := c.filter.Match(&known); got != c.want {
			t.Errorf("%v: %v", c.filter, got)
		}
	}
	bare := Identity{}
	if !(Filter{"region": "", "osUser": ""}).Match(&bare) || (Filter{"desk": ""}).Match(&bare) {
		t.Error("an empty field is equal to nothing, a claim that is not there is not")
	}
	forged := Identity{Extra: `{"osUser":"root","machine":"forged"}`}
	if (Filter{"osUser": "root"}).Match(&forged) || (Filter{"machine": "forged"}).Match(&forged) {
		t.Error("a claim stands in for what the node says")
	}
}

// Check is for callers who mean fields: a name that could only be a claim is a
// mistake of theirs.
func TestFilterCheck(t *testing.T) {
	for name, code := range map[string]Code{
		"application": "", "APPLICATIONNAME": "", "process": "", "pid": "", "login": "", "user": "", "osUser": "", "osuser": "", "app": "", "node": "", "machine": "",
		"desk": BadPayload, "": BadPayload, "extra": BadPayload,
	} {
		if err := (Filter{"application": "x", name: "x"}).Check(); CodeOf(err) != code {
			t.Errorf("%q: %v, want %q", name, err, code)
		}
	}
	if err := Filter(nil).Check(); err != nil {
		t.Error(err)
	}
}

// What gateway clients say of their methods and of themselves travels, and costs
// those nothing who say nothing.
func TestClientFieldsTravel(t *testing.T) {
	m := Method{Name: "M", ID: "7", Restrictions: "$desk = 'FX'", Extra: `{"a":1}`, Flags: map[string]any{"f": true}}
	doc := NodeDoc{V: DocVersion, Apps: []AppDoc{{Identity: known, Domains: map[string]string{"global": "", "interop": "x"}, Holds: []string{"c"}}}}
	q := SubscribeRequest{ID: "1", Detail: `{"a":1}`}
	data := marshalled(t, Manifest{Methods: []Method{m}})
	var manifest Manifest
	if err := Unmarshal(data, &manifest); err != nil || !reflect.DeepEqual(manifest.Methods, []Method{m}) {
		t.Errorf("got %+v, %v", manifest, err)
	}
	var back NodeDoc
	if err := Unmarshal(marshalled(t, doc), &back); err != nil || !reflect.DeepEqual(back, doc) {
		t.Errorf("got %+v, %v", back, err)
	}
	var again SubscribeRequest
	if err := Unmarshal(marshalled(t, q), &again); err != nil || !reflect.DeepEqual(again, q) {
		t.Errorf("got %+v, %v", again, err)
	}
	for _, v := range []any{Method{Name: "M"}, AppDoc{}, SubscribeRequest{}} {
		for _, field := range []string{"restrictions", "extra", "osUser", "holds", "detail"} {
			if strings.Contains(string(marshalled(t, v)), field) {
				t.Errorf("%T without %s says so", v, field)
			}
		}
	}
	// No domains is something else than none: of a gateway client the map is there.
	var client AppDoc
	if err := Unmarshal(marshalled(t, AppDoc{Domains: map[string]string{}}), &client); err != nil {
		t.Fatal(err)
	}
	if client.Domains == nil {
		t.Error("a gateway client without domains is taken for another app")
	}
}

func marshalled(t *testing.T, v any) []byte {
	t.Helper()
	data, err := Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
