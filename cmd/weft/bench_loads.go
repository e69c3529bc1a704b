package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// register offers a method of a peer and waits until the others know it.
func register(server *benchPeer, others []*benchPeer, streaming bool) error {
	_, err := server.ask("agm", "register",
		fmt.Sprintf(`"methods":[{"id":"0","name":"Bench.%s","flags":{"streaming":%t}}]`, bytes.Trim(server.id, `"`), streaming))
	if err != nil {
		return err
	}
	for _, other := range others {
		for known := false; !known; {
			f, err := other.await("methods-added")
			if err != nil {
				return err
			}
			known = bytes.Equal(f.serverID, server.id)
		}
	}
	return nil
}

// invokes is a load of calls, so many at any time, from one client to another.
func invokes(inFlight int) func(*benchLoad) (benchOutcome, error) {
	return func(l *benchLoad) (benchOutcome, error) {
		server, err := l.peer("bench-server")
		if err != nil {
			return benchOutcome{}, err
		}
		caller, err := l.peer("bench-caller")
		if err != nil {
			return benchOutcome{}, err
		}
		if err := register(server, []*benchPeer{caller}, false); err != nil {
			return benchOutcome{}, err
		}
		l.run(server.echo)
		return caller.calls(server.id, inFlight, l.last)
	}
}

// echo answers each call with its arguments.
func (p *benchPeer) echo() error {
	for {
		f, err := p.await("invoke")
		if err != nil {
			return err
		}
		err = p.send(p.message(`{"domain":"agm","type":"yield","request_id":"yield","invocation_id":`).value(f.invocationID).
			text(`,"result":`).value(f.argumentsKV))
		if err != nil {
			return err
		}
	}
}

// calls keeps so many calls in flight for a time, and then waits for the rest.
func (p *benchPeer) calls(server []byte, inFlight int, last time.Duration) (benchOutcome, error) {
	began := make([]time.Time, 0, manyTimes) // of each call, zero when it has its result
	outcome := benchOutcome{latencies: make([]time.Duration, 0, manyTimes)}
	start := time.Now()
	for now := start; ; {
		for len(began)-outcome.delivered < inFlight && (len(began) < inFlight || now.Sub(start) < last) {
			began = append(began, time.Now())
			if err := p.call(server, len(began)-1); err != nil {
				return benchOutcome{}, err
			}
		}
		if len(began) == outcome.delivered {
			outcome.took = now.Sub(start)
			return outcome, nil
		}
		n, err := p.result(began)
		if err != nil {
			return benchOutcome{}, err
		}
		now = time.Now()
		outcome.latencies = append(outcome.latencies, now.Sub(began[n]))
		outcome.delivered++
		began[n] = time.Time{}
	}
}

// call sends the call of a number.
func (p *benchPeer) call(server []byte, n int) error {
	return p.send(p.message(`{"domain":"agm","type":"call","method_id":"0","server_id":`).value(server).
		text(`,"arguments_kv":{"i":`).mark(n).text(`},"request_id":`).mark(n))
}

// result waits for the result of one of the calls and is its number.
func (p *benchPeer) result(began []time.Time) (int, error) {
	f, err := p.await("result")
	if err != nil {
		return 0, err
	}
	n := marked(f.requestID)
	if n < 0 || n >= len(began) || began[n].IsZero() || marked(f.result) != n {
		return 0, fmt.Errorf("%s got a result that no call waits for: request_id %s, result %.100s", p.name, f.requestID, f.result)
	}
	return n, nil
}

// streams is a load of messages from one client to some others, at most window
// of which are on their way at any time.
func streams(receivers, window int) func(*benchLoad) (benchOutcome, error) {
	return func(l *benchLoad) (benchOutcome, error) {
		publisher, err := l.peer("bench-publisher")
		if err != nil {
			return benchOutcome{}, err
		}
		crowd, err := l.crowd(receivers)
		if err != nil {
			return benchOutcome{}, err
		}
		if err := register(publisher, crowd, true); err != nil {
			return benchOutcome{}, err
		}
		l.run(publisher.accept) // which has sent all that it will before the first publish
		for _, p := range crowd {
			if _, err := p.ask("agm", "subscribe", `"method_id":"0","server_id":`+string(publisher.id)); err != nil {
				return benchOutcome{}, err
			}
		}
		return l.share(crowd, "event", window, publisher.publish)
	}
}

// accept puts on the stream whoever subscribes, until an error ends it.
func (p *benchPeer) accept() error {
	for {
		f, err := p.await("add-interest")
		if err != nil {
			return err
		}
		err = p.send(p.message(`{"domain":"agm","type":"accepted","stream_id":"s","request_id":"accepted","subscription_id":`).value(f.subscriptionID))
		if err != nil {
			return err
		}
	}
}

// publish sends the message of a number, with a field of 64 bytes more.
func (p *benchPeer) publish(n int) error {
	return p.send(p.message(`{"domain":"agm","type":"publish","stream_id":"s","request_id":"publish","data":{"i":`).mark(n).
		text(`,"p":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`))
}

// updates is a load of updates of one context, one at a time, that some clients
// observe.
func updates(observers int) func(*benchLoad) (benchOutcome, error) {
	return func(l *benchLoad) (benchOutcome, error) {
		updater, err := l.peer("bench-updater")
		if err != nil {
			return benchOutcome{}, err
		}
		crowd, err := l.crowd(observers)
		if err != nil {
			return benchOutcome{}, err
		}
		id, err := observe(updater, crowd)
		if err != nil {
			return benchOutcome{}, err
		}
		outcome, err := l.share(crowd, "context-updated", 1, func(n int) error { return updater.update(id, n) })
		if err == nil {
			_, err = updater.ask("global", "destroy-context", `"context_id":`+string(id))
		}
		return outcome, err
	}
}

// observe makes a context that all observe, and is its id. Retained contexts are
// those that real clients make.
func observe(updater *benchPeer, crowd []*benchPeer) (id []byte, err error) {
	name := fmt.Sprintf(`"weft-bench-%d"`, time.Now().UnixNano())
	f, err := updater.ask("global", "create-context", `"name":`+name+`,"lifetime":"retained","data":{"v":""}`)
	if err != nil {
		return nil, err
	}
	id = slices.Clone(f.contextID)
	for _, p := range crowd {
		f, err := p.await("context-added")
		for err == nil && string(f.name) != name {
			f, err = p.await("context-added")
		}
		if err == nil {
			_, err = p.ask("global", "subscribe-context", `"context_id":`+string(f.contextID))
		}
		if err != nil {
			return nil, err
		}
	}
	return id, nil
}

// update makes the update of a number and waits until the gateway has it.
func (p *benchPeer) update(id []byte, n int) error {
	err := p.send(p.message(`{"domain":"global","type":"update-context","context_id":`).value(id).
		text(`,"delta":{"commands":[{"type":"set","path":"v","value":`).mark(n).text(`}]},"request_id":`).mark(n))
	if err != nil {
		return err
	}
	f, err := p.await("success")
	if err == nil && marked(f.requestID) != n {
		err = fmt.Errorf("%s got success for %s and not for update %d", p.name, f.requestID, n)
	}
	return err
}
