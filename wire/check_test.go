package wire

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// hostile are inputs that end or starve a process which decodes them without
// looking: claims of gigabytes in a few bytes, and nesting by the megabyte.
func hostile(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"array of 2^31-1":        unhex(t, "dd7fffffffc0"),
		"array of 2^32-1":        unhex(t, "ddffffffff"),
		"array of 2^25":          unhex(t, "dd02000000c0"),
		"array of 2^26-1":        unhex(t, "dd03ffffff"),
		"map of 2^31-1":          unhex(t, "df7fffffffa161c0"),
		"map of 2^26-1":          unhex(t, "df03ffffff"),
		"bytes of 2^31-1":        unhex(t, "c67fffffffc0"),
		"string of 2^31-1":       unhex(t, "db7fffffffc0"),
		"extension of 2^31-1":    unhex(t, "c97fffffffffc0"),
		"8 Mi arrays":            bytes.Repeat([]byte{0x91}, 8<<20),
		"1 Mi arrays":            bytes.Repeat([]byte{0x91}, 1<<20),
		"1 Mi arrays, closed":    append(bytes.Repeat([]byte{0x91}, 1<<20), 0xc0),
		"1 Mi maps":              bytes.Repeat([]byte{0x81, 0xa0}, 1<<20),
		"every array claims all": bytes.Repeat([]byte{0xdd, 0, 0x0f, 0xff, 0xf0}, 1<<18),
	}
}

func TestHostileInputIsRefusedForFree(t *testing.T) {
	for name, data := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			var err, decoded, streamed error
			used := allocated(func() {
				err = Check(data)
				var v any
				decoded = Payload{Data: data}.Decode(&v)
				_, streamed = ParseStream(append([]byte{0x93, 1, 1}, data...))
			})
			for _, err := range []error{err, decoded, streamed} {
				if !errors.Is(err, ErrBadPayload) {
					t.Errorf("not refused: %v", err)
				}
			}
			if limit := uint64(len(data))*2 + 64<<10; used > limit {
				t.Errorf("allocated %d bytes for %d", used, len(data))
			}
		})
	}
}

func TestHostileJSONIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"8 Mi arrays":   strings.Repeat("[", 8<<20),
		"1 Mi objects":  strings.Repeat(`{"a":`, 1<<20),
		"1 Mi digits":   strings.Repeat("9", 1<<20),
		"open string":   `"` + strings.Repeat("a", 1<<20),
		"cut surrogate": `"\ud8`,
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			used := allocated(func() { err = CheckJSON([]byte(text)) })
			if !errors.Is(err, ErrBadPayload) {
				t.Errorf("not refused: %v", err)
			}
			if limit := uint64(len(text))*4 + 256<<10; used > limit {
				t.Errorf("allocated %d bytes for %d", used, len(text))
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// What passes may not grow without bound either.
func TestDecodeOfAcceptedInputIsBounded(t *testing.T) {
	for name, data := range map[string][]byte{
		"1 Mi empty maps":   append(unhex(t, "dd00100000"), bytes.Repeat([]byte{0x80}, 1<<20)...),
		"1 Mi empty arrays": append(unhex(t, "dd00100000"), bytes.Repeat([]byte{0x90}, 1<<20)...),
		"1 Mi nils":         append(unhex(t, "dd00100000"), bytes.Repeat([]byte{0xc0}, 1<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			used := allocated(func() {
				var v any
				err = Payload{Data: data}.Decode(&v)
			})
			if err != nil {
				t.Fatal(err)
			}
			if used > 80*uint64(len(data)) {
				t.Errorf("allocated %d bytes for %d", used, len(data))
			}
		})
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestCheckAllocatesNothing(t *testing.T) {
	data := sample(t)
	if n := testing.AllocsPerRun(100, func() {
		if err := Check(data); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Check: %v allocations", n)
	}
	item := AppendStreamData(nil, 1<<60, 1000, data)
	mark := AppendStreamMark(nil, 1<<60, 1000)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParseStream(item); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseStream(mark); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("ParseStream: %v allocations", n)
	}
}

func TestCheckFirst(t *testing.T) {
	for _, c := range []struct {
		hex string
		n   int
	}{{"c0c1", 1}, {"9201029301", 3}, {"81a16101ffff", 4}, {"d6ff0000000000", 6}} {
		n, err := CheckFirst(unhex(t, c.hex))
		if n != c.n || err != nil {
			t.Errorf("%s: %d, %v; want %d", c.hex, n, err, c.n)
		}
	}
	if n, err := CheckFirst(nil); n != 0 || !errors.Is(err, ErrBadPayload) {
		t.Errorf("nothing: %d, %v", n, err)
	}
}

// Cut anywhere, a value is refused; with anything after it, too.
func TestCheckPrefixes(t *testing.T) {
	data := sample(t)
	for n := range data {
		if err := Check(data[:n]); !errors.Is(err, ErrBadPayload) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if err := Check(append(bytes.Clone(data), 0)); !errors.Is(err, ErrBadPayload) {
		t.Errorf("a byte after it: %v", err)
	}
}

// sample is a call's arguments of ordinary size.
func sample(t testing.TB) []byte {
	t.Helper()
	data, err := AppendMsgpack(nil, []byte(sampleJSON))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const sampleJSON = `{"orderId":"ORD-2026-11-21-000042","symbol":"VOD.L","side":"buy","quantity":125000,"price":72.46,` +
	`"currency":"GBP","client":{"id":90071,"name":"Aardvark Asset Management","tier":1,"vip":true},` +
	`"legs":[{"venue":"XLON","qty":100000,"px":72.455},{"venue":"BATE","qty":25000,"px":72.48}],` +
	`"note":"Work it until the close, no more than a fifth of the volume; call the desk before the auction. \"VWAP\"",` +
	`"tags":["algo","urgent","Zürich"],"parent":null,"sequence":1700000000123,"checked":false}`
