package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestInjected(t *testing.T) {
	type header = map[string][]string
	asJSON := header{"Content-Type": {"application/json"}}
	for name, c := range map[string]struct {
		header header
		body   string
		want   bool
	}{
		"nothing":                        {nil, "", false},
		"a call":                         {header{HeaderID: {"x"}, HeaderDeadline: {"1000"}, HeaderTraceparent: {"00"}}, "\x81\xa1a\x01", false},
		"direct get":                     {header{"Nats-Stream": {"KV_x"}}, "\xc0", true},
		"direct get, lower case":         {header{"nats-subject": {"a"}}, "\xc0", true},
		"direct get, upper case":         {header{"NATS-SEQUENCE": {"1"}}, "\xc0", true},
		"status":                         {header{"Status": {"404"}}, "", true},
		"status, no value":               {header{"sTATUS": nil}, "", true},
		"other Nats headers":             {header{"Nats-Msg-Id": {"x"}, "Nats-Time-Stamp": {"x"}}, "\xc0", false},
		"status of ours":                 {header{"X-Status": {"x"}, "Weft-Status": {"1"}}, "\xc0", false},
		"API answer":                     {nil, `{"type":"io.nats.jetstream.api.v1.stream_info_response","total":0}`, true},
		"API answer, spaced":             {nil, " {\n\t\"type\" : \"io.nats.x\"}", true},
		"API answer said to be JSON":     {asJSON, `{"type":"io.nats.jetstream"`, true},
		"another type":                   {nil, `{"type":"order"}`, false},
		"publish ack":                    {nil, `{"stream":"KV_x","seq":1}`, true},
		"publish ack, spaced":            {nil, `{ "stream": "KV_x", "seq":1}`, true},
		"refused publish":                {nil, `{"error":{"code":400,"err_code":10071},"stream":"x","seq":0}`, true},
		"JSON with a stream":             {asJSON, `{"stream":"prices"}`, false},
		"JSON with a stream, lower case": {header{"content-type": {"application/json"}}, `{"stream":"prices"}`, false},
		"JSON with an error":             {asJSON, `{"error":{"code":1}}`, false},
		"empty content type":             {header{"Content-Type": {""}}, `{"stream":"prices"}`, true},
		"a number as stream":             {nil, `{"stream":1}`, false},
		"a text as error":                {nil, `{"error":"x"}`, false},
		"a longer name":                  {nil, `{"streams":"x"}`, false},
		"cut short":                      {nil, `{"stream":`, false},
		"only a brace":                   {nil, `{`, false},
		"too much white space":           {nil, strings.Repeat(" ", 65) + `{"stream":"x"}`, false},
	} {
		if got := Injected(c.header, []byte(c.body)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Injected(asJSON, []byte(`{"stream":"x"}`)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEncodeHeaderText(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                "plain",
		"two\r\nlines":         "two  lines",
		"a\x00b\x7fc\u0085d":   "a b c d",
		" around\n":            "around",
		"Zürich \xff":          "Zürich ?",
		"a\u2028b":             "a b",
		"x\r\nStatus: 503\r\n": "x  Status: 503",
	} {
		if got := EncodeHeaderText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	got := EncodeHeaderText(strings.Repeat("é", 9000))
	if len(got) != 4096 || !utf8.ValidString(got) {
		t.Errorf("%d bytes", len(got))
	}
}
