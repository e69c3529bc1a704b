package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
)

func seeds(f *testing.F, msgpackToo bool) {
	var vectors []vector
	data := mustRead(f, "testdata/vectors.json")
	if err := json.Unmarshal(data, &vectors); err != nil {
		f.Fatal(err)
	}
	for _, v := range vectors {
		if v.Hex != nil && msgpackToo {
			f.Add(unhex(f, *v.Hex))
		}
		if v.JSON != nil && !msgpackToo {
			f.Add([]byte(*v.JSON))
		}
	}
	if msgpackToo {
		f.Add(sample(f))
	} else {
		f.Add([]byte(sampleJSON))
	}
}

// What Check lets through every decoder reads, ours and the msgpack package's,
// within bounded memory; what it refuses is never decoded.
func FuzzCheck(f *testing.F) {
	seeds(f, true)
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Check(data)
		n, errFirst := CheckFirst(data)
		if err == nil && (errFirst != nil || n != len(data)) || err != nil && errFirst == nil && n >= len(data) {
			t.Fatalf("Check %v, CheckFirst %d, %v", err, n, errFirst)
		}
		var ours any
		if err := (Payload{Data: data}).Decode(&ours); len(data) > 0 && (err == nil) != (Check(data) == nil) {
			t.Fatal(err)
		}
		if err != nil {
			if CodeOf(err) != BadPayload {
				t.Fatal(err)
			}
			return
		}
		var theirs any
		used := allocated(func() { err = msgpack.Unmarshal(data, &theirs) })
		if err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		if used > uint64(len(data))*256+1<<20 {
			t.Fatalf("%d bytes for %d", used, len(data))
		}
		if skip(data, 0) != len(data) {
			t.Fatal("skip disagrees")
		}
		var o order
		_ = Payload{Data: data}.Decode(&o)
		_ = Unmarshal(data, &o)
		_ = Payload{Data: data}.String()
		again, err := Encode(ours)
		if err != nil || ours == nil {
			if ours != nil {
				t.Fatal(err)
			}
			return
		}
		var back any
		if err := again.Decode(&back); err != nil || !reflect.DeepEqual(ours, back) {
			t.Fatalf("%#v became %#v, %v", ours, back, err)
		}
	})
}

// Once through JSON, a value stays what it is.
func FuzzTranscode(f *testing.F) {
	seeds(f, true)
	f.Fuzz(func(t *testing.T, data []byte) {
		if Check(data) != nil {
			if _, err := AppendJSON(nil, data); err == nil {
				t.Fatal("transcoded what Check refuses")
			}
			return
		}
		text, err := AppendJSON(nil, data)
		if err != nil || !utf8.Valid(text) || !json.Valid(text) {
			t.Fatalf("%s, %v", text, err)
		}
		first, err := AppendMsgpack(nil, text)
		if err != nil || Check(first) != nil {
			t.Fatalf("%s: %x, %v, %v", text, first, err, Check(first))
		}
		again, err := AppendJSON(nil, first)
		if err != nil || !bytes.Equal(text, again) {
			t.Fatalf("%s became %s, %v", text, again, err)
		}
		second, err := AppendMsgpack(nil, again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%x became %x, %v", first, second, err)
		}
	})
}

func FuzzPayloadJSON(f *testing.F) {
	seeds(f, false)
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := AppendMsgpack(nil, text)
		if checked := CheckJSON(text); (err == nil) != (checked == nil) {
			t.Fatalf("AppendMsgpack %v, CheckJSON %v", err, checked)
		}
		if err != nil {
			if CodeOf(err) != BadPayload {
				t.Fatal(err)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatal("accepted what encoding/json refuses")
		}
		if err := Check(data); err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		p := Payload{JSON, text}
		want, err := Canonical(p)
		if err != nil {
			t.Fatal(err)
		}
		back, err := AppendJSON(nil, data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Canonical(Payload{JSON, back})
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s, want %s", got, want)
		}
		var a, b any
		if err := p.Decode(&a); err != nil {
			t.Fatal(err)
		}
		if err := (Payload{JSON, back}).Decode(&b); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%#v, %#v, %v", a, b, err)
		}
		var o order
		_ = p.Decode(&o)
		_ = p.String()
	})
}

func FuzzStream(f *testing.F) {
	var vectors []struct{ Hex string }
	if err := json.Unmarshal(mustRead(f, "testdata/stream-vectors.json"), &vectors); err != nil {
		f.Fatal(err)
	}
	for _, v := range vectors {
		f.Add(unhex(f, v.Hex))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseStream(data)
		if err != nil {
			if CodeOf(err) != BadPayload || !reflect.DeepEqual(m, StreamMessage{}) {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		again, err := ParseStream(appendStream(nil, m))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		if m.Kind == StreamData && Check(m.Body) != nil {
			t.Fatal("an unchecked body")
		}
	})
}

func FuzzInjected(f *testing.F) {
	f.Add("Status", []byte(`{"type":"io.nats.x"}`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		Injected(map[string][]string{name: {name}}, body)
		if s := EncodeHeaderText(name); len(s) > maxText || !utf8.ValidString(s) || bytes.ContainsAny([]byte(s), "\r\n\x00") {
			t.Fatalf("%q", s)
		}
	})
}
