package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/coder/websocket"
)

// benchPeer is one client of a gateway, as cheap as can be: it builds its
// messages by hand and reads of others' what it needs. It is for one goroutine
// at a time, but one may send while another one reads.
type benchPeer struct {
	name    string
	conn    *websocket.Conn
	forever context.Context // never ends: one that may costs something with each message; see load
	id      []byte          // as JSON
	asked   int
	out     benchMessage // the last one
	in      []byte
	frame   benchFrame
}

// benchReadLimit is well above what a gateway tells of other apps.
const benchReadLimit = 16 << 20

// dialBench connects an app and lets it join the others.
func dialBench(ctx context.Context, url, name string) (*benchPeer, error) {
	conn, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // the library says that there is nothing to close
	if err != nil {
		return nil, fmt.Errorf("%s cannot connect to %s: %w", name, url, err)
	}
	conn.SetReadLimit(benchReadLimit)
	return &benchPeer{name: name, conn: conn, forever: context.WithoutCancel(ctx)}, nil
}

// hello says who the peer is and lets it join the others.
func (p *benchPeer) hello() error {
	welcome, err := p.ask("global", "hello", `"identity":{"application":"`+p.name+`"},`+
		`"authentication":{"method":"secret","login":"bench","secret":"bench"}`)
	if err != nil {
		return err
	}
	p.id = slices.Clone(welcome.peerID)
	_, err = p.ask("global", "join", `"destination":"agm"`)
	return err
}

// ask sends a request and returns its answer, which is good until the next read.
func (p *benchPeer) ask(domain, kind, fields string) (*benchFrame, error) {
	p.asked++
	id := fmt.Sprintf(`"%s-%d"`, p.name, p.asked)
	request := p.message(`{"domain":"`).text(domain).text(`","type":"`).text(kind).text(`",`).text(fields).text(`,"request_id":`).text(id)
	if err := p.send(request); err != nil {
		return nil, err
	}
	for {
		f, err := p.next()
		if err != nil {
			return nil, err
		}
		if string(f.requestID) == id {
			return f, nil
		}
	}
}

// benchMessage is the beginning of a message to a gateway.
type benchMessage []byte

func (m benchMessage) text(s string) benchMessage  { return append(m, s...) }
func (m benchMessage) value(v []byte) benchMessage { return append(m, v...) }
func (m benchMessage) mark(n int) benchMessage     { return appendMark(m, n) }

// message begins one; it is in the place of the one before.
func (p *benchPeer) message(s string) benchMessage { return append(p.out[:0], s...) }

// send completes a message and writes it. Each is one write to the socket, as
// with real clients.
func (p *benchPeer) send(m benchMessage) error {
	if p.id != nil {
		m = m.text(`,"peer_id":`).value(p.id)
	}
	p.out = m.text("}")
	if err := p.conn.Write(p.forever, websocket.MessageText, p.out); err != nil {
		return fmt.Errorf("%s cannot send: %w", p.name, err)
	}
	return nil
}

// next reads a message; it is good until the next read. An error message, and
// the end of a subscription, are errors.
func (p *benchPeer) next() (*benchFrame, error) {
	if err := p.read(); err != nil {
		return nil, fmt.Errorf("%s cannot receive: %w", p.name, err)
	}
	f := &p.frame
	if err := f.scan(p.in); err != nil {
		return nil, fmt.Errorf("%s: %w: %.200s", p.name, err, p.in)
	}
	switch string(f.kind) {
	case "error", "subscription-cancelled":
		return nil, fmt.Errorf("%s got %s: %s", p.name, f.kind, bytes.Trim(f.reason, `"`))
	}
	return f, nil
}

// read gets the bytes of the next message.
func (p *benchPeer) read() error {
	_, r, err := p.conn.Reader(p.forever)
	if err != nil {
		return err
	}
	for p.in = p.in[:0]; ; {
		p.in = slices.Grow(p.in, 512)
		n, err := r.Read(p.in[len(p.in):cap(p.in)])
		p.in = p.in[:len(p.in)+n]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// await reads on until a message of a kind comes.
func (p *benchPeer) await(kind string) (*benchFrame, error) {
	for {
		f, err := p.next()
		if err != nil || string(f.kind) == kind {
			return f, err
		}
	}
}
