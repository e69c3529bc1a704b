package wire

import (
	"os"
	"testing"
)

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func BenchmarkCheck(b *testing.B) {
	data := sample(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckJSON(b *testing.B) {
	b.SetBytes(int64(len(sampleJSON)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckJSON([]byte(sampleJSON)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendMsgpack(b *testing.B) {
	text := []byte(sampleJSON)
	var dst []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendMsgpack(dst[:0], text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	data := sample(b)
	var dst []byte
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendJSON(dst[:0], data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseStream(b *testing.B) {
	quote, err := Encode(map[string]any{"symbol": "VOD.L", "bid": 72.45, "ask": 72.46, "size": 125000})
	if err != nil {
		b.Fatal(err)
	}
	item := AppendStreamData(nil, 1<<60, 1000, quote.Data)
	b.SetBytes(int64(len(item)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStream(item); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendStreamData(b *testing.B) {
	body := sample(b)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendStreamData(dst[:0], 1<<60, 1000, body)
	}
}

func BenchmarkDecodeAny(b *testing.B) {
	p := Payload{Data: sample(b)}
	b.ReportAllocs()
	for b.Loop() {
		var v any
		if err := p.Decode(&v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeStruct(b *testing.B) {
	p := Payload{Data: sample(b)}
	type trade struct {
		OrderID  string `json:"orderId"`
		Quantity int64  `json:"quantity"`
		Price    float64
		Legs     []leg    `json:"legs"`
		Tags     []string `json:"tags"`
		Note     string   `json:"note"`
	}
	b.ReportAllocs()
	for b.Loop() {
		var v trade
		if err := p.Decode(&v); err != nil {
			b.Fatal(err)
		}
	}
}
