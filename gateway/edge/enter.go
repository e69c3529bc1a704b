package edge

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// enter is every HTTP request: the checks of Host and Origin, the upgrade, and
// then the life of the connection. The OS user was checked before.
func (e *Edge) enter(ctx context.Context, w http.ResponseWriter, r *http.Request, handle func(context.Context, *Conn)) {
	v, ok := r.Context().Value(visitorKey{}).(*visitor)
	if !ok { // not a connection of our gates
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	origin, reason := e.inspect(v.gate, r)
	status := http.StatusForbidden
	if reason == "" {
		if reason = e.join(origin); reason == "" {
			defer e.leave(origin)
			e.upgrade(ctx, v, origin, w, r, handle)
			return
		}
		status = http.StatusServiceUnavailable
	}
	e.refuse(reason, r.RemoteAddr, r.Host, r.Header.Get("Origin"))
	http.Error(w, http.StatusText(status), status)
}

// inspect checks Host and then Origin. The origin is empty for native apps,
// which send none; every other has been compared with the list.
func (e *Edge) inspect(g *gate, r *http.Request) (origin, reason string) {
	// With a whole URL in the request line, net/http takes the host from there
	// and does not look at the header. No client of ours sends one.
	if !strings.HasPrefix(r.RequestURI, "/") || !g.hosts[strings.ToLower(r.Host)] {
		return "", "host not allowed"
	}
	origins := r.Header.Values("Origin")
	switch {
	case len(origins) == 0:
		return "", ""
	case len(origins) > 1 || !e.origins[origins[0]]: // an empty header is not the same as none
		return "", "origin not allowed"
	}
	return origins[0], ""
}

// upgrade makes the WebSocket and runs handle on it.
func (e *Edge) upgrade(ctx context.Context, v *visitor, origin string, w http.ResponseWriter, r *http.Request, handle func(context.Context, *Conn)) {
	s := newStream(v, e.system.limits)
	ws, err := websocket.Accept(&hijacker{ResponseWriter: w, stream: s}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // inspect has compared it exactly
		CompressionMode:    websocket.CompressionDisabled,
		Subprotocols:       firstProtocol(r),
	})
	if err != nil { // answered by Accept
		e.refuse("not a WebSocket handshake", r.RemoteAddr, r.Host, origin)
		return
	}
	ws.SetReadLimit(e.system.message)
	c := &Conn{ws: ws, stream: s, limits: e.system.limits, origin: origin, host: r.Host, remote: r.RemoteAddr, user: v.user}
	c.run(ctx, handle)
}

// firstProtocol is what the reference gateway answers when a client asks for
// sub-protocols.
func firstProtocol(r *http.Request) []string {
	first, _, _ := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), ",")
	if first = strings.TrimSpace(first); first == "" {
		return nil
	}
	return []string{first}
}

// hijacker hands the WebSocket library a stream of ours in place of the
// connection of net/http.
type hijacker struct {
	http.ResponseWriter
	stream *stream
}

// Hijack takes along what net/http has read beyond the request. The library
// keeps the reader with its large buffer; through the writer go only control
// frames, each in one piece.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	_, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, err
	}
	reader := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), h.stream), readBuffer)
	if _, err := reader.Peek(len(early)); err != nil {
		return nil, nil, err
	}
	return h.stream, bufio.NewReadWriter(reader, bufio.NewWriterSize(h.stream, maxControlFrame)), nil
}
