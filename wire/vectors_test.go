package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"testing"
)

// The vectors are for implementations in other languages, too. json and body
// are always text, so that no reader rounds a number before the test begins.

type vector struct {
	Name      string
	Direction string
	Hex       *string
	JSON      *string
	Error     bool
}

func TestVectors(t *testing.T) {
	var vectors []vector
	readVectors(t, "testdata/vectors.json", &vectors)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			if v.Error != (v.Direction == "refused") {
				t.Fatal("error and direction disagree")
			}
			switch v.Direction {
			case "both":
				checkToJSON(t, v)
				checkToMsgpack(t, v)
			case "msgpack-to-json":
				checkToJSON(t, v)
			case "json-to-msgpack":
				checkToMsgpack(t, v)
			case "refused":
				checkRefused(t, v)
			default:
				t.Fatalf("direction %q", v.Direction)
			}
		})
	}
}

func checkToJSON(t *testing.T, v vector) {
	t.Helper()
	data := unhex(t, *v.Hex)
	if err := Check(data); err != nil {
		t.Fatal(err)
	}
	got, err := AppendJSON([]byte("x"), data)
	if err != nil || string(got) != "x"+*v.JSON {
		t.Errorf("JSON: %s, %v; want %s", got, err, *v.JSON)
	}
	if err := CheckJSON([]byte(*v.JSON)); err != nil {
		t.Errorf("CheckJSON: %v", err)
	}
}

func checkToMsgpack(t *testing.T, v vector) {
	t.Helper()
	if err := CheckJSON([]byte(*v.JSON)); err != nil {
		t.Fatal(err)
	}
	got, err := AppendMsgpack([]byte("x"), []byte(*v.JSON))
	if err != nil || hex.EncodeToString(got[1:]) != *v.Hex {
		t.Errorf("msgpack: %x, %v; want %s", got[1:], err, *v.Hex)
	}
}

func checkRefused(t *testing.T, v vector) {
	t.Helper()
	if v.Hex != nil {
		data := unhex(t, *v.Hex)
		dst, err := AppendJSON([]byte("x"), data)
		if !errors.Is(err, ErrBadPayload) || string(dst) != "x" {
			t.Errorf("AppendJSON: %q, %v", dst, err)
		}
		if err := Check(data); !errors.Is(err, ErrBadPayload) {
			t.Errorf("Check: %v", err)
		}
		return
	}
	dst, err := AppendMsgpack([]byte("x"), []byte(*v.JSON))
	if !errors.Is(err, ErrBadPayload) || string(dst) != "x" {
		t.Errorf("AppendMsgpack: %q, %v", dst, err)
	}
	if err := CheckJSON([]byte(*v.JSON)); !errors.Is(err, ErrBadPayload) {
		t.Errorf("CheckJSON: %v", err)
	}
}

func TestStreamVectors(t *testing.T) {
	var vectors []struct {
		Name, Hex, Kind, Epoch, Seq, Body, Code, Reason, Note string
		Error                                                 bool
	}
	readVectors(t, "testdata/stream-vectors.json", &vectors)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			data := unhex(t, v.Hex)
			m, err := ParseStream(data)
			if v.Error {
				if !errors.Is(err, ErrBadPayload) {
					t.Fatalf("%+v, %v", m, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			epoch, _ := strconv.ParseUint(v.Epoch, 10, 64)
			seq, _ := strconv.ParseUint(v.Seq, 10, 64)
			kind := map[string]StreamKind{"data": StreamData, "mark": StreamMark, "close": StreamClose}[v.Kind]
			body := ""
			if m.Kind == StreamData {
				body = Payload{Data: m.Body}.String()
			}
			if m.Kind != kind || m.Epoch != epoch || m.Seq != seq || body != v.Body || string(m.Code) != v.Code || m.Reason != v.Reason {
				t.Errorf("parsed %+v, body %s", m, body)
			}
			if v.Note == "" && v.Code != string(Internal) {
				if again := appendStream(nil, m); !bytes.Equal(again, data) {
					t.Errorf("written %x, want %x", again, data)
				}
			}
		})
	}
}

func appendStream(dst []byte, m StreamMessage) []byte {
	switch m.Kind {
	case StreamMark:
		return AppendStreamMark(dst, m.Epoch, m.Seq)
	case StreamClose:
		return AppendStreamClose(dst, m.Epoch, m.Seq, m.Code, m.Reason)
	}
	return AppendStreamData(dst, m.Epoch, m.Seq, m.Body)
}

func readVectors(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
