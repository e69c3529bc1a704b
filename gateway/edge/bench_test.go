package edge

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// BenchmarkEcho compares a server on this package with one on the WebSocket
// library alone. Messages have 200 bytes; the client writes as many at once as
// are in flight. Both servers read in one goroutine and write in another, which
// takes what is there.
func BenchmarkEcho(b *testing.B) {
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprintf("library/%d", inFlight), func(b *testing.B) { echoLibrary(b, inFlight) })
		b.Run(fmt.Sprintf("edge/%d", inFlight), func(b *testing.B) { echoEdge(b, inFlight) })
	}
}

func echoLibrary(b *testing.B, inFlight int) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		read := func() ([]byte, error) { _, m, err := ws.Read(context.Background()); return m, err }
		write := func(frames [][]byte) error {
			for _, f := range frames {
				if err := ws.Write(context.Background(), websocket.MessageText, f); err != nil {
					return err
				}
			}
			return nil
		}
		echoBatches(read, write)
	}))
	b.Cleanup(server.Close)
	exchange(b, server.Listener.Addr().String(), inFlight)
}

func echoEdge(b *testing.B, inFlight int) {
	g := serve(b, Config{Listen: []string{"127.0.0.1:0"}}, nil, func(ctx context.Context, c *Conn) {
		echoBatches(func() ([]byte, error) { return c.Read(ctx) }, func(frames [][]byte) error { return c.Write(frames...) })
	})
	exchange(b, g.Addresses()[0], inFlight)
}

func echoBatches(read func() ([]byte, error), write func([][]byte) error) {
	queue := make(chan []byte, 256)
	written := make(chan struct{})
	go func() {
		defer close(written)
		var batch [][]byte
		for m := range queue {
			batch = append(batch[:0], m)
			for len(queue) > 0 {
				batch = append(batch, <-queue)
			}
			if write(batch) != nil {
				return
			}
		}
	}()
	for {
		m, err := read()
		if err != nil {
			break
		}
		queue <- m
	}
	close(queue)
	<-written
}

func exchange(b *testing.B, address string, inFlight int) {
	c := connect(b, address)
	if response := c.handshake(); response.StatusCode != http.StatusSwitchingProtocols {
		b.Fatal(response.Status)
	}
	_ = c.SetDeadline(time.Time{})
	out := slices.Repeat(masked(0x81, []byte(strings.Repeat("x", 200))), inFlight)
	in := make([]byte, inFlight*(4+200))
	b.ReportAllocs()
	rounds := 0
	for b.Loop() {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.r, in); err != nil {
			b.Fatal(err)
		}
		rounds++
	}
	b.ReportMetric(float64(rounds*inFlight)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkOwner is the price of one connection's check of the OS user.
func BenchmarkOwner(b *testing.B) {
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	connect(b, l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ends, err := endpointsOf(conn)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := owner(ends); err != nil {
			b.Fatal(err)
		}
	}
}
